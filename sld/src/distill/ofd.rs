//! Heo et al., *A Comprehensive Overhaul of Feature Distillation* (arXiv:1904.01866).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::features::sum;
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::initialization::{Biases, Initialization, Weights};
use nn::layers::{ConvSpec, Modules, adaptive_average_pool};

settings! {
    /// With the features before a stage's last ReLU, a connector `z` (convolution and batch norm, trained with the
    /// student) of the student's, `t` the teacher's, and for each channel the margin `m`, the mean of the negative part
    /// of what the teacher's batch norm gives:
    ///
    /// ```text
    /// d(z, t) = (z - max(t, m))^2 where t > 0 or z > max(t, m), else 0
    /// ce_weight CE(s, y) + feat_weight sum over stages i of n [ sum d(z, t) / (B 2^(n-1-i)) ]
    /// ```
    ///
    /// The teacher normalises with batch statistics while it teaches, as in the published code, and its running
    /// statistics follow. Stages are paired from the last on.
    pub struct Ofd {
        /// Weight of the cross entropy.
        "OFD.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the features' distance, which is a sum over channels and positions.
        "OFD.LOSS.FEAT_WEIGHT": feat_weight: f64 = 0.001, not_negative;
        /// Height and width of the connectors' kernels; odd, so that maps keep their size.
        "OFD.CONNECTOR.KERNEL_SIZE": kernel_size: u32 = 1, odd;
    }
}

const CONNECTOR: Initialization = Initialization {
    convolution: Weights::NormalFanOut,
    convolution_bias: Biases::Zero,
    linear: Weights::UniformFanIn,
    linear_bias: Biases::UniformFanIn,
};

/// Negative values of a channel whose mean is so many deviations above 0 are one in a thousand: of rarer ones
/// the margin is a bound.
const RARE: f64 = 3.090_232_306_167_814;

/// The margin of each channel, from scale and shift of its batch norm: with `X = N(shift, scale^2)` the mean of
/// `X` given `X < 0`, or `-3 scale` where that is rare. Depends on the teacher's parameters alone.
pub fn margin(scale: &Tensor, shift: &Tensor) -> Tensor {
    let scale = scale.abs();
    let x = shift / &scale;
    // The mean is shift - scale f(x) / F(-x), with the normal density f and its integral F.
    let mean = shift - &scale * mills_ratio(&x).reciprocal();
    x.less(&Tensor::scalar(RARE)).select(&mean, &(scale * -3.0))
}

/// `F(-x) / f(x)`, as the integral of `exp(-x u - u^2 / 2)` over `u > 0`, by Simpson's rule. Nothing
/// cancels in it, so it has all of `f32`'s digits.
fn mills_ratio(x: &Tensor) -> Tensor {
    const STEPS: usize = 2048;
    // The integrand's peak is at -x. Beyond 6 deviations the ratio is so large that the margin is the shift.
    let x = x.maximum(&Tensor::scalar(-6.0)).reshape(&[x.len(), 1]);
    let step = 14.0 / STEPS as f64;
    let weights = (0..=STEPS).map(|i| match i {
        0 | STEPS => 1.0,
        odd if odd % 2 == 1 => 4.0,
        _ => 2.0,
    });
    let weights = Tensor::constant(&[1, STEPS + 1], weights.collect());
    let u = Tensor::iota(&[1, STEPS + 1], 1).float() * step;
    let integrand = (-(&u * (x + &u * 0.5))).exp();
    let integral = (integrand * weights).sum(&[1]) * (step / 3.0);
    integral.reshape(&[integral.len()])
}

impl Ofd {
    /// The student's features of a stage in the teacher's channels.
    fn connect(&self, stage: usize, s: &Tensor, channels: usize, own: &mut Modules) -> Tensor {
        let mut layers = own.layers().drawn(CONNECTOR);
        let spec = ConvSpec::new(s.dim(3), channels, self.kernel_size as usize);
        let connector = layers.at(format!("connectors.connectors.{stage}")).conv_norm("0", "1", spec);
        connector.forward(s, &mut own.forward)
    }
}

/// The sum of `d(z, t)`; margins `[C]`.
fn partial_distance(z: &Tensor, t: &Tensor, margin: &Tensor) -> Tensor {
    let target = t.maximum(margin);
    let zero = Tensor::scalar(0.0);
    let counts = zero.less(t).maximum(&target.less(z));
    counts.select(&(z - target).square(), &zero).sum_all()
}

impl Distiller for Ofd {
    fn about(&self) -> About {
        About {
            name: "OFD",
            title: "Overhaul of feature distillation",
            teacher_in_training: true,
            ..About::DEFAULT
        }
    }
    fn equations(&self, batch: &Batch, own: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let stages = |all: &[Tensor]| all.get(1..).unwrap_or(&[]).to_vec();
        let [of_student, of_teacher] = [student, &teacher].map(|features| stages(&features.before_relu));
        let n = of_student.len().min(of_teacher.len());
        if n == 0 {
            let lacking = if of_student.is_empty() { "student" } else { "teacher" };
            return Err(batch.refuse(self.about(), format!("the {lacking}'s stages do not end with a ReLU")));
        }
        if teacher.norms.len() < n {
            let why = "the teacher has no batch norm before the last ReLU of each stage";
            return Err(batch.refuse(self.about(), why));
        }
        let last = |all: &[Tensor]| all[all.len() - n..].to_vec();
        let norms = &teacher.norms[teacher.norms.len() - n..];
        let pairs = last(&of_student).into_iter().zip(last(&of_teacher)).zip(norms);
        let distances = pairs.enumerate().map(|(i, ((s, t), (scale, shift)))| {
            let z = self.connect(i, &s, t.dim(3), own);
            let t = adaptive_average_pool(&t, z.dim(1));
            let weight = 1.0 / (batch.size() as f64 * f64::from(1u32 << (n - 1 - i)));
            partial_distance(&z, &t, &margin(scale, shift)) * weight
        });
        let distance = sum(distances.collect::<Vec<_>>());
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("distance", distance * self.feat_weight),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_lies_one_in_a_thousand() -> autograd::Result<()> {
        let ratio = mills_ratio(&Tensor::constant(&[1], vec![RARE as f32])).evaluate()?[0];
        let density = (-0.5 * RARE * RARE).exp() / std::f64::consts::TAU.sqrt();
        assert!((ratio * density - 0.001).abs() < 1e-9, "{}", ratio * density);
        Ok(())
    }
}
