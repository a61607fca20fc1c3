// Packs a right operand, padded with zeros: element i.
fn pack{{number}}(i: i32) {
    let k = {{k}};
    let column = {{column}};
    let tap = {{tap}};
    let z = {{z}};
    var value = 0.0;
    if column < {{columns}} && k < {{values}} && tap < {{taps}} {
        value = rhs{{number}}({{index}});
    }
    {{store}}
}
