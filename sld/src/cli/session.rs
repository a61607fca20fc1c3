//! From a config to what a run is made of: data, networks, method.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use autograd::tensor::Transfer;
use nn::{Course, Rule, Schedule, SgdOptions, models};

use crate::augment::Mixing;
use crate::cluster::cores;
use crate::config::{Config, DatasetKind, OptimizerKind, ScheduleKind, Solver, TransferKind};
use crate::data::cifar::{self, Cifar, LoadOptions};
use crate::data::pictures::{self, Folder};
use crate::data::synthetic::{self, SyntheticConfig};
use crate::data::{Dataset, Splits, split};
use crate::experiment::terminal;
use crate::say;
pub use crate::training::RunData;
use crate::training::{Networks, Settings, Setup};

/// Classes of a data set.
pub fn classes(kind: DatasetKind) -> usize {
    match kind {
        DatasetKind::Cifar10 => 10,
        DatasetKind::Cifar100 => 100,
        DatasetKind::Imagenet | DatasetKind::Imagefolder => 1000,
        DatasetKind::TinyImagenet => 200,
        DatasetKind::Synthetic => SyntheticConfig::default().classes,
    }
}

/// The list of a data set's classes that is known without its files.
fn known(kind: DatasetKind) -> Option<&'static str> {
    (kind == DatasetKind::Imagenet).then_some(pictures::IMAGENET)
}

/// Reads training and test images.
pub fn load_splits(kind: DatasetKind, root: &Path) -> anyhow::Result<Splits> {
    let wanted = match kind {
        DatasetKind::Cifar10 => Cifar::Cifar10,
        DatasetKind::Cifar100 => Cifar::Cifar100,
        DatasetKind::Synthetic => return Ok(synthetic::generate(&SyntheticConfig::default())?),
        DatasetKind::Imagenet | DatasetKind::TinyImagenet | DatasetKind::Imagefolder => {
            anyhow::bail!("a folder of pictures is not read whole")
        }
    };
    let options = LoadOptions { wanted: Some(wanted), skip_checksums: false };
    Ok(cifar::load(root, options)?.splits)
}

/// What a config names.
impl RunData {
    /// Reads, or lists, the images that the config names.
    pub fn load(config: &Config) -> anyhow::Result<RunData> {
        let dataset = &config.dataset;
        let Some(sight) = dataset.sight() else {
            return RunData::new(config, load_splits(dataset.kind, &dataset.root)?);
        };
        let Folder { train, test, notes } = pictures::open(&dataset.root, sight, known(dataset.kind))?;
        notes.iter().for_each(|note| say!("# {note}"));
        let root = dataset.root.display();
        let train = train.with_context(|| format!("{root} has no folder train/ to train on"))?;
        let readable = |images: Dataset| match dataset.skip_broken {
            true => without_broken(images),
            false => Ok(images),
        };
        let (train, test) = (readable(train)?, test.map(readable).transpose()?);
        match test {
            Some(test) => RunData::new(config, Splits { train, test }),
            None if dataset.val_fraction > 0.0 => {
                let (train, test) = split::hold_out(&train, dataset.val_fraction, config.solver.seed)?;
                Ok(RunData { train: Arc::new(train), test: Arc::new(test), held_out: None })
            }
            None => anyhow::bail!(
                "{root} has no folder val/ or test/; make one, or hold a part of the pictures out to test on: \
                 --val-fraction 0.1"
            ),
        }
    }

    /// Splits off the config's share of the training images.
    pub fn new(config: &Config, splits: Splits) -> anyhow::Result<RunData> {
        let Splits { train, test } = splits;
        let test = Arc::new(test);
        if config.dataset.val_fraction == 0.0 {
            return Ok(RunData { train: Arc::new(train), test, held_out: None });
        }
        let (train, held_out) = split::hold_out(&train, config.dataset.val_fraction, config.solver.seed)?;
        Ok(RunData { train: Arc::new(train), test, held_out: Some(Arc::new(held_out)) })
    }
}

/// Leaves out what cannot be read, and says so.
fn without_broken(images: Dataset) -> anyhow::Result<Dataset> {
    /// Files that are named; `sld data inspect` names all.
    const NAMED: usize = 10;
    let (name, count) = (images.name().to_owned(), images.len());
    let bar = terminal::counting(count as u64, "pictures read");
    let (readable, broken) = pictures::without_broken(images, || bar.inc(1));
    bar.finish_and_clear();
    if !broken.is_empty() {
        say!("# {name}: left out {} of {count} pictures, which cannot be read:", broken.len());
    }
    broken.iter().take(NAMED).for_each(|file| say!("#   {}: {}", file.path.display(), file.reason));
    if broken.len() > NAMED {
        say!("#   and {} more (`sld data inspect` lists all)", broken.len() - NAMED);
    }
    readable.with_context(|| format!("{name}: none of the {count} pictures can be read"))
}

/// What networks must know of the training images.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    /// Classes, as the data set counts them.
    pub classes: usize,
    /// Images to learn from.
    pub count: usize,
    /// Height and width.
    pub size: [usize; 2],
}

impl Images {
    /// Of a data set that is loaded.
    pub fn of_data(data: &Dataset) -> Images {
        Images { classes: data.classes().len(), count: data.len(), size: [data.height(), data.width()] }
    }

    /// Of a config's data set that is not, less those held out: of pictures that are there as many as there are, of
    /// others as are published.
    pub fn of(config: &Config) -> Images {
        let dataset = &config.dataset;
        let found =
            dataset.sight().and_then(|sight| pictures::open(&dataset.root, sight, known(dataset.kind)).ok());
        let all = match found.and_then(|folder| folder.train.or(folder.test)) {
            Some(images) => Images::of_data(&images),
            None => {
                let count = match dataset.kind {
                    DatasetKind::Cifar10 | DatasetKind::Cifar100 => 50_000,
                    DatasetKind::Imagenet | DatasetKind::Imagefolder => 1_281_167,
                    DatasetKind::TinyImagenet => 100_000,
                    DatasetKind::Synthetic => SyntheticConfig::default().train,
                };
                let side = dataset.sight().map_or(32, |sight| sight.side);
                Images { classes: classes(dataset.kind), count, size: [side, side] }
            }
        };
        let of_each = all.count as f64 / all.classes as f64;
        let held_out = all.classes * (of_each * dataset.val_fraction).round() as usize;
        Images { count: all.count - held_out, ..all }
    }
}

/// The config's networks with fresh weights, what its method trains beside them, and the optimizer.
///
/// # Errors
/// The method cannot take this pair.
pub fn networks(config: &Config, images: Images) -> anyhow::Result<Networks> {
    let Images { classes, count, size } = images;
    let student = models::build(&config.student_model(), classes, config.solver.seed)?;
    let teacher = match config.method().needs_teacher() {
        true => Some(models::build(&config.teacher_model(), classes, 0)?),
        false => None,
    };
    let options = SgdOptions {
        momentum: config.solver.momentum,
        weight_decay: config.solver.weight_decay,
        nesterov: config.solver.optimizer == OptimizerKind::Nesterov,
        ..SgdOptions::default()
    };
    let setup = Setup {
        options,
        rule: rule(config),
        clip: (config.solver.clip > 0.0).then_some(config.solver.clip),
        dot: config.solver.trainer.is_dot().then_some(config.solver.dot_delta),
        repeat_wrn_updates: config.model.wrn_double_bn_update,
        size,
        images: count,
        smoothing: config.solver.label_smoothing,
        mixing: Mixing::new(config.solver.mixup, config.solver.cutmix),
        seed: config.solver.seed,
    };
    let networks = Networks::new(student, teacher, config.method(), setup)?;
    match config.solver.ema {
        0.0 => Ok(networks),
        decay => Ok(networks.averaged(models::outline(&config.student_model(), classes)?, decay)?),
    }
}

/// The rule of an optimizer other than SGD.
fn rule(config: &Config) -> Option<Rule> {
    let decay = config.solver.weight_decay;
    match config.solver.optimizer {
        OptimizerKind::Sgd | OptimizerKind::Nesterov => None,
        OptimizerKind::Adam => Some(Rule::adam(decay)),
        OptimizerKind::AdamW => Some(Rule::adamw(decay)),
        OptimizerKind::RmsProp => Some(Rule::rms_prop(config.solver.momentum, decay)),
        OptimizerKind::Lamb => Some(Rule::lamb(decay)),
    }
}

/// The learning rate's course.
fn schedule(solver: &Solver) -> Schedule {
    let stages = solver.lr_decay_stages.iter().map(|&stage| stage as usize);
    let factor = solver.lr_decay_rate;
    let course = match solver.schedule {
        ScheduleKind::MultiStep => Course::MultiStep { stages: stages.collect(), factor },
        ScheduleKind::Step => Course::Step { every: stages.min().unwrap_or(1), factor },
        ScheduleKind::Cosine => Course::Cosine,
        ScheduleKind::OneCycle => Course::OneCycle,
    };
    Schedule { base: solver.lr, epochs: solver.epochs as usize, warmup: solver.warmup as usize, course }
}

/// The loop's settings.
pub fn settings(config: &Config) -> Settings {
    let solver = &config.solver;
    Settings {
        epochs: solver.epochs as usize,
        patience: solver.patience as usize,
        batch_size: solver.batch_size as usize,
        accumulate: solver.accumulate as usize,
        transfer: match solver.transfer {
            TransferKind::F32 => Transfer::F32,
            TransferKind::Bf16 => Transfer::Bf16,
        },
        sync_batch_norm: solver.sync_bn,
        test_batch_size: config.dataset.test_batch_size as usize,
        schedule: schedule(solver),
        seed: solver.seed,
        workers: workers(config),
    }
}

/// Threads that prepare batches: the config's number, at most four for each core, and for 0 one for each.
pub fn workers(config: &Config) -> usize {
    match config.dataset.num_workers {
        0 => cores::available(),
        some => (some as usize).min(4 * cores::available()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_workers_means_one_for_each_core() {
        let mut config = Config::default();
        config.dataset.num_workers = 3;
        assert_eq!(settings(&config).workers, 3);
        config.dataset.num_workers = 0;
        assert_eq!(settings(&config).workers, cores::available());
        config.dataset.num_workers = 1024;
        assert_eq!(settings(&config).workers, 4 * cores::available());
    }
}
