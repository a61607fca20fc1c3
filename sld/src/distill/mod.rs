//! Distillation methods: from the two networks' logits to one loss. A file a method; each reads like
//! its paper's equations.
//!
//! Notation: batch `B`, classes `C`, student logits `s`, teacher logits `t`, label `y`, temperature `T`,
//! `softmax_T(z) = softmax(z / T)`.

mod divergence;
mod dkd;
mod kd;
mod kd_swap;
mod logits;
mod mlkd;
mod sld;
mod swap;
mod vanilla;

use autograd::Tensor;

pub use divergence::{divergence, student_swap_divergence};
pub use dkd::Dkd;
pub use kd::Kd;
pub use kd_swap::KdSwap;
pub use logits::Logits;
pub use mlkd::Mlkd;
pub use sld::Sld;
pub use swap::{Network, Observation, SwapStatistics, swap};
pub use vanilla::Vanilla;

/// A way to train a student.
pub trait Distiller: Send + Sync {
    /// The name in configs and reports.
    fn name(&self) -> &'static str;

    /// How many augmentations of each image it needs: 1 (weak) or 2 (weak and strong).
    fn views(&self) -> usize;

    /// Whether it needs a teacher.
    fn needs_teacher(&self) -> bool {
        true
    }

    /// The value of [`Logits::factor`] in an epoch (counted from 1), or `None` if the method does not
    /// change with the epoch. Being an input of the step, it lets one compiled step serve all epochs.
    fn factor(&self, _epoch: usize) -> Option<f64> {
        None
    }

    /// The loss of a batch. Logits that do not fit the method give an invalid total, whose error the
    /// step reports.
    fn loss(&self, logits: &Logits) -> Loss;
}

/// What a method makes of a batch; all scalars of shape `[]`.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Named, weighted parts, which sum to the total.
    pub terms: Vec<(&'static str, Tensor)>,
    /// What is minimised.
    pub total: Tensor,
    /// What is observed, without influence on training.
    pub observations: Vec<(Observation, Tensor)>,
}

impl Loss {
    /// The sum of weighted terms.
    fn sum(terms: Vec<(&'static str, Tensor)>) -> Loss {
        let mut parts = terms.iter().map(|term| term.1.clone());
        let first = parts.next().unwrap_or_else(|| Tensor::scalar(0.0));
        let total = parts.fold(first, |sum, part| sum + part);
        Loss { terms, total, observations: Vec::new() }
    }

    /// A loss that cannot be.
    fn invalid(total: Tensor) -> Loss {
        Loss { terms: Vec::new(), total, observations: Vec::new() }
    }
}

/// Every method's name.
pub const NAMES: [&str; 6] = ["vanilla", "KD", "KD_swap", "DKD", "MLKD", "SLD"];

/// A method with the reference's constants for CIFAR, by name in any case; `None` if there is no such
/// method.
pub fn by_name(name: &str) -> Option<Box<dyn Distiller>> {
    let known = NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
    Some(match known {
        "vanilla" => Box::new(Vanilla),
        "KD" => Box::new(Kd::default()),
        "KD_swap" => Box::new(KdSwap::default()),
        "DKD" => Box::new(Dkd::default()),
        "MLKD" => Box::new(Mlkd::default()),
        _ => Box::new(Sld::default()),
    })
}
