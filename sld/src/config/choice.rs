//! The keys whose value is one of a few names.

use crate::setting::Choice;

/// Defines an enum with the names its values have in a config.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl Choice for $name {
            const WHAT: &'static str = $what;
            fn names() -> Vec<&'static str> {
                vec![$($text),*]
            }
            fn from_name(name: &str) -> Option<Self> {
                $(if name.eq_ignore_ascii_case($text) { return Some($name::$variant); })*
                None
            }
            fn name(&self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }
    };
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
    /// `SOLVER.TYPE`.
    OptimizerKind, "optimizer" {
        Sgd = "SGD",
    }
}

choice! {
    /// `DATASET.TYPE`.
    DatasetKind, "dataset" {
        Cifar100 = "cifar100",
        Cifar10 = "cifar10",
        Imagenet = "imagenet",
        TinyImagenet = "tiny_imagenet",
        /// Folders of pictures, one a class.
        Imagefolder = "imagefolder",
        /// The task that the program draws itself.
        Synthetic = "synthetic",
    }
}

impl DatasetKind {
    /// Whether its images are pictures of any size, in files.
    pub fn is_pictures(self) -> bool {
        matches!(self, Self::Imagenet | Self::TinyImagenet | Self::Imagefolder)
    }
}
