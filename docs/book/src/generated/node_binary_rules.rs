BinaryOp::Add => vec![Some(g.clone()), Some(g.clone())],
BinaryOp::Sub => vec![Some(g.clone()), Some(-g)],
BinaryOp::Mul => vec![Some(g * b), Some(g * a)],
BinaryOp::Div => vec![Some(g / b), Some(-(g * node / b))],
