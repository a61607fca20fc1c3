//! A config as YAML, and the folder its run is filed in.

use super::keys::Config;
use super::load::Overrides;
use super::validate::without_effect;
use crate::distill::{About, METHODS, Method};
use crate::setting::{Key, Settings};
use std::path::PathBuf;

/// Every key with its default and what it means, and which of them each method reads: for `--help`.
pub fn help() -> String {
    let lines = |group: &dyn Settings, indent: &str| {
        let line = |key: &Key| {
            let default = group.get(key.path).unwrap_or_default();
            format!("{indent}{} ({default}): {}\n", key.path, key.help())
        };
        group.keys().iter().map(line).collect::<String>()
    };
    let config = Config::default();
    let general: String = config.groups().iter().map(|group| lines(*group, "  ")).collect();
    let method = |method: &Method| {
        let method = method.make();
        let About { name, title, .. } = method.about();
        format!("  {name}: {title}\n{}", lines(&*method, "    "))
    };
    let methods: String = METHODS.iter().map(method).collect();
    format!(
        "Keys, with their defaults:\n{general}\nMethods (DISTILLER.TYPE), and the keys that each reads:\n{methods}"
    )
}

impl Config {
    /// Every key that these settings read, and its value as YAML.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        let all = self.groups().into_iter().flat_map(|group| group.values());
        all.filter(|(path, _)| without_effect(self, path).is_none()).collect()
    }

    /// The whole config as YAML: every key that it reads, in sections; reads back as the same config.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        let mut open: Vec<&str> = Vec::new();
        for (path, value) in self.values() {
            let mut sections: Vec<&str> = path.split('.').collect();
            let name = sections.pop().unwrap_or(path);
            let common = open.iter().zip(&sections).take_while(|(a, b)| a == b).count();
            for (depth, section) in sections.iter().enumerate().skip(common) {
                text += &format!("{}{section}:\n", "  ".repeat(depth));
            }
            text += &format!("{}{name}: {value}\n", "  ".repeat(sections.len()));
            open = sections;
        }
        text
    }

    /// Only the keys whose value is not the default, a line each: `SOLVER.LR: 0.025`.
    pub fn differences(&self) -> Vec<String> {
        // All of them: what is read depends on the settings.
        let ordinary = Config::default();
        let mut defaults: Vec<_> = ordinary.groups().into_iter().flat_map(|group| group.values()).collect();
        defaults.extend(METHODS.iter().filter(|m| m.tag == self.tag()).flat_map(|m| m.make().values()));
        let changed = self.values().into_iter().filter(|pair| !defaults.contains(pair));
        changed.map(|(path, value)| format!("{path}: {value}")).collect()
    }

    /// The tag of the method.
    fn tag(&self) -> &'static str {
        Method::find(self.method().name()).map_or("", |method| method.tag)
    }

    /// The folder of a run: `LOG.PREFIX/PROJECT/NAME`, in the place of an empty name the tag, and what the
    /// command line changed: `sld,resnet32x4,resnet8x4,SOLVER.LR=0.1`. Their order does not matter.
    ///
    /// A tag stands for the pair that the file names. Where the command line changes method or networks, or
    /// there is no tag, these are named instead.
    pub fn run_folder(&self, overrides: &Overrides) -> PathBuf {
        let experiment = &self.experiment;
        let pair = ["DISTILLER.TYPE", "DISTILLER.TEACHER", "DISTILLER.STUDENT", "SOLVER.TRAINER"];
        let retagged = overrides.has("EXPERIMENT.TAG") || pair.iter().all(|key| !overrides.has(key));
        let (mut name, named) = if !experiment.name.is_empty() {
            (experiment.name.clone(), false)
        } else if !experiment.tag.is_empty() && retagged {
            (experiment.tag.clone(), false)
        } else {
            let networks = match self.method().needs_teacher() {
                true => format!("{},{}", self.distiller.teacher, self.distiller.student),
                false => self.distiller.student.clone(),
            };
            // As the reference's tags.
            let dot = if self.solver.trainer.is_dot() { ",dot" } else { "" };
            (format!("{}{dot},{networks}", self.tag()).into(), true)
        };
        for (path, value) in self.values() {
            let elsewhere = path.starts_with("EXPERIMENT.") || path.starts_with("LOG.");
            if overrides.has(path) && !elsewhere && !(named && pair.contains(&path)) {
                name.push(format!(",{path}={}", file_name_part(&value)));
            }
        }
        self.log.prefix.join(&experiment.project).join(name)
    }
}

/// A value without what file systems, Windows' included, do not take in a name.
fn file_name_part(value: &str) -> String {
    let allowed = |c: char| !c.is_control() && !"<>:\"/\\|?*".contains(c);
    let plain = value.trim_matches('"').replace(", ", ",");
    plain
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect::<String>()
        .trim_end_matches(['.', ' '])
        .into()
}
