//! Layers, models, losses, optimizers and checkpoints.

pub mod checkpoint;
