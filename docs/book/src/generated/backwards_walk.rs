pub fn grad(loss: &Tensor, wrt: &[Tensor]) -> Vec<Tensor> {
    let gradients = grad_where_any(loss, wrt);
    wrt.iter().zip(gradients).map(|(t, gradient)| gradient.unwrap_or_else(|| t.zeros_like())).collect()
}

/// As [`grad`], with `None` where no path leads from one to the other.
#[track_caller]
pub fn grad_where_any(loss: &Tensor, wrt: &[Tensor]) -> Vec<Option<Tensor>> {
    let order = ancestors_on_path(loss, wrt);
    let mut gradients: HashMap<u64, Tensor> = HashMap::new();
    gradients.insert(identity(loss), Tensor::full(loss.shape(), 1.0));
    for node in &order {
        let Some(upstream) = gradients.get(&identity(node)).cloned() else { continue };
        // Outside of layers the part stands for one: the loss.
        let Scope { part, layer } = node.scope().clone();
        let _scope = scope::enter(Scope {
            part: BACKWARD,
            layer: layer.or_else(|| (!part.is_empty()).then(|| part.into())),
        });
        let contributions = vector_jacobian(node, &upstream);
        for (input, contribution) in node.inputs().iter().zip(contributions) {
            let Some(contribution) = contribution else { continue };
            let total = match gradients.remove(&identity(input)) {
                Some(sum) => sum + contribution,
                None => contribution,
            };
            gradients.insert(identity(input), total);
        }
    }
    wrt.iter().map(|t| gradients.get(&identity(t)).cloned()).collect()
}
