//! Gradients that are shortened before an optimizer sees them.

use autograd::{Tensor, Variable, VariableStore};

use crate::checkpoint::OptimizerState;
use crate::error::Result;
use crate::optimizer::{Losses, Optimizer, clip_by_norm};

/// An optimizer whose gradients are together no longer than given: see [`clip_by_norm`].
pub struct Clipped {
    optimizer: Box<dyn Optimizer>,
    most: f64,
}

impl Clipped {
    /// Shortens the gradients of `optimizer` to the length `most`.
    pub fn new(optimizer: Box<dyn Optimizer>, most: f64) -> Clipped {
        Clipped { optimizer, most }
    }
}

impl Optimizer for Clipped {
    fn updates(&self, gradients: &[Tensor], rate: &Tensor) -> Vec<(Variable, Tensor)> {
        self.optimizer.updates(&clip_by_norm(gradients, self.most), rate)
    }
    fn parameters(&self) -> Vec<Variable> {
        self.optimizer.parameters()
    }
    fn differentiated(&self) -> Vec<Variable> {
        self.optimizer.differentiated()
    }
    fn gradients(&self, losses: &Losses) -> Vec<Tensor> {
        self.optimizer.gradients(losses)
    }
    fn state(&self) -> Vec<Variable> {
        self.optimizer.state()
    }
    fn lacks(&self, saved: &OptimizerState, positions: std::ops::Range<usize>) -> Option<String> {
        self.optimizer.lacks(saved, positions)
    }
    fn load(&self, saved: &OptimizerState, device: &dyn VariableStore) -> Result<()> {
        self.optimizer.load(saved, device)
    }
    fn save(&self, rate: f64, device: &dyn VariableStore) -> Result<OptimizerState> {
        self.optimizer.save(rate, device)
    }
}
