//! The keys whose value is one of a few names.

use serde::{Serialize, Serializer};

/// Defines an enum with the names its values have in a config.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every value, in the order shown to users.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// What the value is called in messages.
            pub const WHAT: &'static str = $what;

            /// The value's name in a config.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }

            /// The value of that name, in any letter case.
            pub fn from_name(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name().eq_ignore_ascii_case(text))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}

choice! {
    /// `DISTILLER.TYPE`.
    DistillerKind, "distiller" {
        /// Cross entropy alone: how teachers are trained.
        None = "NONE",
        /// Knowledge distillation (Hinton et al., 2015), as mdistiller has it.
        Kd = "KD",
        /// KD with swapped logits: what the SLD repository calls KD.
        KdSwap = "KD_SWAP",
        /// Swapped logit distillation.
        Sld = "SLD",
        /// Multi-level logit distillation (CVPR 2023).
        Mlkd = "MLKD",
        /// Decoupled knowledge distillation (CVPR 2022).
        Dkd = "DKD",
    }
}

impl DistillerKind {
    /// Whether a step reads a weakly and a strongly augmented view of each image.
    pub fn needs_two_views(self) -> bool {
        matches!(self, Self::Sld | Self::Mlkd)
    }

    /// Whether the method has a teacher.
    pub fn needs_teacher(self) -> bool {
        self != Self::None
    }

    /// The `SOLVER.TRAINER` the method is trained by.
    pub fn trainer(self) -> TrainerKind {
        if self.needs_two_views() { TrainerKind::Ours } else { TrainerKind::Base }
    }
}

choice! {
    /// `SOLVER.TRAINER`.
    TrainerKind, "trainer" {
        /// One weakly augmented view.
        Base = "base",
        /// A weak and a strong view.
        Ours = "ours",
    }
}

choice! {
    /// `DATASET.TYPE`.
    DatasetKind, "dataset" {
        Cifar100 = "cifar100",
        Cifar10 = "cifar10",
        Imagenet = "imagenet",
        /// The task that the program draws itself, from `SOLVER.SEED`.
        Synthetic = "synthetic",
    }
}
