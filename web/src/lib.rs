//! The engine as a page's module: a teacher and its students, trained before your eyes.
//!
//! Everything here but `page` runs natively as well, and is tested there. A page cannot wait, so what needs a
//! device's answer is `async`: natively it is ready at the first poll ([`schedule::pending::wait`]).

pub mod exam;
pub mod lab;
pub mod learner;
pub mod networks;
#[cfg(target_family = "wasm")]
pub mod page;
pub mod view;
