//! The context of a pass through a network: how batch norm behaves, and the running statistics that
//! the pass changes.

use std::collections::HashMap;

use autograd::{Tensor, Variable};

/// What batch norm and dropout do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, of each of `views` equal parts of the batch apart; running statistics move.
    Train {
        /// At least 1; the batch must be divisible by it.
        views: usize,
    },
    /// Running statistics, folded into the weights of the convolution before. For frozen networks:
    /// the folded weights depend on state alone, so a schedule computes them once.
    Eval,
    /// Running statistics, applied after the convolution. The same function as [`Mode::Eval`], rounded
    /// as PyTorch rounds it.
    EvalUnfolded,
}

/// A pass, or several passes one after the other, through one network.
///
/// In training it collects the new running statistics. A batch of two augmentations of the same
/// images, `[2B, ..]` with `views = 2`, gives the same logits, gradients and running statistics as two
/// passes of `[B, ..]`, the first view first; so does passing twice with the same context.
pub struct Forward {
    mode: Mode,
    repeats: bool,
    randomness: Option<(Tensor, Tensor)>,
    synchronized: Option<Synchronized>,
    dropouts: u32,
    order: Vec<Variable>,
    values: HashMap<u64, Tensor>,
}

/// See [`Forward::synchronized`].
struct Synchronized {
    share: Tensor,
    own: usize,
    all: usize,
}

impl Forward {
    /// A pass in which running statistics, if they move, move as the published networks move them.
    pub fn new(mode: Mode) -> Forward {
        Forward {
            mode,
            repeats: true,
            randomness: None,
            synchronized: None,
            dropouts: 0,
            order: Vec::new(),
            values: HashMap::new(),
        }
    }
    /// [`Mode::Train`].
    pub fn train(views: usize) -> Forward {
        Forward::new(Mode::Train { views })
    }
    /// [`Mode::Eval`].
    pub fn eval() -> Forward {
        Forward::new(Mode::Eval)
    }
    /// [`Mode::EvalUnfolded`].
    pub fn eval_unfolded() -> Forward {
        Forward::new(Mode::EvalUnfolded)
    }

    /// Updates each running statistic once a pass, also where the published wide residual networks
    /// update some of them twice (`models/wrn.rs`).
    pub fn without_repeated_updates(mut self) -> Forward {
        self.repeats = false;
        self
    }

    /// Randomness for dropout: integer scalars, the same seed and a new step number at every call.
    pub fn with_randomness(mut self, seed: &Tensor, step: &Tensor) -> Forward {
        self.randomness = Some((seed.clone(), step.clone()));
        self
    }

    /// Batch norm's statistics are those of all processes that pass parts of one batch: `own` images of
    /// `all` here, a share of `share` (a scalar of shape `[]`; 0 where the part is no part of the batch).
    pub fn synchronized(mut self, share: &Tensor, own: usize, all: usize) -> Forward {
        self.synchronized = Some(Synchronized { share: share.clone(), own, all });
        self
    }

    /// What batch norm and dropout do in this pass.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether running statistics move and dropout drops.
    pub fn is_training(&self) -> bool {
        matches!(self.mode, Mode::Train { .. })
    }

    /// New values of running statistics, in the order of their first use, to add to a step.
    pub fn into_updates(mut self) -> Vec<(Variable, Tensor)> {
        let order = std::mem::take(&mut self.order);
        order.into_iter().filter_map(|v| self.values.remove(&v.id()).map(|value| (v, value))).collect()
    }

    /// Zeroes elements with probability `rate` in training and scales the rest by `1 / (1 - rate)`;
    /// the identity otherwise (Srivastava et al. 2014).
    #[track_caller]
    pub fn dropout(&mut self, x: &Tensor, rate: f64) -> Tensor {
        if !self.is_training() || rate == 0.0 {
            return x.clone();
        }
        let Some((seed, step)) = &self.randomness else {
            let message = "training with dropout needs `Forward::with_randomness`".into();
            return Tensor::invalid("dropout", &[x], message);
        };
        self.dropouts += 1;
        x.dropout(rate, seed, step, self.dropouts - 1)
    }

    /// This process's share in batch norm's statistics, if they are those of all processes.
    pub(super) fn share(&self) -> Option<&Tensor> {
        self.synchronized.as_ref().map(|synchronized| &synchronized.share)
    }

    /// Of `own` values that statistics are of here: how many they are of in all processes that share them.
    pub(super) fn count_of_all(&self, own: usize) -> usize {
        self.synchronized.as_ref().map_or(own, |synchronized| own / synchronized.own * synchronized.all)
    }

    /// How often one pass updates a running statistic that the reference updates `times` times.
    pub(super) fn repeats(&self, times: usize) -> usize {
        if self.repeats { times } else { 1 }
    }

    /// The variable's value after the passes so far: what the next update of a running statistic starts from.
    pub fn current(&self, variable: &Variable) -> Tensor {
        self.values.get(&variable.id()).cloned().unwrap_or_else(|| variable.tensor())
    }

    /// Gives a running statistic its new value, which [`Forward::into_updates`] hands to the step. Of several
    /// updates the last holds.
    pub fn update(&mut self, variable: &Variable, value: Tensor) {
        if self.values.insert(variable.id(), value).is_none() {
            self.order.push(variable.clone());
        }
    }
}
