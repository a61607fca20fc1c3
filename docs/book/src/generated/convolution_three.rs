/// x `[N,H,W,Cin]`, weight `[Cout,Cin/groups,kh,kw]` to `[N,Ho,Wo,Cout]`.
pub fn forward(shape: &[usize], conv: &Conv2d, x: &Array, weight: &Array) -> Array {
    let (mut y, w) = (zeros(shape), view::permute(&TURNED, weight));
    for_each_product(conv, &x.shape, &weight.shape, shape, |xs, ws, yi| {
        y.data[yi] += dot(&x.data[xs], &w.data[ws]);
    });
    y
}

/// dy `[N,Ho,Wo,Cout]`, weight to dx `[N,H,W,Cin]`.
pub fn input_grad(shape: &[usize], conv: &Conv2d, dy: &Array, weight: &Array) -> Array {
    let (mut dx, w) = (zeros(shape), view::permute(&TURNED, weight));
    for_each_product(conv, shape, &weight.shape, &dy.shape, |xs, ws, yi| {
        add_scaled(&mut dx.data[xs], dy.data[yi], &w.data[ws]);
    });
    dx
}

/// x, dy to dw `[Cout,Cin/groups,kh,kw]`.
pub fn weight_grad(shape: &[usize], conv: &Conv2d, x: &Array, dy: &Array) -> Array {
    let mut dw = zeros(&TURNED.map(|axis| shape[axis]));
    for_each_product(conv, &x.shape, shape, &dy.shape, |xs, ws, yi| {
        add_scaled(&mut dw.data[ws], dy.data[yi], &x.data[xs]);
    });
    view::permute(&TURNED, &dw)
}
