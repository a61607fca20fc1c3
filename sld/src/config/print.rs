//! A config as YAML, and the folder its run is filed in.

use super::{Config, KEYS, Overrides};
use std::path::PathBuf;

impl Config {
    /// The whole config as YAML: every key, in sections; reads back as the same config.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        let mut open: Vec<&str> = Vec::new();
        for key in KEYS {
            let mut sections: Vec<&str> = key.path.split('.').collect();
            let name = sections.pop().unwrap_or(key.path);
            let common = open.iter().zip(&sections).take_while(|(a, b)| a == b).count();
            for (depth, section) in sections.iter().enumerate().skip(common) {
                text += &format!("{}{section}:\n", "  ".repeat(depth));
            }
            text += &format!("{}{name}: {}\n", "  ".repeat(sections.len()), key.value_in(self));
            open = sections;
        }
        text
    }

    /// Only the keys whose value is not the default, a line each: `SOLVER.LR: 0.025`.
    pub fn differences(&self) -> Vec<String> {
        let default = Config::default();
        let changed = KEYS.iter().filter(|key| key.value_in(self) != key.value_in(&default));
        changed.map(|key| format!("{}: {}", key.path, key.value_in(self))).collect()
    }

    /// The folder of a run, as the reference names it: `LOG.PREFIX/PROJECT/(NAME or TAG)` with the
    /// overrides appended as `key:value`, joined by commas, nothing before the first. A slash in an
    /// override's value becomes `_`, so that a path stays one folder name.
    pub fn run_folder(&self, overrides: &Overrides) -> PathBuf {
        let experiment = &self.experiment;
        let mut name =
            if experiment.name.is_empty() { experiment.tag.clone() } else { experiment.name.clone() };
        let pairs: Vec<String> = overrides
            .0
            .iter()
            .map(|(key, value)| format!("{key}:{}", value.replace(['/', '\\'], "_")))
            .collect();
        name += &pairs.join(",");
        PathBuf::from(&self.log.prefix).join(&experiment.project).join(name)
    }
}
