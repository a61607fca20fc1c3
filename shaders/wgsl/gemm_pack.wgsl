    // The right operand as [z][tap][k][column], padded with zeros: one element a thread.
    let column = i % {{columns_padded}};
    let k = (i / {{columns_padded}}) % {{k_padded}};
    let tap = (i / {{tap_len}}) % {{taps}};
    let z = i / {{z_len}};
    var value = 0.0;
    if column < {{columns}} && k < {{k}} {
        value = {{load}};
    }
    {{packed}}[i] = {{value}};
