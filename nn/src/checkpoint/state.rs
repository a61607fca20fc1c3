//! What a checkpoint holds, whatever its file format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tensor::NamedTensor;

/// A model's state dict with what a trainer saves beside it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Parameters and buffers in file order, under the file's names.
    pub tensors: Vec<NamedTensor>,
    /// What the network is, where the file says so.
    pub network: Option<NetworkInfo>,
    /// The last epoch that was trained, counted from 1.
    pub epoch: Option<i64>,
    /// `accuracy` of the file: top-1 on the test set when it was written.
    pub accuracy: Option<f64>,
    /// `best_acc` of the file: the best top-1 so far.
    pub best_acc: Option<f64>,
    /// The state of an optimizer.
    pub optimizer: Option<OptimizerState>,
    /// Other numbers and texts at the top level, by key.
    pub extra: BTreeMap<String, Scalar>,
    /// What the file has and what was not read, each with what it is: `history (a list)`.
    pub left_out: Vec<String>,
    /// Choices that were made in reading, for the user to know.
    pub notes: Vec<String>,
}

/// What a network is and what it was trained for, so that its checkpoint can be used without being told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// The model's name in the registry.
    pub model: String,
    /// The classes, in the order of the logits.
    pub classes: Vec<String>,
    /// Height and width of the images.
    pub size: [usize; 2],
    /// Of pictures of any size, in evaluation: what their shorter side becomes before the centre is cut out. 0 where
    /// images are of one size.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resize: usize,
    /// What is subtracted from the images' levels (0 to 1), by channel.
    pub mean: [f32; 3],
    /// What they are then divided by.
    pub std: [f32; 3],
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The networks of a distillation, in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The network that is trained: names that begin with `student.`.
    Student,
    /// The network it learns from: `teacher.`.
    Teacher,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Student => "student",
            Role::Teacher => "teacher",
        }
    }
}

impl Checkpoint {
    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&NamedTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Moves out the tensors of the submodule `part`, under the names they have in it: from a trainer's
    /// `latest`, whose names begin with `module.student.` and `module.teacher.`, one of the two networks.
    /// Empty if there is no such submodule.
    pub fn take_submodule(&mut self, part: &str) -> Vec<NamedTensor> {
        let shared = shared_prefix(&self.tensors);
        let inside = format!("{part}.");
        // Where all tensors are the submodule's, its name is a part of what they share.
        let prefix = match format!(".{shared}").find(&format!(".{inside}")) {
            Some(place) => format!("{}{inside}", &shared[..place]),
            None => format!("{shared}{inside}"),
        };
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for mut tensor in std::mem::take(&mut self.tensors) {
            match tensor.name.strip_prefix(&prefix).map(str::to_owned) {
                Some(name) => {
                    tensor.name = name;
                    taken.push(tensor);
                }
                None => kept.push(tensor),
            }
        }
        self.tensors = kept;
        taken
    }

    /// Leaves the tensors of one network under the names that its definition gives them, and adds to
    /// `notes` what was done: of a distillation's state the network of `role` is taken (or the only one
    /// there is), and what all names begin with (DataParallel's `module.`, a compiled module's
    /// `_orig_mod.`, a wrapper's `backbone.` or `model.`) is taken off.
    pub fn into_network(mut self, role: Role) -> Checkpoint {
        let other = if role == Role::Student { Role::Teacher } else { Role::Student };
        for (role, other) in [(role, other), (other, role)] {
            let taken = self.take_submodule(role.name());
            if taken.is_empty() {
                continue;
            }
            let rest = std::mem::replace(&mut self.tensors, taken);
            let note = match (
                rest.is_empty(),
                rest.iter().any(|t| t.name.contains(&format!("{}.", other.name()))),
            ) {
                (true, _) => format!("all of it is a {0}; taken as that (\"{0}.\")", role.name()),
                (_, true) => format!(
                    "holds a student and a teacher; taken is the {0} (`sld convert --part {1}` gives the other)",
                    role.name(),
                    other.name()
                ),
                _ => format!("taken is its part \"{}.\", without {} other tensors", role.name(), rest.len()),
            };
            self.notes.push(note);
            break;
        }
        let prefix = shared_prefix(&self.tensors);
        if !prefix.is_empty() {
            self.notes
                .push(format!("all names begin with \"{}\", which is taken off", prefix.escape_debug()));
            let strip = |mut tensor: NamedTensor| {
                tensor.name = tensor.name.strip_prefix(&prefix)?.to_owned();
                Some(tensor)
            };
            self.tensors = std::mem::take(&mut self.tensors).into_iter().filter_map(strip).collect();
        }
        self
    }
}

/// What the names of all tensors begin with, in whole components (`module.model.`). A counter beside the
/// module (a single value without a dot in its name, as `n_averaged` of PyTorch's averaged models) is no
/// part of it.
fn shared_prefix(tensors: &[NamedTensor]) -> String {
    let mut names = tensors
        .iter()
        .filter(|tensor| tensor.name.contains('.') || !tensor.shape.is_empty())
        .map(|tensor| tensor.name.as_str());
    let Some(first) = names.next() else { return String::new() };
    let folder = |name: &str, length: usize| name[..length].rfind('.').map_or(0, |dot| dot + 1);
    // The last component is the tensor's own name.
    let mut length = folder(first, first.len());
    for name in names {
        let same = first.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        length = length.min(folder(first, same.min(length)));
    }
    first[..length].to_owned()
}

/// Declares the kinds of state that an optimizer keeps of each parameter: `field "PyTorch's name" help`.
macro_rules! kinds {
    ($($(#[$doc:meta])* $field:ident $name:literal;)*) => {
        /// State of an optimizer, by position of the parameter.
        ///
        /// A position is counted over the parameters of all groups, in order. That is what current PyTorch
        /// writes; older files, which hold memory addresses instead, are renumbered on reading.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct OptimizerState {
            $($(#[$doc])* pub $field: BTreeMap<usize, NamedTensor>,)*
            /// The groups with their settings.
            pub param_groups: Vec<ParamGroup>,
        }

        impl OptimizerState {
            /// The state of each kind with PyTorch's name for it.
            pub(super) fn buffers(&self) -> Vec<(&'static str, &BTreeMap<usize, NamedTensor>)> {
                vec![$(($name, &self.$field)),*]
            }

            /// The state of this name; `None` if it is no name of any.
            pub(super) fn buffers_named(&mut self, name: &str) -> Option<&mut BTreeMap<usize, NamedTensor>> {
                match name {
                    $($name => Some(&mut self.$field),)*
                    _ => None,
                }
            }

            /// Keeps the state of these parameters.
            pub fn retain(&mut self, positions: &std::ops::Range<usize>) {
                $(self.$field.retain(|position, _| positions.contains(position));)*
            }
        }
    };
}

kinds! {
    /// Momentum buffer of each parameter that has one; its `name` is empty, as all these tensors' are.
    momentum "momentum_buffer";
    /// The second buffer of a distillation-oriented trainer.
    momentum_kd "momentum_kd_buffer";
    /// Adam's running mean of gradients.
    exp_avg "exp_avg";
    /// Adam's running mean of their squares.
    exp_avg_sq "exp_avg_sq";
    /// RMSprop's running mean of squares.
    square_avg "square_avg";
    /// Steps so far, a tensor of one element.
    step "step";
}

impl OptimizerState {
    /// The state of one of the names above.
    pub(crate) fn kind(&self, name: &str) -> &BTreeMap<usize, NamedTensor> {
        const NONE: &BTreeMap<usize, NamedTensor> = &BTreeMap::new();
        self.buffers().into_iter().find(|(known, _)| *known == name).map_or(NONE, |(_, kind)| kind)
    }

    /// The same, to be changed.
    pub(crate) fn kind_mut(&mut self, name: &str) -> &mut BTreeMap<usize, NamedTensor> {
        self.buffers_named(name).expect("one of the names above")
    }

    /// The first name but these that has any state.
    pub(crate) fn others(&self, own: &[&str]) -> Option<&'static str> {
        let mut kinds = self.buffers().into_iter();
        kinds.find(|(name, kind)| !own.contains(name) && !kind.is_empty()).map(|(name, _)| name)
    }
}

/// Parameters that share settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParamGroup {
    /// Positions of the group's parameters.
    pub params: Vec<usize>,
    /// The settings by PyTorch's names (`lr`, `momentum`, `weight_decay`, ...), in file order. Of Adam's `betas` each
    /// is one of its own, `betas.0` and `betas.1`.
    pub options: Vec<(String, Scalar)>,
}

impl ParamGroup {
    /// The setting of this name, if it is there and a number.
    pub fn number(&self, option: &str) -> Option<f64> {
        self.options.iter().find(|(name, _)| name == option).and_then(|(_, value)| value.as_f64())
    }
}

/// A single value of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scalar {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number, also a numpy scalar or a tensor of one element.
    Float(f64),
    /// A text.
    Text(String),
}

impl Scalar {
    /// The value as a number; truth values and texts are not numbers.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Scalar::Int(value) => Some(*value as f64),
            Scalar::Float(value) => Some(*value),
            Scalar::None | Scalar::Bool(_) | Scalar::Text(_) => None,
        }
    }

    /// The value as an integer; also a floating-point number that is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Scalar::Int(value) => Some(*value),
            Scalar::Float(value) if value.fract() == 0.0 && value.abs() < 2f64.powi(53) => {
                Some(*value as i64)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(names: &[&str]) -> Checkpoint {
        let tensor = |name: &&str| match name.strip_suffix('#') {
            Some(scalar) => NamedTensor::i64_scalar(scalar, 1),
            None => NamedTensor::f32(*name, &[1], vec![0.0]),
        };
        Checkpoint { tensors: names.iter().map(tensor).collect(), ..Checkpoint::default() }
    }

    fn network(names: &[&str], role: Role) -> (String, String) {
        let network = checkpoint(names).into_network(role);
        let names: Vec<&str> = network.tensors.iter().map(|t| t.name.as_str()).collect();
        (names.join(" "), network.notes.join("; "))
    }

    #[test]
    fn what_all_names_begin_with_is_taken_off() {
        for prefix in [
            "module.",
            "_orig_mod.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "model.",
            "backbone.",
            "module.net.0.",
            "student.module.",
            "module.student._orig_mod.",
        ] {
            let names = ["conv.weight", "fc.weight", "fc.bias", "bn.num_batches_tracked#"];
            let names = names.map(|name| format!("{prefix}{name}"));
            let (found, notes) = network(&names.each_ref().map(String::as_str), Role::Student);
            assert_eq!(found, "conv.weight fc.weight fc.bias bn.num_batches_tracked", "{prefix}");
            assert!(
                notes.contains("begin with") || notes.contains("all of it is a student"),
                "{prefix}: {notes}"
            );
        }
        for names in [
            &["conv.weight", "fc.weight"][..],
            &["module.conv.weight", "fc.weight"],
            &["convolution.weight", "conv.weight"],
            &["weight", "conv.weight"],
            &["weight", "bias"],
        ] {
            assert_eq!(network(names, Role::Student), (names.join(" "), String::new()));
        }
        // PyTorch's AveragedModel counts beside the module.
        assert_eq!(network(&["n_averaged#", "module.a.b", "module.c"], Role::Student).0, "a.b c");
        assert_eq!(network(&["count#", "a", "b"], Role::Student).0, "count a b");
    }

    #[test]
    fn of_a_distillation_the_network_of_the_role_is_taken() {
        for prefix in ["", "module.", "module._orig_mod."] {
            let named = |name: &str| format!("{prefix}{name}");
            let names = ["student.a.x", "student.b", "teacher.module.a.y", "teacher.module.b"].map(named);
            let names = names.each_ref().map(String::as_str);
            let (student, notes) = network(&names, Role::Student);
            assert_eq!(student, "a.x b", "{prefix}");
            assert!(notes.contains("taken is the student") && notes.contains("--part teacher"), "{notes}");
            let (teacher, notes) = network(&names, Role::Teacher);
            assert_eq!(teacher, "a.y b", "{prefix}");
            assert!(notes.contains("taken is the teacher"), "{notes}");
            // The only one there is.
            assert_eq!(network(&names[2..], Role::Student).0, "a.y b", "{prefix}");
            let (student, notes) = network(&names[..2], Role::Teacher);
            assert_eq!(student, "a.x b", "{prefix}");
            assert!(notes.contains("all of it is a student"), "{notes}");
            // With a loss of its own parameters.
            let loss = [named("loss.w"), named("student.a.x"), named("student.b")];
            let (student, notes) = network(&loss.each_ref().map(String::as_str), Role::Teacher);
            assert_eq!(student, "a.x b");
            assert!(notes.contains("without 1 other"), "{notes}");
        }
    }

    #[test]
    fn submodules_are_found_behind_what_all_names_share() {
        let mut both = checkpoint(&["module.student.a", "module.teacher.a", "module.teacher.b"]);
        let taken = both.take_submodule("teacher");
        assert_eq!(taken.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(both.tensors.len(), 1);
        assert!(both.take_submodule("stud").is_empty());
        assert_eq!(both.take_submodule("student")[0].name, "a");
        let mut only = checkpoint(&["module.student.net.a", "module.student.net.b"]);
        assert_eq!(only.take_submodule("student")[1].name, "net.b");
    }
}
