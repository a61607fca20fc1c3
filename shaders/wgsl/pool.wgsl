// Pooling over [N, H, W, C]: one thread a result of `{{T}}` (one channel, or four neighbours).

// The position (as an offset in the image) of the maximum of the window of output (oy, ox): the first
// in row-major order; the first NaN counts as the largest; padding never wins.
fn window_maximum(n: i32, oy: i32, ox: i32, c: i32) -> {{I}} {
    var best = {{T}}(0.0);
    var at = {{I}}(-1);
    for (var r = 0; r < {{kh}}; r++) {
        let y = oy * {{stride_y}} + r - {{padding_y}};
        if y < 0 || y >= {{height}} { continue; }
        for (var s = 0; s < {{kw}}; s++) {
            let x = ox * {{stride_x}} + s - {{padding_x}};
            if x < 0 || x >= {{width}} { continue; }
            let value = {{x}}[((n * {{height}} + y) * {{width}} + x) * {{channels}} + c];
            let better = (value > best) | (is_nan{{suffix}}(value) & !is_nan{{suffix}}(best)) | (at < {{I}}(0));
            best = select(best, value, better);
            at = select(at, {{I}}(y * {{width}} + x), better);
        }
    }
    return at;
}

// What an average over the window of output (oy, ox) divides by.
fn divisor(oy: i32, ox: i32) -> f32 {
    if {{count_padding}} {
        return {{area}}.0;
    }
    let y = oy * {{stride_y}} - {{padding_y}};
    let x = ox * {{stride_x}} - {{padding_x}};
    let rows = min(y + {{kh}}, {{height}}) - max(y, 0);
    let columns = min(x + {{kw}}, {{width}}) - max(x, 0);
    return f32(max(rows * columns, 1));
}
