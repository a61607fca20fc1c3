//! Chapter 2: one node, one rule.

use std::collections::HashMap;

use autograd::tensor::{Op, UnaryOp};
use autograd::{Result, Tensor, evaluate, grad};

use crate::picture::{BLUE, GREY, Picture};

// ANCHOR: expression
/// log(x² + 1)
fn expression(x: &Tensor) -> Tensor {
    (x * x + 1.0).log()
}
// ANCHOR_END: expression

// ANCHOR: nodes
/// Every node that `of` is made of, operands before users.
pub fn nodes(of: &Tensor) -> Vec<Tensor> {
    let mut found: HashMap<u64, Tensor> = HashMap::new();
    let mut pending = vec![of.clone()];
    while let Some(node) = pending.pop() {
        pending.extend(node.inputs().iter().cloned());
        found.insert(node.id(), node);
    }
    let mut nodes: Vec<Tensor> = found.into_values().collect();
    nodes.sort_by_key(Tensor::id);
    nodes
}
// ANCHOR_END: nodes

// ANCHOR: graph
pub fn graph() -> Result<()> {
    let y = expression(&Tensor::input("x", &[]));
    let nodes = nodes(&y);
    let number = |node: &Tensor| nodes.iter().position(|other| other.id() == node.id()).expect("of y");
    for node in &nodes {
        let inputs: Vec<usize> = node.inputs().iter().map(number).collect();
        println!("{}  {:?}  of {inputs:?}", number(node), node.op());
    }
    let x = HashMap::from([("x".to_string(), vec![2.0])]);
    println!("at x = 2: {:.4}", evaluate(&[y], &x, &HashMap::new(), &HashMap::new())?[0][0]);
    Ok(())
}
// ANCHOR_END: graph

// ANCHOR: rules
/// For each operation of one operand: what its rule says at some point, and what a difference does.
pub fn rules() -> Result<()> {
    println!("operation      x     rule   difference");
    for op in UnaryOp::ALL {
        let x = 0.6;
        let at = Tensor::constant(&[], vec![x]);
        let rule = grad(&at.unary(op), &[at])[0].evaluate()?[0];
        let (x, h) = (f64::from(x), 1e-6);
        let difference = (op.value(x + h) - op.value(x - h)) / (2.0 * h);
        println!("{:<10} {x:5.1} {rule:8.4} {difference:12.4}", op.name());
    }
    Ok(())
}
// ANCHOR_END: rules

/// The longest way from a node down to a leaf.
fn depth(node: &Tensor) -> usize {
    node.inputs().iter().map(|input| depth(input) + 1).max().unwrap_or(0)
}

/// Draws the graph of an expression, operands left of users, with a note below each node.
pub fn draw(of: &Tensor, title: &str, note: impl Fn(&Tensor) -> Vec<String>) -> String {
    let nodes = nodes(of);
    let uses = |node: &Tensor, user: &&Tensor| user.inputs().iter().any(|input| input.id() == node.id());
    // Leaves stand just before their first user.
    let column = |node: &Tensor| match node.inputs() {
        [] => nodes.iter().filter(|user| uses(node, user)).map(|user| depth(user) - 1).min().unwrap_or(0),
        _ => depth(node),
    };
    let columns: Vec<Vec<&Tensor>> =
        (0..=depth(of)).map(|at| nodes.iter().filter(|n| column(n) == at).collect()).collect();
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(1) as f64;
    let (step, box_size) = (128.0, (92.0, 30.0));
    let height = 60.0 + 86.0 * tallest;
    let mut picture = Picture::new(36.0 + step * columns.len() as f64, height);
    picture.text((16.0, 22.0), "start", "black", title);
    let mut places: HashMap<u64, (f64, f64)> = HashMap::new();
    for (at, column) in columns.iter().enumerate() {
        for (row, node) in column.iter().enumerate() {
            let y = 40.0 + (height - 50.0) * (row as f64 + 0.5) / column.len() as f64 - 28.0;
            places.insert(node.id(), (18.0 + step * at as f64, y));
        }
    }
    for node in &nodes {
        let (x, y) = places[&node.id()];
        for (i, input) in node.inputs().iter().enumerate() {
            let (from_x, from_y) = places[&input.id()];
            // Two uses of one operand are two arrows.
            let end = y + box_size.1 * (i as f64 + 1.0) / (node.inputs().len() as f64 + 1.0);
            picture.arrow((from_x + box_size.0, from_y + box_size.1 / 2.0), (x, end), GREY);
        }
    }
    for node in &nodes {
        let (x, y) = places[&node.id()];
        let name = match node.op() {
            Op::Input(name) => name.clone(),
            Op::Full(value) => value.to_string(),
            op => op.name().to_string(),
        };
        picture.rectangle((x, y), box_size, "#eef4fa", BLUE);
        picture.text((x + box_size.0 / 2.0, y + 20.0), "middle", "black", &name);
        for (i, line) in note(node).iter().enumerate() {
            let below = y + box_size.1 + 15.0 * (i as f64 + 1.0);
            picture.text((x + box_size.0 / 2.0, below), "middle", GREY, line);
        }
    }
    picture.svg()
}

/// The expression as the graph it is.
pub fn picture() -> Result<String> {
    let y = expression(&Tensor::input("x", &[]));
    let x = HashMap::from([("x".to_string(), vec![2.0])]);
    let none = HashMap::new();
    let nodes = nodes(&y);
    let values = evaluate(&nodes, &x, &none, &none)?;
    let value = |node: &Tensor| nodes.iter().position(|n| n.id() == node.id()).map(|at| values[at][0]);
    Ok(draw(&y, "log(x² + 1) at x = 2: a node an operation, its value below", |node| {
        value(node).map(|v| format!("{v:.3}")).into_iter().collect()
    }))
}
