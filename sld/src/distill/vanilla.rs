//! Training without a teacher: cross entropy.

use super::{Distiller, Logits, Loss};

/// `CE(s, y)`, on the weak view.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vanilla;

impl Distiller for Vanilla {
    fn name(&self) -> &'static str {
        "vanilla"
    }
    fn views(&self) -> usize {
        1
    }
    fn needs_teacher(&self) -> bool {
        false
    }
    fn loss(&self, logits: &Logits) -> Loss {
        match logits.student_rows("vanilla", 1) {
            Ok(s) => Loss::sum(vec![("ce", nn::loss::cross_entropy(&s, &logits.labels))]),
            Err(error) => Loss::invalid(error),
        }
    }
}
