//! Every key that is no method's, and the config that all make up.

use super::choice::{DatasetKind, OptimizerKind, ScheduleKind, TrainerKind, TransferKind};
use super::error::ConfigError;
use crate::augment::Normalization;
use crate::data::pictures::Sight;
use crate::distill::{self, METHODS};
use crate::setting::{Key, Settings, check::*, settings};
use std::ffi::OsString;
use std::path::PathBuf;

/// A whole resolved configuration. `Default` holds the reference's defaults.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `EXPERIMENT.*`
    pub experiment: Experiment,
    /// `DATASET.*`
    pub dataset: Dataset,
    /// `DISTILLER.*`, with the method and its own keys.
    pub distiller: Distiller,
    /// `SOLVER.*`
    pub solver: Solver,
    /// `LOG.*`
    pub log: Log,
    /// `MODEL.*`
    pub model: Model,
    /// What the config file says to no effect; not part of the settings.
    pub warnings: Vec<ConfigError>,
}

impl Config {
    /// The groups of keys in the order they are printed. The method's own come last.
    pub(super) fn groups(&self) -> [&dyn Settings; 7] {
        let Config { experiment, dataset, distiller, solver, log, model, .. } = self;
        [experiment, dataset, distiller, solver, log, model, &*distiller.method]
    }

    /// The method with its constants.
    pub fn method(&self) -> &dyn distill::Distiller {
        &*self.distiller.method
    }
}

/// Configs are the same if all keys have the same values.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.values() == other.values()
    }
}

/// Whether the setting of a run, a key or a key with its value, decides what the run computes. Images, teacher and the
/// weights to begin with are known by their checksums, wherever they lie.
pub fn decides(setting: &str) -> bool {
    const INCIDENTAL: [&str; 13] = [
        "EXPERIMENT.PROJECT",
        "EXPERIMENT.NAME",
        "EXPERIMENT.TAG",
        "DATASET.ROOT",
        "DATASET.NUM_WORKERS",
        "DATASET.TEST.BATCH_SIZE",
        "DATASET.SKIP_BROKEN",
        "DISTILLER.TEACHER_CHECKPOINT",
        "DISTILLER.STUDENT_CHECKPOINT",
        "LOG.TENSORBOARD_FREQ",
        "LOG.SAVE_CHECKPOINT_FREQ",
        "LOG.PREFIX",
        "LOG.WANDB",
    ];
    let key = setting.split_once(": ").map_or(setting, |(key, _)| key);
    !INCIDENTAL.contains(&key)
}

/// Every key there is, each once: the general ones, then those of the methods.
pub fn keys() -> Vec<&'static Key> {
    let mut keys: Vec<&Key> = Vec::new();
    let methods = METHODS.iter().flat_map(|method| method.make().keys());
    for key in Config::default().groups().iter().flat_map(|group| group.keys()).chain(methods) {
        if keys.iter().all(|known| known.path != key.path) {
            keys.push(key);
        }
    }
    keys
}

settings! {
    /// `EXPERIMENT`: where a run is filed, `LOG.PREFIX/PROJECT/(NAME or TAG)`.
    pub struct Experiment {
        /// Folder of the run under LOG.PREFIX.
        "EXPERIMENT.PROJECT": project: OsString = "distill".into(), folder_name;
        /// Name of the run; empty: EXPERIMENT.TAG.
        "EXPERIMENT.NAME": name: OsString = OsString::new(), folder_name;
        /// Name of a run that has none; empty: method, teacher, student.
        "EXPERIMENT.TAG": tag: OsString = OsString::new(), folder_name;
    }
}

settings! {
    /// `DATASET`.
    pub struct Dataset {
        /// cifar100, cifar10; imagenet, tiny_imagenet or imagefolder: pictures in train/CLASS/ and val/CLASS/; or synthetic
        /// (drawn by the program).
        "DATASET.TYPE": kind: DatasetKind = DatasetKind::Cifar100;
        /// Folder or archive with the images.
        "DATASET.ROOT": root: PathBuf = "data".into(), not_empty;
        /// Threads that prepare batches; 0: one for each core. No effect on the result.
        "DATASET.NUM_WORKERS": num_workers: u32 = 2, at_most_1024;
        /// Images in a batch of the evaluation. No effect on the result.
        "DATASET.TEST.BATCH_SIZE": test_batch_size: u32 = 64, at_least_one;
        /// Share of the training images held out to choose the best epoch on; 0: the test set, as the reference.
        "DATASET.VAL_FRACTION": val_fraction: f64 = 0.0, fraction;
        /// Of pictures: pixels of a side, as networks see them; 0: 224, for tiny_imagenet 64.
        "DATASET.SIZE": size: u32 = 0, at_most_4096;
        /// Of pictures, in evaluation: pixels of the shorter side before the centre is cut out; 0: 8/7 of DATASET.SIZE (256
        /// for 224), for tiny_imagenet DATASET.SIZE.
        "DATASET.RESIZE": resize: u32 = 0, at_most_4096;
        /// Of pictures: whether files that cannot be read are left out. They are found by reading all of them before the
        /// start. Otherwise training stops at the first.
        "DATASET.SKIP_BROKEN": skip_broken: bool = false;
    }
}

impl Dataset {
    /// How networks see pictures; `None` for data sets of one size.
    pub fn sight(&self) -> Option<Sight> {
        let (side, normalization, enlarged) = match self.kind {
            DatasetKind::Imagenet | DatasetKind::Imagefolder => (224, Normalization::IMAGENET, true),
            DatasetKind::TinyImagenet => (64, Normalization::TINY_IMAGENET, false),
            DatasetKind::Cifar100 | DatasetKind::Cifar10 | DatasetKind::Synthetic => return None,
        };
        let side = if self.size == 0 { side } else { self.size as usize };
        let resize = match (self.resize, enlarged) {
            (0, true) => side * 8 / 7,
            (0, false) => side,
            (resize, _) => resize as usize,
        };
        Some(Sight { side, resize, normalization })
    }
}

settings! {
    /// `DISTILLER`: the method and the two networks.
    pub struct Distiller {
        /// The method.
        "DISTILLER.TYPE": method: Box<dyn distill::Distiller> = METHODS[0].make();
        /// The teacher network.
        "DISTILLER.TEACHER": teacher: String = "ResNet50".into();
        /// The student network.
        "DISTILLER.STUDENT": student: String = "resnet32".into();
        /// The teacher's weights; empty: where the reference keeps them.
        "DISTILLER.TEACHER_CHECKPOINT": teacher_checkpoint: PathBuf = PathBuf::new();
        /// Weights that training begins with; empty: drawn from SOLVER.SEED. A classifier of another number of
        /// classes is drawn all the same.
        "DISTILLER.STUDENT_CHECKPOINT": student_checkpoint: PathBuf = PathBuf::new();
    }
}

impl Distiller {
    /// Where the teacher's weights are read from: the given file, or where the reference keeps them.
    pub fn teacher_path(&self) -> PathBuf {
        if self.teacher_checkpoint.as_os_str().is_empty() {
            format!("download_ckpts/cifar_teachers/{}_vanilla/ckpt_epoch_240.pth", self.teacher).into()
        } else {
            self.teacher_checkpoint.clone()
        }
    }
}

settings! {
    /// `SOLVER`: the optimizer and its learning rate.
    pub struct Solver {
        /// base: one view of each image; ours: a weak and a strong one; crd: one, and which image it is; dot, crd_dot:
        /// distillation-oriented, with a momentum for each of the two losses.
        "SOLVER.TRAINER": trainer: TrainerKind = TrainerKind::Base;
        /// Images in a training batch, in all processes together.
        "SOLVER.BATCH_SIZE": batch_size: u32 = 64, at_least_one;
        /// Parts that a batch (of each process) is computed in, one after the other, to save memory; their gradients
        /// are summed. The same step as in one, but that batch norm, and methods that compare images, see the parts.
        "SOLVER.ACCUMULATE": accumulate: u32 = 1, at_least_one;
        /// Whether batch norm's statistics are those of all processes' images, not of each process's own.
        "SOLVER.SYNC_BN": sync_bn: bool = false;
        /// How gradients travel between processes: f32, or bf16 for half the bytes.
        "SOLVER.TRANSFER": transfer: TransferKind = TransferKind::F32;
        /// Passes over the training images.
        "SOLVER.EPOCHS": epochs: u32 = 240, at_least_one;
        /// Epochs after which training stops if none of them was better than all before (on held-out images, or without any
        /// on the test images); 0: all epochs are trained.
        "SOLVER.PATIENCE": patience: u32 = 0;
        /// Learning rate of the first epoch; of one_cycle and SOLVER.WARMUP the largest.
        "SOLVER.LR": lr: f64 = 0.05, positive;
        /// Course of the learning rate. multi_step: falls after each of SOLVER.LR_DECAY_STAGES; step: after every so many
        /// epochs, the first of these; cosine: along half a cosine to 0; one_cycle: up in three tenths of all steps, then
        /// down to almost 0.
        "SOLVER.SCHEDULE": schedule: ScheduleKind = ScheduleKind::MultiStep;
        /// Epochs at the beginning in which the learning rate rises from 0, step by step.
        "SOLVER.WARMUP": warmup: u32 = 0;
        /// Epochs after which the learning rate falls.
        "SOLVER.LR_DECAY_STAGES": lr_decay_stages: Vec<u32> = vec![150, 180, 210], stages;
        /// Factor by which it falls.
        "SOLVER.LR_DECAY_RATE": lr_decay_rate: f64 = 0.1, rate;
        /// Weight decay, on every parameter.
        "SOLVER.WEIGHT_DECAY": weight_decay: f64 = 1e-4, not_negative;
        /// Momentum of SGD, NESTEROV and RMSPROP, without dampening.
        "SOLVER.MOMENTUM": momentum: f64 = 0.9, fraction;
        /// dot: how far the momenta of task and distillation lie from SOLVER.MOMENTUM, below and above.
        "SOLVER.DOT.DELTA": dot_delta: f64 = 0.075, fraction;
        /// The optimizer, as PyTorch's of the name: SGD, NESTEROV (SGD with Nesterov's momentum), ADAM, ADAMW (which
        /// decouples weight decay), RMSPROP; or LAMB.
        "SOLVER.TYPE": optimizer: OptimizerKind = OptimizerKind::Sgd;
        /// Part of each label that is spread evenly over all classes in the cross entropy: 0.1, say.
        "SOLVER.LABEL_SMOOTHING": label_smoothing: f64 = 0.0, fraction;
        /// alpha of mixup: each image is blended with another of its batch, and so are their labels in the cross entropy; the
        /// share is drawn from Beta(alpha, alpha) for each batch. 0.2 to 1, say; 0: no mixup. Methods that need the one
        /// label of each image refuse it.
        "SOLVER.MIXUP": mixup: f64 = 0.0, not_negative;
        /// alpha of CutMix: a rectangle of another image instead, labels by area. 1, say; 0: no CutMix. With SOLVER.MIXUP
        /// each batch is mixed one way or the other, as likely.
        "SOLVER.CUTMIX": cutmix: f64 = 0.0, not_negative;
        /// The most that all gradients together may be long: longer ones are shortened to it. 0: any length.
        "SOLVER.CLIP": clip: f64 = 0.0, not_negative;
        /// Weight of what was before in a moving average of the student's weights, which is then what is evaluated and
        /// saved: 0.999, say. 0: no average.
        "SOLVER.EMA": ema: f64 = 0.0, fraction;
        /// Seed of initial weights, order and augmentation.
        "SOLVER.SEED": seed: u64 = 0;
    }
}

settings! {
    /// `LOG`: what is written, where, how often.
    pub struct Log {
        /// Steps between two points of the training loss in TensorBoard.
        "LOG.TENSORBOARD_FREQ": tensorboard_freq: u32 = 500, at_least_one;
        /// Epochs between two checkpoints that are kept.
        "LOG.SAVE_CHECKPOINT_FREQ": save_checkpoint_freq: u32 = 40, at_least_one;
        /// Folder of all runs.
        "LOG.PREFIX": prefix: PathBuf = "./output".into(), not_empty;
        /// Accepted so that the reference's files load; nothing is ever uploaded.
        "LOG.WANDB": wandb: bool = false;
    }
}

settings! {
    /// `MODEL`: properties of networks that the reference fixes in code.
    pub struct Model {
        /// Whether a wide ResNet student updates three batch norms' running statistics twice a forward, as the
        /// reference's does.
        "MODEL.WRN_DOUBLE_BN_UPDATE": wrn_double_bn_update: bool = true;
    }
}
