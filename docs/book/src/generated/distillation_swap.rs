pub fn swap(logits: &Tensor, labels: &Tensor) -> Tensor {
    let (maximum, label) = places(logits, labels);
    let largest = logits.max(1);
    let own = pick(logits, &label);
    maximum.select(&own, &label.select(&largest, logits))
}
