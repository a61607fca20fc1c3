//! Layers, models, losses, optimizers and checkpoints.
