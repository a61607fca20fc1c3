//! Going on with a run: as it was, unless a change is asked for.

use std::path::PathBuf;

use anyhow::ensure;
use nn::checkpoint::{self, Checkpoint, Scalar};

use crate::config::{Config, decides};
use crate::run::{Change, Claim, RunInfo, epochs_in_words};
use crate::training::Changed;

/// The weights that training began with.
const INIT: &str = "DISTILLER.STUDENT_CHECKPOINT";
/// How long a run is changes none of its epochs: the learning rate's stages are keys of their own.
const LENGTH: &str = "SOLVER.EPOCHS";
const PATIENCE: &str = "SOLVER.PATIENCE";
/// What the method's modules are made for.
const METHOD: &str = "DISTILLER.TYPE";
const TEACHER: &str = "DISTILLER.TEACHER";
/// What the device multiplies in: not the config's, but the command line's.
const PRECISION: &str = "--precision";
/// What was trained cannot become another network.
const STUDENT: &str = "DISTILLER.STUDENT";

/// A run that is to go on.
pub struct Resume {
    pub latest: PathBuf,
    pub saved: Checkpoint,
    /// The config and the description that the run wrote.
    recorded: Option<(Config, RunInfo)>,
    /// The epoch in work, and whether a part of it is done.
    epoch: u32,
    in_epoch: bool,
    /// What is not as it was.
    changes: Vec<Change>,
}

impl Resume {
    /// The run in a claimed folder; `None` where none was begun.
    ///
    /// # Errors
    /// There is a run, but without the state to go on from; a file is damaged.
    pub fn find(claim: &Claim) -> anyhow::Result<Option<Resume>> {
        let Some(latest) = claim.latest() else {
            ensure!(claim.is_empty(), claim.no_latest());
            return Ok(None);
        };
        let saved = checkpoint::read(&latest)?;
        let epoch = saved.epoch.and_then(|epoch| u32::try_from(epoch).ok()).unwrap_or(0) + 1;
        let in_epoch = saved.extra.get("batch").and_then(Scalar::as_i64).unwrap_or(0) > 0;
        let recorded = claim.recorded()?;
        if recorded.is_none() {
            crate::say!(
                "# {} lacks config.yaml or run.json: whether it was another run cannot be told",
                latest.with_file_name("").display()
            );
        }
        Ok(Some(Resume { latest, saved, recorded, epoch, in_epoch, changes: Vec::new() }))
    }

    /// Compares the settings with the run's.
    ///
    /// # Errors
    /// The run has more epochs already.
    pub fn compare_settings(&mut self, config: &Config) -> anyhow::Result<()> {
        let begun = self.epoch - u32::from(!self.in_epoch);
        ensure!(
            begun <= config.solver.epochs,
            "the run in {} has {} already, and {LENGTH} is {}: nothing to do, nothing was changed; a run can become \
             longer (give {LENGTH}), not shorter",
            self.folder(),
            epochs_in_words(begun as usize),
            config.solver.epochs
        );
        let Some((recorded, _)) = &self.recorded else { return Ok(()) };
        let now = config.values();
        for (key, from) in recorded.values().into_iter().filter(|(key, _)| decides(key)) {
            // A key of another method is no change of its own: the method is.
            if let Some((_, to)) = now.iter().find(|(other, to)| *other == key && *to != from) {
                self.changes.push(Change { epoch: self.epoch, key: key.into(), from, to: to.clone() });
            }
        }
        let init = [recorded, config].map(|config| &config.distiller.student_checkpoint);
        if init[0].as_os_str().is_empty() != init[1].as_os_str().is_empty() {
            let [from, to] = init.map(|path| match path.as_os_str().is_empty() {
                true => "\"\"".to_owned(),
                false => path.display().to_string(),
            });
            self.changes.push(Change { epoch: self.epoch, key: INIT.into(), from, to });
        }
        Ok(())
    }

    /// Compares with the run's what no config says: the device's precision, and the images, the teacher and the weights
    /// to begin with, by their checksums.
    pub fn compare_found(&mut self, config: &Config, info: &RunInfo) {
        let Some((recorded, before)) = &self.recorded else { return };
        let epoch = self.epoch;
        let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
        if differ(&before.precision, &info.precision) {
            let [from, to] = [before, info].map(|info| info.precision.clone());
            self.changes.push(Change { epoch, key: PRECISION.into(), from, to });
        }
        let mut other = |key: &str, from: String, to: String| {
            self.changes.push(Change { epoch, key: key.into(), from, to: format!("{to} (other contents)") });
        };
        // Another split takes other images out of the same ones, and is a change of its own.
        let same_split = recorded.dataset.val_fraction == config.dataset.val_fraction
            && recorded.solver.seed == config.solver.seed;
        if differ(&before.test_digest, &info.test_digest)
            || (same_split && differ(&before.train_digest, &info.train_digest))
        {
            other(
                "DATASET.ROOT",
                recorded.dataset.root.display().to_string(),
                config.dataset.root.display().to_string(),
            );
        }
        if let (Some(a), Some(b)) = (&before.teacher, &info.teacher)
            && differ(&a.digest, &b.digest)
        {
            let path = |config: &Config| config.distiller.teacher_path().display().to_string();
            other("DISTILLER.TEACHER_CHECKPOINT", path(recorded), path(config));
        }
        if differ(&before.student.digest, &info.student.digest) {
            let path = |config: &Config| config.distiller.student_checkpoint.display().to_string();
            other(INIT, path(recorded), path(config));
        }
    }

    /// Whether the run may go on with what was compared so far.
    ///
    /// # Errors
    /// It would be another run, and `change` is not given: what differs, and how to go on.
    pub fn agree(&self, change: bool) -> anyhow::Result<()> {
        let matter: Vec<&Change> = self.changes.iter().filter(|c| !is_length(&c.key)).collect();
        let fixed = matter.iter().any(|c| [STUDENT, INIT].contains(&c.key.as_str()));
        if matter.is_empty() || (change && !fixed) {
            return Ok(());
        }
        let width = matter.iter().map(|c| c.key.len()).max().unwrap_or(0);
        let lines: String =
            matter.iter().map(|c| format!("\n  {:width$}  {} there, {} now", c.key, c.from, c.to)).collect();
        let words: Vec<String> = matter.iter().map(|c| as_it_was(c)).collect();
        let how = match fixed {
            true => {
                "or begin another run with --output: a trained student cannot become another network, or one \
                     that began with other weights"
                    .to_string()
            }
            false => format!("or add --change to go on so from epoch {} on", self.epoch),
        };
        anyhow::bail!(
            "the run in {} has other settings; nothing was changed{lines}\nto go on as it was, give {}, {how}",
            self.folder(),
            words.join(" ")
        )
    }

    /// What is done otherwise from now on.
    pub fn changed(&self) -> Changed {
        let changed = |key: &str| self.changes.iter().any(|change| change.key == key);
        match self.changes.iter().any(|change| !is_length(&change.key)) {
            _ if changed(METHOD) || changed(TEACHER) => Changed::Method,
            true => Changed::Steps,
            false => Changed::Nothing,
        }
    }

    /// Gives the new description what it keeps of the old, and tells of the changes.
    pub fn describe(&self, info: &mut RunInfo) {
        if let Some((_, before)) = &self.recorded {
            info.started = before.started;
            info.changes.clone_from(&before.changes);
        }
        for change in &self.changes {
            crate::say!("# {change}");
            // The length is a run's, not an epoch's. A run that was killed before its config was written has
            // told of the others already.
            if !is_length(&change.key) && !info.changes.contains(change) {
                info.changes.push(change.clone());
            }
        }
        if self.changed() != Changed::Nothing && self.in_epoch {
            crate::say!("# epoch {} begins again: a part of it was done as it was before", self.epoch);
        }
    }

    fn folder(&self) -> String {
        self.latest.parent().map_or_else(String::new, |folder| folder.display().to_string())
    }
}

fn is_length(key: &str) -> bool {
    key == LENGTH || key == PATIENCE
}

/// What to give on the command line for the former value.
fn as_it_was(change: &Change) -> String {
    let option = match change.key.as_str() {
        "SOLVER.SEED" => "--seed",
        "DATASET.VAL_FRACTION" => "--val-fraction",
        "DATASET.ROOT" => "--data",
        "DISTILLER.TEACHER_CHECKPOINT" => "--teacher",
        INIT => "--init",
        key => key,
    };
    format!("{option} {}", change.from.trim_matches('"').replace(", ", ","))
}
