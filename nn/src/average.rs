//! An average of a network's weights over its training.

use autograd::{Tensor, Variable, scope};

use crate::error::{Error, Result};
use crate::layers::{Kind, StateEntry, within};
use crate::models::Model;

/// An exponential moving average of a network's weights and running statistics, which often answers better than the
/// latest weights do: after each step `average = decay * average + (1 - decay) * weight`, as
/// `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(decay)` and its buffers; after the first step the
/// weights themselves.
pub struct Average {
    /// Of the trained network and of the average, of the same shape.
    pairs: Vec<(Variable, Variable, Kind)>,
    decay: f64,
    /// 0 before the first step, then 1.
    begun: Variable,
}

impl Average {
    /// `average` is another network of the kind: evaluated, saved and loaded as any other.
    ///
    /// # Errors
    /// The networks have different parameters: the name of the first.
    pub fn new(trained: &Model, average: &Model, decay: f64) -> Result<Average> {
        let (own, others) = (trained.manifest(), average.manifest());
        let apart = own.iter().zip(&others).find(|(a, b)| a != b).map(|(a, _)| a.0.clone());
        if let Some(name) = apart.or_else(|| (own.len() != others.len()).then(|| "its state".into())) {
            let message = format!("it cannot be the average of {}: `{name}` differs", trained.name());
            return Err(Error::Model { name: average.name().into(), message });
        }
        let pair = |(own, other): (&StateEntry, &StateEntry)| {
            (own.variable.clone(), other.variable.clone(), own.kind)
        };
        let pairs = trained.state().iter().zip(average.state()).map(pair).collect();
        Ok(Average { pairs, decay, begun: Variable::full("average.begun", &[], 0.0) })
    }

    /// The weight of what was before.
    pub fn decay(&self) -> f64 {
        self.decay
    }

    /// Whether a step was averaged, to be saved and loaded with the average.
    pub fn begun(&self) -> &Variable {
        &self.begun
    }

    /// New values of the average, given those that the step gives the network.
    pub fn updates(&self, step: &[(Variable, Tensor)]) -> Vec<(Variable, Tensor)> {
        let _part = scope::part("update");
        let kept = self.begun.tensor() * self.decay;
        let next = |(own, average, kind): &(Variable, Variable, Kind)| {
            let _layer = within(own);
            let updated = step.iter().find(|(variable, _)| variable == own).map(|(_, value)| value.clone());
            let new = updated.unwrap_or_else(|| own.tensor());
            let value = match kind {
                Kind::Counter => new,
                _ => average.tensor() * &kept + new * (1.0 - &kept),
            };
            (average.clone(), value)
        };
        let mut updates: Vec<(Variable, Tensor)> = self.pairs.iter().map(next).collect();
        updates.push((self.begun.clone(), Tensor::scalar(1.0)));
        updates
    }
}
