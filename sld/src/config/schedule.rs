//! What changes from epoch to epoch. Epochs count from 1.

use super::{Config, DistillerKind, Solver};

impl Solver {
    /// The learning rate of an epoch: `lr * rate^n` with n the number of stages before the epoch.
    pub fn learning_rate(&self, epoch: u32) -> f64 {
        let passed = self.lr_decay_stages.iter().filter(|stage| epoch > **stage).count();
        if passed == 0 { self.lr } else { self.lr * self.lr_decay_rate.powf(passed as f64) }
    }
}

impl Config {
    /// The factor of the swapped-student term in an epoch: 1 after the gate epoch, before it 0.
    /// 0 for methods without that term.
    pub fn student_swap_gate(&self, epoch: u32) -> f64 {
        let gate = match self.distiller.kind {
            DistillerKind::Sld => self.sld.gate_epoch,
            DistillerKind::KdSwap => self.kd_swap.gate_epoch,
            _ => return 0.0,
        };
        if epoch > gate { 1.0 } else { 0.0 }
    }

    /// DKD's factor of the distillation loss in an epoch: `min(epoch / warmup, 1)`.
    pub fn dkd_warmup(&self, epoch: u32) -> f64 {
        (f64::from(epoch) / f64::from(self.dkd.warmup)).min(1.0)
    }
}
