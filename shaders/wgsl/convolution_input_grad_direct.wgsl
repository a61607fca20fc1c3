    // One element of the result [N, H, W, Cin] a thread: the outputs that this input reached.
    let c = i % {{in_channels}};
    let pixel = i / {{in_channels}};
    let x = pixel % {{width}};
    let y = (pixel / {{width}}) % {{height}};
    let n = pixel / {{in_pixels}};
    let ci = c % {{group_in}};
    let first = (c / {{group_in}}) * {{group_out}};
    var sum = 0.0;
    var off = 0.0;
    for (var r = 0; r < {{kh}}; r++) {
        let sy = y + {{padding_y}} - r * {{dilation_y}};
        if sy < 0 || sy % {{stride_y}} != 0 || sy / {{stride_y}} >= {{out_height}} { continue; }
        // Short sums round less, and what adding them up rounds off is kept.
        var row = 0.0;
        for (var s = 0; s < {{kw}}; s++) {
            let sx = x + {{padding_x}} - s * {{dilation_x}};
            if sx < 0 || sx % {{stride_x}} != 0 || sx / {{stride_x}} >= {{out_width}} { continue; }
            for (var co = 0; co < {{group_out}}; co++) {
                row += lhs(n, sy / {{stride_y}}, sx / {{stride_x}}, first + co) * rhs(first + co, ci, r, s);
            }
        }
        off += rounded_off_(sum, row, params.count >> 31u);
        sum += row;
    }
    finish(n, y, x, c, total_(sum, off));
