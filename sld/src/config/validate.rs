//! Checks that concern more than one key. Checks of one value stand in the table of keys.

use super::error::hint;
use super::{Config, DatasetKind, DistillerKind, models_of};

/// The first contradiction: the key to blame, and what to do.
pub fn check(config: &Config) -> Result<(), (&'static str, String)> {
    network(config, "DISTILLER.STUDENT", &config.distiller.student)?;
    if config.distiller.kind.needs_teacher() {
        network(config, "DISTILLER.TEACHER", &config.distiller.teacher)?;
    }
    trainer(config)?;
    stages(config)?;
    if config.distiller.kind == DistillerKind::Mlkd && config.solver.batch_size < 2 {
        let why = "MLKD relates the images of a batch to each other and needs at least 2".into();
        return Err(("SOLVER.BATCH_SIZE", why));
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
        _ => "32x32 images",
    };
    Err((key, format!("there is no network \"{name}\" for {images}{}", hint(name, known))))
}

fn trainer(config: &Config) -> Result<(), (&'static str, String)> {
    let (kind, trainer) = (config.distiller.kind, config.solver.trainer);
    if kind.trainer() == trainer {
        return Ok(());
    }
    let views = if kind.needs_two_views() { "a weak and a strong view" } else { "one view" };
    let why = format!(
        "\"{trainer}\" does not fit {kind}, which reads {views} of each image; set SOLVER.TRAINER to \"{}\"",
        kind.trainer()
    );
    Err(("SOLVER.TRAINER", why))
}

fn stages(config: &Config) -> Result<(), (&'static str, String)> {
    if config.solver.lr_decay_stages.first() == Some(&0) {
        let why = "epochs count from 1: stage 0 would lower the learning rate before the first".into();
        return Err(("SOLVER.LR_DECAY_STAGES", why));
    }
    Ok(())
}
