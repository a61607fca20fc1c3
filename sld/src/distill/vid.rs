//! Ahn et al., *Variational Information Distillation for Knowledge Transfer* (arXiv:1904.05835).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::features::{matched_stages, sum};
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::initialization::Initialization;
use nn::layers::{ConvSpec, Modules};

settings! {
    /// A Gaussian of the teacher's features around a regressor `m` (three 1x1 convolutions, trained with the student) of
    /// the student's, with variance `v`:
    ///
    /// ```text
    /// ce_weight CE(s, y) + feat_weight sum over stages of mean [ (m(s) - t)^2 / v + log v ] / 2
    /// ```
    ///
    /// In the published code `v` is not learned, so it stays at its first value, the key's: what of it is `VID.EPS` and
    /// what would be learned makes no difference. Of two maps the larger is pooled to
    /// the other's height first.
    pub struct Vid {
        /// The part of the variance that could not be learned. No effect: none of it is.
        "VID.EPS": epsilon: f64 = 1e-5, not_negative;
        /// The variance.
        "VID.INIT_PRED_VAR": variance: f64 = 5.0, positive;
        /// Height and width of the image that the reference probes shapes with. No effect: shapes are known here.
        "VID.INPUT_SIZE": input_size: Vec<u32> = vec![32, 32];
        /// Weight of the cross entropy.
        "VID.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the features' likelihood.
        "VID.LOSS.FEAT_WEIGHT": feat_weight: f64 = 1.0, not_negative;
    }
}

/// The student's features in the teacher's number of channels.
fn regress(stage: usize, s: &Tensor, channels: usize, own: &mut Modules) -> Tensor {
    let mut layers = own.layers().drawn(Initialization::PYTORCH);
    let mut at = layers.at(format!("regressors.{stage}"));
    let mut convolution =
        |name, x: &Tensor| at.convolution(name, ConvSpec::new(x.dim(3), channels, 1)).forward(x);
    let hidden = convolution("0", s).relu();
    let hidden = convolution("2", &hidden).relu();
    convolution("4", &hidden)
}

impl Distiller for Vid {
    fn about(&self) -> About {
        About { name: "VID", title: "Variational information distillation", ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, own: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let [of_student, of_teacher] = [student, &teacher].map(|features| features.stages.len());
        if of_student > of_teacher {
            let why = format!(
                "the student has {of_student} layers and the teacher {of_teacher}: each of the student's needs one"
            );
            return Err(batch.refuse(self.about(), why));
        }
        let v = self.variance;
        let stages = matched_stages(student, &teacher).into_iter().enumerate();
        let surprise = stages.map(|(stage, (s, t))| {
            let error = regress(stage, &s, t.dim(3), own) - t;
            (error.square() * (1.0 / v) + v.ln()).mean_all() * 0.5
        });
        let surprise = sum(surprise.collect::<Vec<_>>());
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("likelihood", surprise * self.feat_weight),
        ]))
    }
}
