//! Training: a step written once as expressions, a loop that replays it, and snapshots that let the
//! loop go on bit for bit where it stopped.
//!
//! [`step`] writes a step's programs, [`batches`] shares a batch over them and over processes, [`evaluate`]
//! measures a network on images, [`snapshot`] moves state between files and the device, [`trainer`] is the loop.
//! How a run looks to people (progress, logs, reports) is not known here: the loop tells an [`Observer`].

pub mod alike;
pub mod batches;
mod blame;
pub mod evaluate;
mod expected;
pub mod memory;
mod networks;
mod observer;
pub mod roofline;
mod settings;
pub mod snapshot;
pub mod step;
mod team;
pub mod timing;
pub mod trainer;

pub use evaluate::{Evaluation, Evaluator, NotFinite};
pub use expected::Expected;
pub use memory::Memory;
pub use networks::{Networks, Setup};
pub use observer::{EpochResult, Observer, StepResult};
pub use settings::Settings;
pub use step::{Metric, Scalars, TrainStep};
pub use team::{RunData, Team};
pub use trainer::{Changed, Outcome, Trainer};
