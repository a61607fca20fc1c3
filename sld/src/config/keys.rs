//! The table of keys.

use super::Config;
use super::field::Field;
use super::node::Value;

/// One key: everything the program knows about it.
pub struct Key {
    /// The full name, sections joined by dots.
    pub path: &'static str,
    /// What it means, in a line.
    pub help: &'static str,
    /// Reads and checks a value and puts it into a config.
    pub(super) set: fn(&mut Config, &Value) -> Result<(), String>,
    /// The value that a config has, as YAML.
    pub(super) show: fn(&Config) -> String,
}

impl Key {
    /// The value that `config` has for this key, as YAML.
    pub fn value_in(&self, config: &Config) -> String {
        (self.show)(config)
    }
}

/// The key of that full name, in the exact letter case.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

type Check = Result<(), String>;

fn any<T>(_: &T) -> Check {
    Ok(())
}
fn at_least_one(value: &u32) -> Check {
    if *value >= 1 { Ok(()) } else { Err("must be at least 1, found 0".into()) }
}
fn positive(value: &f64) -> Check {
    if *value > 0.0 { Ok(()) } else { Err(format!("must be greater than 0, found {value}")) }
}
fn not_negative(value: &f64) -> Check {
    if *value >= 0.0 { Ok(()) } else { Err(format!("must not be negative, found {value}")) }
}
fn fraction(value: &f64) -> Check {
    if (0.0..1.0).contains(value) { Ok(()) } else { Err(format!("must be in [0, 1), found {value}")) }
}
fn rate(value: &f64) -> Check {
    if *value > 0.0 && *value <= 1.0 { Ok(()) } else { Err(format!("must be in (0, 1], found {value}")) }
}
fn temperatures(values: &Vec<f64>) -> Check {
    if values.is_empty() {
        return Err("needs at least one temperature, such as [1, 2, 3, 4, 5, 6]".into());
    }
    some_temperatures(values)
}
#[allow(clippy::ptr_arg)] // a check gets the field as it is declared
fn some_temperatures(values: &Vec<f64>) -> Check {
    match values.iter().find(|value| **value <= 0.0) {
        Some(bad) => Err(format!("temperatures must be greater than 0, found {bad}")),
        None => Ok(()),
    }
}
fn stages(values: &Vec<u32>) -> Check {
    if values.windows(2).all(|pair| pair[0] < pair[1]) {
        Ok(())
    } else {
        Err(format!("must rise from left to right, such as [150, 180, 210], found {values:?}"))
    }
}
fn sgd(value: &String) -> Check {
    if value == "SGD" { Ok(()) } else { Err(format!("only \"SGD\" is known, found \"{value}\"")) }
}
fn file_name(value: &String) -> Check {
    if value.split(['/', '\\']).any(|part| part == "..") {
        Err(format!("must not lead out of the output folder, found \"{value}\""))
    } else {
        Ok(())
    }
}
#[allow(clippy::ptr_arg)]
fn not_empty(value: &String) -> Check {
    if value.is_empty() { Err("must not be empty".into()) } else { Ok(()) }
}

/// Rows of `"PATH" => field.of.config, check, "help"`.
macro_rules! keys {
    ($($path:literal => $($field:ident).+, $check:expr, $help:literal;)*) => {
        /// Every key, in the order they are printed: sections together.
        pub const KEYS: &[Key] = &[$(Key {
            path: $path,
            help: $help,
            set: |config, value| {
                let read = Field::read(value)?;
                $check(&read)?;
                config.$($field).+ = read;
                Ok(())
            },
            show: |config| Field::show(&config.$($field).+),
        }),*];
    };
}

keys! {
    "EXPERIMENT.PROJECT" => experiment.project, file_name, "Folder of the run under LOG.PREFIX.";
    "EXPERIMENT.NAME" => experiment.name, file_name, "Name of the run; empty: EXPERIMENT.TAG.";
    "EXPERIMENT.TAG" => experiment.tag, file_name, "Tags of the run, and its name when it has none.";
    "DATASET.TYPE" => dataset.kind, any, "cifar100, cifar10, imagenet, or synthetic (drawn by the program).";
    "DATASET.ROOT" => dataset.root, not_empty, "Folder or archive with the images.";
    "DATASET.NUM_WORKERS" => dataset.num_workers, any, "Threads that prepare batches; 0: one for each core. No effect on the result.";
    "DATASET.TEST.BATCH_SIZE" => dataset.test_batch_size, at_least_one, "Images in a batch of the evaluation.";
    "DATASET.VAL_FRACTION" => dataset.val_fraction, fraction, "Share of the training images held out to choose the best epoch on; 0: the test set, as the reference.";
    "DISTILLER.TYPE" => distiller.kind, any, "NONE (cross entropy), KD, KD_SWAP, SLD, MLKD or DKD.";
    "DISTILLER.TEACHER" => distiller.teacher, any, "The teacher network.";
    "DISTILLER.STUDENT" => distiller.student, any, "The student network.";
    "DISTILLER.TEACHER_CHECKPOINT" => distiller.teacher_checkpoint, any, "The teacher's weights; empty: where the reference keeps them.";
    "SOLVER.TRAINER" => solver.trainer, any, "base: one view of each image; ours: a weak and a strong one (SLD, MLKD).";
    "SOLVER.BATCH_SIZE" => solver.batch_size, at_least_one, "Images in a training batch.";
    "SOLVER.EPOCHS" => solver.epochs, at_least_one, "Passes over the training images.";
    "SOLVER.LR" => solver.lr, positive, "Learning rate of the first epoch.";
    "SOLVER.LR_DECAY_STAGES" => solver.lr_decay_stages, stages, "Epochs after which the learning rate falls.";
    "SOLVER.LR_DECAY_RATE" => solver.lr_decay_rate, rate, "Factor by which it falls.";
    "SOLVER.WEIGHT_DECAY" => solver.weight_decay, not_negative, "Weight decay, on every parameter.";
    "SOLVER.MOMENTUM" => solver.momentum, fraction, "Momentum, without Nesterov or dampening.";
    "SOLVER.TYPE" => solver.optimizer, sgd, "The optimizer: SGD.";
    "SOLVER.SEED" => solver.seed, any, "Seed of initial weights, order and augmentation.";
    "LOG.TENSORBOARD_FREQ" => log.tensorboard_freq, at_least_one, "Steps between two points of the training loss in TensorBoard.";
    "LOG.SAVE_CHECKPOINT_FREQ" => log.save_checkpoint_freq, at_least_one, "Epochs between two checkpoints that are kept.";
    "LOG.PREFIX" => log.prefix, not_empty, "Folder of all runs.";
    "LOG.WANDB" => log.wandb, any, "Accepted so that the reference's files load; nothing is uploaded.";
    "MODEL.WRN_DOUBLE_BN_UPDATE" => model.wrn_double_bn_update, any, "A wide ResNet student updates three batch norms' statistics twice a forward, as in the reference.";
    "KD.TEMPERATURE" => kd.temperature, positive, "Temperature of KD, KD_SWAP and MLKD. SLD has its own.";
    "KD.LOSS.CE_WEIGHT" => kd.ce_weight, not_negative, "Weight of the cross entropy in KD, KD_SWAP, SLD and MLKD.";
    "KD.LOSS.KD_WEIGHT" => kd.kd_weight, not_negative, "Weight of the distillation in KD, SLD and MLKD.";
    "KD_SWAP.KD_WEIGHT" => kd_swap.kd_weight, not_negative, "Weight of the distillation in KD_SWAP.";
    "KD_SWAP.GATE_EPOCH" => kd_swap.gate_epoch, any, "The swapped student teaches itself after this epoch.";
    "KD_SWAP.DETACH_PSEUDO_TEACHER" => kd_swap.detach_pseudo_teacher, any, "Stop the gradient at the swapped student.";
    "SLD.GATE_EPOCH" => sld.gate_epoch, any, "The swapped student teaches itself after this epoch.";
    "SLD.TEMPERATURES" => sld.temperatures, temperatures, "Temperatures, summed over.";
    "SLD.DETACH_PSEUDO_TEACHER" => sld.detach_pseudo_teacher, any, "Stop the gradient at the swapped student.";
    "MLKD.STRONG_TEMPERATURES" => mlkd.strong_temperatures, some_temperatures, "Beside KD.TEMPERATURE: second KL term on the strong view.";
    "MLKD.WEAK_TEMPERATURES" => mlkd.weak_temperatures, some_temperatures, "Second KL term on the weak view again, as in the reference.";
    "DKD.CE_WEIGHT" => dkd.ce_weight, not_negative, "Weight of the cross entropy.";
    "DKD.ALPHA" => dkd.alpha, not_negative, "Weight of the target-class term.";
    "DKD.BETA" => dkd.beta, not_negative, "Weight of the non-target-class term.";
    "DKD.T" => dkd.temperature, positive, "Temperature.";
    "DKD.WARMUP" => dkd.warmup, at_least_one, "Epochs over which the distillation weight rises to 1.";
}
