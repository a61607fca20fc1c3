//! Layers that are made where they are used.

use autograd::tensor::Transfer;
use autograd::{Tensor, Variable, scope};

use super::builder::{Builder, Kind, Shared, StateEntry};
use super::forward::Forward;
use super::scope::within;
use crate::initialization::Initializer;

/// Layers without a network around them: the expression that uses a layer asks for it by name, and
/// makes it the first time. So the shapes of what it is applied to are at hand, and an expression
/// written again (for another batch size) has the same layers.
pub struct Modules {
    shared: Shared,
    /// How the layers' batch norms behave, and what they change.
    pub forward: Forward,
    /// Where several processes compute a batch: the share of this one's images in all, a scalar of shape `[]`.
    pub share: Option<Tensor>,
    updates: Vec<(Variable, Tensor)>,
}

impl Modules {
    /// None yet; initial values are drawn from `seed`, by the rules given to [`Builder::drawn`]: without
    /// any they are 0.
    pub fn new(seed: u64) -> Modules {
        Modules {
            shared: Shared { initializer: Initializer::undecided(seed), state: Vec::new() },
            forward: Forward::train(1),
            share: None,
            updates: Vec::new(),
        }
    }

    /// Those made before.
    pub fn of(state: &[StateEntry]) -> Modules {
        let mut modules = Modules::new(0);
        modules.shared.state = state.to_vec();
        modules
    }

    /// Where layers are made, or found.
    pub fn layers(&mut self) -> Builder<'_> {
        self.shared.root()
    }

    /// Parameters and buffers, in the order in which they were made.
    pub fn state(&self) -> &[StateEntry] {
        &self.shared.state
    }

    /// Gives a [`Kind::Memory`] its value for the next step, the same in all processes ([`Modules::sum_of_all`]); the
    /// value's expressions belong to the update.
    pub fn remember(&mut self, memory: &Variable, value: impl FnOnce(&Modules) -> Tensor) {
        debug_assert!(
            self.state().iter().any(|entry| entry.kind == Kind::Memory && entry.variable == *memory),
            "{memory:?} is no memory of these modules"
        );
        let _part = scope::part("update");
        let _layer = within(memory);
        let value = value(self);
        self.updates.push((memory.clone(), value));
    }

    /// The sum over processes of what each makes of its own images; one that has none adds nothing.
    pub fn sum_of_all(&self, own: &Tensor) -> Tensor {
        let Some(share) = &self.share else { return own.clone() };
        let zero = Tensor::scalar(0.0);
        zero.less(share).select(own, &zero).all_reduce(Transfer::F32)
    }

    /// The mean over the images of all processes, of the mean over this one's.
    pub fn mean_of_all(&self, own: &Tensor) -> Tensor {
        self.share.as_ref().map_or_else(|| own.clone(), |share| self.sum_of_all(&(own * share)))
    }

    /// What a step changes of them beside the parameters.
    pub fn into_updates(self) -> Vec<(Variable, Tensor)> {
        let mut updates = self.forward.into_updates();
        updates.extend(self.updates);
        updates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initialization::Initialization;

    #[test]
    fn a_layer_asked_for_again_is_the_same() {
        let write = |modules: &mut Modules| {
            let _ = modules.layers().drawn(Initialization::PYTORCH).at("head").linear("first", 3, 2);
            let _ = modules.layers().drawn(Initialization::PYTORCH).at("head").linear("second", 2, 2);
            modules.state().iter().map(|entry| entry.variable.id()).collect::<Vec<_>>()
        };
        let mut first = Modules::new(5);
        let ids = write(&mut first);
        assert_eq!(ids.len(), 4);
        assert_eq!(write(&mut first), ids);
        assert_eq!(write(&mut Modules::of(first.state())), ids);
        // Another shape is another layer: two of a name are seen, not one lost.
        let _ = first.layers().at("head").linear("first", 5, 2);
        assert_eq!(first.state().len(), 5);
        let values = |modules: &Modules| modules.state()[0].variable.initial().to_vec();
        let mut again = Modules::new(5);
        write(&mut again);
        assert_eq!(values(&first), values(&again));
        assert!(values(&first).iter().all(|v| v.abs() < 1.0 / 3f32.sqrt() && *v != 0.0));
    }

    /// Glorot's bound for 48 inputs and as many outputs of each of the three projections.
    #[test]
    fn attention_begins_within_its_bound() {
        let mut modules = Modules::new(5);
        let _ = modules.layers().drawn(Initialization::PYTORCH).attention("mixed", 48, 4);
        let largest = modules.state()[0].variable.initial().iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let bound = (6.0f32 / 192.0).sqrt();
        assert!(largest <= bound && largest > 0.999 * bound, "{largest} of {bound}");
    }
}
