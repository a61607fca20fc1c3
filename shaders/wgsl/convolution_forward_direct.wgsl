    // One element of the result [N, Ho, Wo, Cout] a thread.
    let co = i % {{out_channels}};
    let pixel = i / {{out_channels}};
    let ox = pixel % {{out_width}};
    let oy = (pixel / {{out_width}}) % {{out_height}};
    let n = pixel / {{out_pixels}};
    let first = (co / {{group_out}}) * {{group_in}};
    var sum = 0.0;
    var off = 0.0;
    for (var r = 0; r < {{kh}}; r++) {
        let y = oy * {{stride_y}} + r * {{dilation_y}} - {{padding_y}};
        if y < 0 || y >= {{height}} { continue; }
        // Short sums round less, and what adding them up rounds off is kept.
        var row = 0.0;
        for (var s = 0; s < {{kw}}; s++) {
            let x = ox * {{stride_x}} + s * {{dilation_x}} - {{padding_x}};
            if x < 0 || x >= {{width}} { continue; }
            for (var ci = 0; ci < {{group_in}}; ci++) {
                row += lhs(n, y, x, first + ci) * rhs(co, ci, r, s);
            }
        }
        off += rounded_off_(sum, row, params.count >> 31u);
        sum += row;
    }
    finish(n, oy, ox, co, total_(sum, off));
