//! Checks that concern more than one key, and keys that have no effect. Checks of one value stand with the key.

use super::catalog::models_of;
use super::choice::{DatasetKind, OptimizerKind, ScheduleKind, TrainerKind};
use super::keys::Config;
use crate::setting::Choice;
use nn::suggest::{hint, nearest};

/// The first contradiction: the key to blame, and what to do.
pub fn check(config: &Config) -> Result<(), (&'static str, String)> {
    network(config, "DISTILLER.STUDENT", &config.distiller.student)?;
    let about = config.method().about();
    if about.needs_teacher {
        network(config, "DISTILLER.TEACHER", &config.distiller.teacher)?;
    }
    let [plain, dot] = [false, true].map(|dot| TrainerKind::of(about, dot));
    let reads = match plain {
        TrainerKind::Crd => "which image of the set each is",
        TrainerKind::Base => "one view of each image",
        _ => "a weak and a strong view of each image",
    };
    let trainer = config.solver.trainer;
    if trainer != plain && (trainer != dot || !about.needs_teacher) {
        let or_dot = if about.needs_teacher { format!(" or \"{}\"", dot.name()) } else { String::new() };
        let why = format!(
            "\"{}\" does not fit {}, which reads {reads}; set SOLVER.TRAINER to \"{}\"{or_dot}",
            trainer.name(),
            about.name,
            plain.name()
        );
        return Err(("SOLVER.TRAINER", why));
    }
    if let Some(sight) = config.dataset.sight()
        && sight.resize < sight.side
    {
        let why =
            format!("{} is less than DATASET.SIZE, {}, which is cut out of it", sight.resize, sight.side);
        return Err(("DATASET.RESIZE", why));
    }
    let (momentum, delta) = (config.solver.momentum, config.solver.dot_delta);
    if trainer == dot && !(delta <= momentum && momentum + delta < 1.0) {
        let why = format!(
            "SOLVER.MOMENTUM less and plus this are momenta, from 0 to below 1; with {momentum} at most {:.4}",
            momentum.min(1.0 - momentum)
        );
        return Err(("SOLVER.DOT.DELTA", why));
    }
    if trainer.is_dot() && config.solver.optimizer != OptimizerKind::Sgd {
        let why =
            format!("\"{}\" is an optimizer of its own, by SGD: set SOLVER.TYPE to \"SGD\"", trainer.name());
        return Err(("SOLVER.TYPE", why));
    }
    if config.solver.warmup > config.solver.epochs {
        let why = format!("must be at most SOLVER.EPOCHS, {}", config.solver.epochs);
        return Err(("SOLVER.WARMUP", why));
    }
    if config.solver.schedule == ScheduleKind::Step && config.solver.lr_decay_stages.is_empty() {
        let why = "needs in SOLVER.LR_DECAY_STAGES the number of epochs between two falls".to_owned();
        return Err(("SOLVER.SCHEDULE", why));
    }
    if config.solver.batch_size < about.smallest_batch {
        let why = format!("{} needs at least {} images in a batch", about.name, about.smallest_batch);
        return Err(("SOLVER.BATCH_SIZE", why));
    }
    if config.solver.accumulate > config.solver.batch_size {
        let why = format!("a batch of {} cannot have more parts than images", config.solver.batch_size);
        return Err(("SOLVER.ACCUMULATE", why));
    }
    Ok(())
}

fn network(config: &Config, key: &'static str, name: &str) -> Result<(), (&'static str, String)> {
    let known = models_of(config.dataset.kind);
    if known.contains(&name) {
        return Ok(());
    }
    let images = match config.dataset.kind {
        DatasetKind::Imagenet => "ImageNet",
        DatasetKind::Imagefolder | DatasetKind::TinyImagenet => "pictures",
        _ => "32x32 images",
    };
    Err((key, format!("there is no network \"{name}\" for {images}{}", hint(name, known))))
}

/// Why a known key changes nothing in this config, and which one does; `None` for a key that is read.
pub fn without_effect(config: &Config, path: &str) -> Option<String> {
    let about = config.method().about();
    let why = |why: &str| Some(format!("{path} has no effect {why}"));
    let own = |path: &str| config.method().get(path).is_some();
    match path {
        "DISTILLER.TEACHER" | "DISTILLER.TEACHER_CHECKPOINT" if !about.needs_teacher => {
            why(&format!("on {}, which has no teacher", about.name))
        }
        "DATASET.ROOT" if config.dataset.kind == DatasetKind::Synthetic => {
            why("on the synthetic data set, which the program draws itself")
        }
        "DATASET.SIZE" | "DATASET.RESIZE" | "DATASET.SKIP_BROKEN" if config.dataset.sight().is_none() => {
            why(&format!("on {}, whose images are of one size", config.dataset.kind.name()))
        }
        "FITNET.INPUT_SIZE" | "VID.INPUT_SIZE" if own(path) => why("where shapes are known without an image"),
        "VID.EPS" if own(path) => why("in the published code neither: the variance stays VID.INIT_PRED_VAR"),
        "REVIEWKD.MAX_MID_CHANNEL" if own(path) => why("in the published code neither: 512 is the most"),
        "SOLVER.MOMENTUM" if !config.solver.optimizer.has_momentum() => {
            why(&format!("on {}, which has its own", config.solver.optimizer.name()))
        }
        "SOLVER.LR_DECAY_STAGES" | "SOLVER.LR_DECAY_RATE" if !config.solver.schedule.falls() => {
            why(&format!("on the schedule \"{}\"", config.solver.schedule.name()))
        }
        "SOLVER.DOT.DELTA" if !config.solver.trainer.is_dot() => why("without SOLVER.TRAINER \"dot\""),
        "MODEL.WRN_DOUBLE_BN_UPDATE" if !config.distiller.student.starts_with("wrn") => {
            why(&format!("on {}, which is no wide ResNet", config.distiller.student))
        }
        _ if config.groups().iter().any(|group| group.get(path).is_some()) => None,
        _ => {
            let own: Vec<&str> = config.method().keys().iter().map(|key| key.path).collect();
            let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
            let wanted = path.rsplit('.').next().unwrap_or(path);
            let meant = nearest(wanted, own.iter().map(|key| last(key)));
            let remedy = match own.iter().find(|key| Some(last(key)) == meant) {
                Some(key) => format!("; it reads {key}"),
                None if own.is_empty() => "; it reads no keys of its own".into(),
                None => format!("; it reads {}", own.join(", ")),
            };
            why(&format!("on {}{remedy}", about.name))
        }
    }
}
