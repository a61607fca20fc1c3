    // The right operand as [z][block][tap][k][column of the block], padded with zeros: one element a thread.
    let in_block = i % {{width}};
    let k = (i / {{width}}) % {{k_padded}};
    let tap = (i / {{tap_len}}) % {{taps}};
    let column = ((i / {{block_len}}) % {{blocks}}) * {{width}} + in_block;
    let z = i / {{z_len}};
    var value = 0.0;
    if column < {{columns}} && k < {{k}} {
        value = {{load}};
    }
    {{packed}}[i] = {{value}};
