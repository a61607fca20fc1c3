    // One value of the output [N, Ho, Wo, C] a thread.
    let c = i % {{channels}};
    let pixel = i / {{channels}};
    let ox = pixel % {{out_width}};
    let oy = (pixel / {{out_width}}) % {{out_height}};
    let n = pixel / {{out_pixels}};
    var result = {{T}}(0.0);
