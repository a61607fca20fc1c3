    // One value of the result [N, H, W, C] a thread: the windows that cover it.
    let c = i % {{channels}};
    let pixel = i / {{channels}};
    let x = pixel % {{width}};
    let y = (pixel / {{width}}) % {{height}};
    let n = pixel / {{in_pixels}};
    var result = {{T}}(0.0);
    // Windows oy with oy * stride - padding <= y < oy * stride - padding + size.
    let first_y = max(y + {{padding_y}} - {{kh}} + {{stride_y}}, 0) / {{stride_y}};
    let last_y = min((y + {{padding_y}}) / {{stride_y}}, {{out_height}} - 1);
    let first_x = max(x + {{padding_x}} - {{kw}} + {{stride_x}}, 0) / {{stride_x}};
    let last_x = min((x + {{padding_x}}) / {{stride_x}}, {{out_width}} - 1);
    for (var oy = first_y; oy <= last_y; oy++) {
        for (var ox = first_x; ox <= last_x; ox++) {
            let dy = {{dy}}[((n * {{out_height}} + oy) * {{out_width}} + ox) * {{channels}} + c];
            {{add}}
        }
    }
    {{output}}[i] = result;
