Op::Broadcast => {
    let (from, to) = (input(0).shape(), node.shape());
    let stretched: Vec<usize> = (0..to.len()).filter(|&d| from[d] != to[d]).collect();
    vec![Some(g.sum(&stretched))]
}
