// Packs a right operand as [z][tap][k][column], padded with zeros: element i.
fn pack{{number}}(i: i32) {
    let column = i % {{columns_padded}};
    let k = (i / {{columns_padded}}) % {{k_padded}};
    let tap = (i / {{tap_len}}) % {{taps}};
    let z = i / {{z_len}};
    var value = 0.0;
    if column < {{columns}} && k < {{k}} {
        value = rhs{{number}}({{index}});
    }
    {{packed}}[{{offset}} + i] = {{value}};
}
