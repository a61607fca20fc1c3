//! The keys whose value is one of a few names.

use crate::distill::About;
use crate::setting::choice;

choice! {
    /// `SOLVER.TRAINER`.
    TrainerKind, "trainer" {
        /// One weakly augmented view.
        Base = "base",
        /// A weak and a strong view.
        Ours = "ours",
        /// One weakly augmented view, and which image it is of.
        Crd = "crd",
        /// Distillation-oriented: the losses' gradients apart, with two momenta.
        Dot = "dot",
        /// The same, and which image a view is of.
        CrdDot = "crd_dot",
    }
}

choice! {
    /// `SOLVER.TYPE`.
    OptimizerKind, "optimizer" {
        Sgd = "SGD",
        /// The same with Nesterov's momentum.
        Nesterov = "NESTEROV",
        Adam = "ADAM",
        /// Adam with decoupled weight decay.
        AdamW = "ADAMW",
        RmsProp = "RMSPROP",
        Lamb = "LAMB",
    }
}

choice! {
    /// `SOLVER.SCHEDULE`.
    ScheduleKind, "schedule" {
        MultiStep = "multi_step",
        Step = "step",
        Cosine = "cosine",
        OneCycle = "one_cycle",
    }
}

choice! {
    /// `SOLVER.TRANSFER`.
    TransferKind, "way for gradients" {
        F32 = "f32",
        Bf16 = "bf16",
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

impl TrainerKind {
    /// The trainer of a method: of what it reads of the images, and whether its two losses have momenta of their own.
    pub fn of(about: About, dot: bool) -> TrainerKind {
        match (about.views, about.knows_images, dot) {
            (_, true, false) => TrainerKind::Crd,
            (_, true, true) => TrainerKind::CrdDot,
            (_, _, true) => TrainerKind::Dot,
            (1, ..) => TrainerKind::Base,
            _ => TrainerKind::Ours,
        }
    }

    /// Whether the task's and the distillation's gradients have momenta of their own.
    pub fn is_dot(self) -> bool {
        matches!(self, TrainerKind::Dot | TrainerKind::CrdDot)
    }
}

impl OptimizerKind {
    /// Whether it reads `SOLVER.MOMENTUM`.
    pub fn has_momentum(self) -> bool {
        matches!(self, Self::Sgd | Self::Nesterov | Self::RmsProp)
    }
}

impl ScheduleKind {
    /// Whether the rate falls at the stages that the config gives.
    pub fn falls(self) -> bool {
        matches!(self, Self::MultiStep | Self::Step)
    }
}
