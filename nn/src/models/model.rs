//! A network with its name and its state dict.

use std::collections::HashSet;
use std::sync::Arc;

use autograd::{Tensor, Variable};

use super::cost;
use crate::error::{Error, Result};
use crate::initialization::Initializer;
use crate::layers::{BatchNorm, Builder, Forward, Kind, StateEntry};

/// A network: images in, logits and features out.
pub trait Network: Send + Sync {
    /// `images` is `[N, H, W, channels]`; the logits are `[N, classes]`.
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output;

    /// Channels of its images: 3, red, green and blue, unless it says otherwise.
    fn channels(&self) -> usize {
        3
    }
}

impl Network for Box<dyn Network> {
    fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        (**self).forward(images, forward)
    }
    fn channels(&self) -> usize {
        (**self).channels()
    }
}

/// What a pass through a network gives. What is not used is not computed.
#[derive(Clone, Debug)]
pub struct Output {
    /// `[N, classes]`.
    pub logits: Tensor,
    /// What methods that distil features read of it.
    pub features: Features,
}

impl From<Tensor> for Output {
    /// Logits of a network that shows nobody its features.
    fn from(logits: Tensor) -> Output {
        Output { logits, features: Features::none() }
    }
}

/// Intermediate results, for distillation from features.
#[derive(Clone, Debug)]
pub struct Features {
    /// The stem's output and that of each stage, `[N, H, W, C]`: after its last ReLU, or as it is where
    /// a stage ends without one (MobileNetV2, wide residual networks). ImageNet's MobileNetV1 gives none
    /// of its stem.
    pub stages: Vec<Tensor>,
    /// The same, before its last ReLU, or before the ReLU that the next stage begins with; the stem's is
    /// that of `stages`, as the published code has it. Empty where stages end without a ReLU.
    pub before_relu: Vec<Tensor>,
    /// Of each stage but the stem, scale and shift `[C]` of the batch norm before that ReLU. Empty for
    /// networks that are nobody's teacher in this way (MobileNets, ShuffleNets).
    pub norms: Vec<(Tensor, Tensor)>,
    /// What the classifier sees, `[N, C]`.
    pub pooled: Tensor,
}

impl Features {
    /// Features stage by stage, the stem's first: pairs (before its last ReLU, after it), and what the
    /// classifier sees.
    pub fn new(stages: Vec<(Tensor, Tensor)>, pooled: Tensor) -> Features {
        let (before_relu, stages) = stages.into_iter().unzip();
        Features { stages, before_relu, norms: Vec::new(), pooled }
    }

    /// No stages, and nothing before a classifier.
    pub fn none() -> Features {
        Features::new(Vec::new(), Tensor::full(&[0], 0.0))
    }

    /// With the batch norms before the last ReLU of each stage but the stem.
    pub fn with_norms<'a>(self, norms: impl IntoIterator<Item = &'a BatchNorm>) -> Features {
        Features { norms: norms.into_iter().map(BatchNorm::scale_and_shift).collect(), ..self }
    }

    /// The same features, through which no gradient flows.
    pub fn detach(&self) -> Features {
        let all = |tensors: &[Tensor]| tensors.iter().map(Tensor::detach).collect();
        Features {
            stages: all(&self.stages),
            before_relu: all(&self.before_relu),
            norms: self.norms.iter().map(|(scale, shift)| (scale.detach(), shift.detach())).collect(),
            pooled: self.pooled.detach(),
        }
    }
}

/// A network ready to be written into steps. Clones share its variables.
#[derive(Clone)]
pub struct Model {
    name: String,
    classes: usize,
    state: Vec<StateEntry>,
    network: Arc<dyn Network>,
    /// Why it cannot be used.
    mistake: Option<String>,
}

impl Model {
    /// A network of one's own: `make` makes its layers with the [`Builder`], which names their parameters and
    /// takes initial values from `initializer`. The networks of the registry come from [`build`](super::build).
    ///
    /// Of two entries with one name [`Model::forward`] makes an invalid tensor that says so.
    pub fn new<N: Network + 'static>(
        name: &str,
        classes: usize,
        initializer: Initializer,
        make: impl FnOnce(&mut Builder) -> N,
    ) -> Model {
        let (network, state) = Builder::build(initializer, make);
        let mut names = HashSet::new();
        let again = state.iter().map(|entry| entry.variable.name()).find(|name| !names.insert(*name));
        let mistake = again.map(|name| format!("two of its layers make a `{name}`; give them other names"));
        Model { name: name.to_string(), classes, network: Arc::new(network), mistake, state }
    }

    /// Its name, of the registry's networks the registry's.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Number of logits.
    pub fn classes(&self) -> usize {
        self.classes
    }
    /// Channels of its images.
    pub fn channels(&self) -> usize {
        self.network.channels()
    }
    /// Parameters and buffers in state-dict order.
    pub fn state(&self) -> &[StateEntry] {
        &self.state
    }
    /// What the optimizer trains, in state-dict order.
    pub fn parameters(&self) -> Vec<Variable> {
        self.select(|kind| kind == Kind::Parameter)
    }
    /// Batch norm's running statistics and counters, in state-dict order.
    pub fn buffers(&self) -> Vec<Variable> {
        self.select(|kind| kind != Kind::Parameter)
    }
    fn select(&self, wanted: impl Fn(Kind) -> bool) -> Vec<Variable> {
        self.state.iter().filter(|entry| wanted(entry.kind)).map(|entry| entry.variable.clone()).collect()
    }
    /// Number of learned values.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(Variable::len).sum()
    }

    /// Multiply-accumulates of convolutions and matrix products for one image of `height x width`
    /// (without biases, batch norm and pooling, as is customary).
    pub fn macs(&self, height: usize, width: usize) -> Result<u64> {
        let image = Tensor::input("image", &[1, height, width, self.channels()]);
        let logits = self.forward(&image, &mut Forward::eval_unfolded()).logits;
        logits.check().map_err(Error::from)?;
        Ok(cost::macs(&logits))
    }

    /// The network applied to `[N, H, W, channels]`, channels last.
    #[track_caller]
    pub fn forward(&self, images: &Tensor, forward: &mut Forward) -> Output {
        let channels = self.channels();
        let refuse = |operand: &Tensor, message: String| {
            let invalid = Tensor::invalid("network", &[operand], message);
            Output { logits: invalid.clone(), features: Features::new(vec![], invalid) }
        };
        if let Some(mistake) = &self.mistake {
            return refuse(images, format!("{}: {mistake}", self.name));
        }
        if images.rank() != 4 || images.dim(3) != channels || images.is_empty() {
            let colours = if channels == 3 { "RGB " } else { "" };
            return refuse(images, format!("takes {colours}images [N, H, W, {channels}], channels last"));
        }
        let output = self.network.forward(images, forward);
        let expected = [images.dim(0), self.classes];
        if output.logits.check().is_ok() && output.logits.shape() != expected {
            return refuse(&output.logits, format!("the logits of {} are to be {expected:?}", self.name));
        }
        output
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} ({} classes, {} parameters)", self.name, self.classes, self.parameter_count())
    }
}
