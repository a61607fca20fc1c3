/// x `[N,H,W,Cin]`, weight `[Cout,Cin/groups,kh,kw]` to `[N,Ho,Wo,Cout]`.
pub fn forward(shape: &[usize], conv: &Conv2d, x: &Array, weight: &Array) -> Array {
    let mut y = Array::from_fn(shape, |_| 0.0);
    for_each_product(conv, &x.shape, &weight.shape, shape, |xi, wi, yi| {
        y.data[yi] += x.data[xi] * weight.data[wi];
    });
    y
}

/// dy `[N,Ho,Wo,Cout]`, weight to dx `[N,H,W,Cin]`.
pub fn input_grad(shape: &[usize], conv: &Conv2d, dy: &Array, weight: &Array) -> Array {
    let mut dx = Array::from_fn(shape, |_| 0.0);
    for_each_product(conv, shape, &weight.shape, &dy.shape, |xi, wi, yi| {
        dx.data[xi] += dy.data[yi] * weight.data[wi];
    });
    dx
}

/// x, dy to dw `[Cout,Cin/groups,kh,kw]`.
pub fn weight_grad(shape: &[usize], conv: &Conv2d, x: &Array, dy: &Array) -> Array {
    let mut dw = Array::from_fn(shape, |_| 0.0);
    for_each_product(conv, &x.shape, shape, &dy.shape, |xi, wi, yi| {
        dw.data[wi] += x.data[xi] * dy.data[yi];
    });
