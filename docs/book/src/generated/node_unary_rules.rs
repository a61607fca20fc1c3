Op::Unary(op) => {
    let x = input(0);
    vec![match op {
        UnaryOp::Neg => Some(-g),
        UnaryOp::Exp => Some(g * node),
        UnaryOp::Log => Some(g / x),
        UnaryOp::Sqrt => Some(g * 0.5 / node),
        UnaryOp::Abs => Some(g * x.sign()),
        UnaryOp::Reciprocal => Some(-(g * node * node)),
        UnaryOp::Tanh => Some(g * (1.0 - node * node)),
        UnaryOp::Erf => Some(g * (-x.square()).exp() * FRAC_2_SQRT_PI),
        // `0 < relu(x)` rather than `0 < x`: the output is what later layers keep.
        UnaryOp::Relu => Some(zero().less(node).select(g, &zero())),
        UnaryOp::Sign | UnaryOp::Floor => None,
    }]
}
