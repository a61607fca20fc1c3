    // One weight and one chunk of the output pixels a thread; the chunks are added up in order later.
    let weight = i % {{weights}};
    let chunk = i / {{weights}};
    let s = weight % {{kw}};
    let r = (weight / {{kw}}) % {{kh}};
    let ci = (weight / {{taps}}) % {{group_in}};
    let co = weight / {{group_weights}};
    let c = (co / {{group_out}}) * {{group_in}} + ci;
    var sum = 0.0;
    let end = min((chunk + 1) * {{chunk_len}}, {{pixels}});
    for (var pixel = chunk * {{chunk_len}}; pixel < end; pixel++) {
        let ox = pixel % {{out_width}};
        let oy = (pixel / {{out_width}}) % {{out_height}};
        let n = pixel / {{out_pixels}};
        let y = oy * {{stride_y}} + r * {{dilation_y}} - {{padding_y}};
        let x = ox * {{stride_x}} + s * {{dilation_x}} - {{padding_x}};
        if y >= 0 && y < {{height}} && x >= 0 && x < {{width}} {
            sum += lhs(n, y, x, c) * rhs(n, oy, ox, co);
        }
    }
    {{partials}}[i] = sum;
