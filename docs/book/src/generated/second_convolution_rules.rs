Op::Convolution(conv) => {
    let (x, weight) = (input(0), input(1));
    vec![
        Some(g.conv2d_input_grad(weight, *conv, x.shape())),
        Some(x.conv2d_weight_grad(g, *conv, weight.shape())),
    ]
}
Op::ConvolutionInputGrad(conv) => {
    let (dy, weight) = (input(0), input(1));
    vec![Some(g.conv2d(weight, *conv)), Some(g.conv2d_weight_grad(dy, *conv, weight.shape()))]
}
Op::ConvolutionWeightGrad(conv) => {
    let (x, dy) = (input(0), input(1));
    vec![Some(dy.conv2d_input_grad(g, *conv, x.shape())), Some(x.conv2d(g, *conv))]
}
