//! The folder of a run: who may write to it, and every file in it but the checkpoints.
//!
//! | file | what |
//! |---|---|
//! | `config.yaml` | the resolved config |
//! | `run.json` | [`RunInfo`]: names, device, sizes |
//! | `kernels.json` | how kernels are computed that were chosen by measuring |
//! | `metrics.jsonl` | [`EpochMetrics`], a line an epoch |
//! | `evaluation.json` | [`Evaluation`]: per-class accuracy and confusion at the end |
//! | `worklog.txt` | the reference's log |
//! | `events.out.tfevents.*` | for TensorBoard |
//! | `report.html` | the report |
//! | `.lock` | held while a process writes here |

mod change;
mod claim;
mod error;
mod evaluation;
mod folder;
mod lock;
mod metrics;
pub mod tensorboard;
pub mod worklog;

pub use change::Change;
pub use claim::{Claim, LATEST};
pub use error::{RunError, epochs_in_words};
pub use evaluation::{ClassAccuracy, Evaluation};
pub use folder::{ModelInfo, RunFolder, RunInfo};
pub use lock::RunLock;
pub use metrics::{
    Accuracy, BestEpoch, EpochMetrics, MetricsLog, Reached, SwapMetrics, SwapSide, TrainMetrics, best_epoch,
    exhausted, read_metrics,
};
