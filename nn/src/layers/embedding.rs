//! A table of vectors.

use autograd::{Tensor, Variable};

use super::scope::within;

/// A vector for each of so many whole numbers: weight `[numbers, C]`.
///
/// ```
/// # use autograd::Tensor;
/// # use nn::{initialization::{Initialization, Initializer}, layers::*};
/// # let initializer = Initializer::new(Initialization::PYTORCH, 1);
/// let (table, _) = Builder::build(initializer, |b| b.embedding("classes", 10, 4));
/// let vectors = table.forward(&Tensor::input_i32("labels", &[3]));
/// assert_eq!(vectors.shape(), [3, 4]);
/// ```
pub struct Embedding {
    pub(super) weight: Variable,
}

impl Embedding {
    /// Integers of any shape to their vectors: `[..] -> [.., C]`, zeros for a number that the table lacks.
    /// Written as a product with one-hot rows, so its gradient needs no atomics; made for the small tables of
    /// vision networks (classes, positions), not for vocabularies.
    #[track_caller]
    pub fn forward(&self, numbers: &Tensor) -> Tensor {
        let _layer = within(&self.weight);
        let &[rows, channels] = self.weight.shape() else { unreachable!("the builder's shape") };
        let flat = numbers.reshape(&[numbers.len()]).one_hot(rows);
        flat.matmul(&self.weight.tensor()).reshape(&[numbers.shape(), &[channels]].concat())
    }
}
