//! What happens in a run, as charts mark it.

/// An epoch from which on something is different.
#[derive(Clone)]
pub struct Event {
    pub epoch: f64,
    pub name: String,
    /// Whether the student's own swap is in the loss from here on: the ground is tinted.
    pub gate: bool,
}
