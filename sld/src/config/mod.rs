//! Configs: the reference's YAML keys, checked, with an error that points at the place.
//!
//! One table ([`keys::KEYS`]) names every key once, with its help, its type, its place in
//! [`Config`] and its check. Reading a file, `KEY VALUE` on the command line, printing, and the hint
//! for a mistyped key all go through that table, so that a key cannot be known to one and not to
//! another. To add a key: a field here, a line in the table.

mod catalog;
mod choice;
mod error;
mod field;
mod keys;
mod load;
mod node;
mod print;
mod schedule;
mod validate;

pub use catalog::models_of;
pub use choice::{DatasetKind, DistillerKind, TrainerKind};
pub use error::{ConfigError, Place};
pub use keys::{KEYS, Key};
pub use load::Overrides;

use serde::Serialize;

/// A whole resolved configuration. `Default` holds the reference's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Config {
    pub experiment: Experiment,
    pub dataset: Dataset,
    pub distiller: Distiller,
    pub solver: Solver,
    pub log: Log,
    pub model: Model,
    pub kd: Kd,
    pub kd_swap: KdSwap,
    pub sld: Sld,
    pub mlkd: Mlkd,
    pub dkd: Dkd,
}

/// `EXPERIMENT`: where a run is filed, `LOG.PREFIX/PROJECT/(NAME or TAG)`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Experiment {
    pub project: String,
    pub name: String,
    pub tag: String,
}

impl Default for Experiment {
    fn default() -> Self {
        Self { project: "distill".into(), name: String::new(), tag: "default".into() }
    }
}

/// `DATASET`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dataset {
    pub kind: DatasetKind,
    /// Folder or archive of the images.
    pub root: String,
    pub num_workers: u32,
    pub test_batch_size: u32,
    /// Share of the training images held out to choose `best` on, in `[0, 1)`. 0 is the reference's
    /// protocol: `best` is chosen on the test set.
    pub val_fraction: f64,
}

impl Default for Dataset {
    fn default() -> Self {
        Self {
            kind: DatasetKind::Cifar100,
            root: "data".into(),
            num_workers: 2,
            test_batch_size: 64,
            val_fraction: 0.0,
        }
    }
}

/// `DISTILLER`: the method and the two networks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distiller {
    pub kind: DistillerKind,
    pub teacher: String,
    pub student: String,
    /// The teacher's weights. Empty: the reference's place, `download_ckpts/cifar_teachers/...`.
    pub teacher_checkpoint: String,
}

impl Default for Distiller {
    fn default() -> Self {
        Self {
            kind: DistillerKind::None,
            teacher: "ResNet50".into(),
            student: "resnet32".into(),
            teacher_checkpoint: String::new(),
        }
    }
}

impl Distiller {
    /// Where the teacher's weights are read from: the given file, or where the reference keeps them.
    pub fn teacher_path(&self) -> String {
        if self.teacher_checkpoint.is_empty() {
            format!("download_ckpts/cifar_teachers/{}_vanilla/ckpt_epoch_240.pth", self.teacher)
        } else {
            self.teacher_checkpoint.clone()
        }
    }
}

/// `SOLVER`: stochastic gradient descent and its schedule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Solver {
    pub trainer: TrainerKind,
    pub batch_size: u32,
    pub epochs: u32,
    pub lr: f64,
    pub lr_decay_stages: Vec<u32>,
    pub lr_decay_rate: f64,
    pub weight_decay: f64,
    pub momentum: f64,
    /// Always "SGD".
    pub optimizer: String,
    pub seed: u64,
}

impl Default for Solver {
    fn default() -> Self {
        Self {
            trainer: TrainerKind::Base,
            batch_size: 64,
            epochs: 240,
            lr: 0.05,
            lr_decay_stages: vec![150, 180, 210],
            lr_decay_rate: 0.1,
            weight_decay: 1e-4,
            momentum: 0.9,
            optimizer: "SGD".into(),
            seed: 0,
        }
    }
}

/// `LOG`: what is written, where, how often.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Log {
    pub tensorboard_freq: u32,
    pub save_checkpoint_freq: u32,
    pub prefix: String,
    /// Read so that the reference's files load; nothing is ever uploaded.
    pub wandb: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { tensorboard_freq: 500, save_checkpoint_freq: 40, prefix: "./output".into(), wandb: false }
    }
}

/// `MODEL`: properties of networks that the reference fixes in code.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Whether a wide ResNet in train mode updates three of its batch norms' running statistics twice
    /// a forward, as the reference's does.
    pub wrn_double_bn_update: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self { wrn_double_bn_update: true }
    }
}

/// `KD`: Hinton et al., 2015. The two weights also serve SLD, KD_SWAP (cross entropy only) and MLKD.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kd {
    pub temperature: f64,
    pub ce_weight: f64,
    pub kd_weight: f64,
}

impl Default for Kd {
    fn default() -> Self {
        Self { temperature: 4.0, ce_weight: 0.1, kd_weight: 0.9 }
    }
}

/// `KD_SWAP`: one-view distillation with swapped logits, the reference's variant of KD.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KdSwap {
    /// Takes the place of `KD.LOSS.KD_WEIGHT`, which this method ignores.
    pub kd_weight: f64,
    pub gate_epoch: u32,
    pub detach_pseudo_teacher: bool,
}

impl Default for KdSwap {
    fn default() -> Self {
        Self { kd_weight: 4.0, gate_epoch: 150, detach_pseudo_teacher: false }
    }
}

/// `SLD`: swapped logit distillation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sld {
    /// The swapped student teaches itself in the epochs after this one.
    pub gate_epoch: u32,
    /// Summed over, not averaged.
    pub temperatures: Vec<f64>,
    /// Whether the gradient stops at the swapped student; the reference lets it through.
    pub detach_pseudo_teacher: bool,
}

impl Default for Sld {
    fn default() -> Self {
        Self {
            gate_epoch: 150,
            temperatures: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            detach_pseudo_teacher: false,
        }
    }
}

/// `MLKD`: multi-level logit distillation. Beside `KD.TEMPERATURE`, which both views use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mlkd {
    /// Temperatures whose second KL term reads the strong view.
    pub strong_temperatures: Vec<f64>,
    /// Temperatures whose second KL term reads the weak view, as the reference's code does.
    pub weak_temperatures: Vec<f64>,
}

impl Default for Mlkd {
    fn default() -> Self {
        Self { strong_temperatures: vec![3.0, 5.0], weak_temperatures: vec![2.0, 6.0] }
    }
}

/// `DKD`: decoupled knowledge distillation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dkd {
    pub ce_weight: f64,
    pub alpha: f64,
    pub beta: f64,
    pub temperature: f64,
    pub warmup: u32,
}

impl Default for Dkd {
    fn default() -> Self {
        Self { ce_weight: 1.0, alpha: 1.0, beta: 8.0, temperature: 4.0, warmup: 20 }
    }
}
