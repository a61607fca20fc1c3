//! Sums over processes of many tensors, in few transfers.

use autograd::Tensor;
use autograd::tensor::Transfer;

/// Elements that travel together, at most (but for a tensor that is larger): 16 MiB of `f32`. Large enough that
/// the time is the bytes' and not the messages', small enough that the first sums are under way while the
/// gradients of the first layers are still computed.
const BUCKET: usize = 1 << 22;

/// Each tensor's sum over all processes. Tensors travel in buckets, from the last to the first: gradients are
/// computed in about that order.
pub fn all_reduce(tensors: &[Tensor], transfer: Transfer) -> Vec<Tensor> {
    let mut sums = vec![None; tensors.len()];
    let mut rest = tensors.len();
    while rest > 0 {
        let end = rest;
        let mut elements = 0;
        while rest > 0 && (rest == end || elements + tensors[rest - 1].len() <= BUCKET) {
            rest -= 1;
            elements += tensors[rest].len();
        }
        let flat: Vec<Tensor> = tensors[rest..end].iter().map(|t| t.reshape(&[t.len()])).collect();
        let bucket = Tensor::concatenate(&flat.iter().collect::<Vec<_>>(), 0).all_reduce(transfer);
        let mut start = 0;
        for (sum, tensor) in sums[rest..end].iter_mut().zip(&tensors[rest..end]) {
            *sum = Some(bucket.slice(0, start, tensor.len(), 1).reshape(tensor.shape()));
            start += tensor.len();
        }
    }
    sums.into_iter().flatten().collect()
}
