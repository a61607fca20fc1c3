//! Hints: Romero et al., *FitNets: Hints for Thin Deep Nets* (arXiv:1412.6550).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::Features;
use nn::initialization::Initialization;
use nn::layers::{ConvSpec, Modules};

settings! {
    /// With the features `s`, `t` of one layer, the hint, and a regressor `r` from the student's shape to the
    /// teacher's (a convolution that fits, batch norm, ReLU), which is trained with the student:
    ///
    /// ```text
    /// ce_weight CE(s, y) + feat_weight mean (r(s) - t)^2
    /// ```
    pub struct FitNet {
        /// The layer: 0 is the stem, then the stages.
        "FITNET.HINT_LAYER": hint_layer: u32 = 2;
        /// Height and width of the image that the reference probes shapes with. No effect: shapes are known here.
        "FITNET.INPUT_SIZE": input_size: Vec<u32> = vec![32, 32];
        /// Weight of the cross entropy.
        "FITNET.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the hint's distance.
        "FITNET.LOSS.FEAT_WEIGHT": feat_weight: f64 = 100.0, not_negative;
    }
}

impl FitNet {
    fn hint(&self, batch: &Batch, network: &str, features: &Features) -> Result<Tensor, Tensor> {
        let layer = self.hint_layer as usize;
        features.stages.get(layer).cloned().ok_or_else(|| {
            let last = features.stages.len().saturating_sub(1);
            let why = format!("FITNET.HINT_LAYER is {layer}, and the {network}'s layers are 0 to {last}");
            batch.refuse(self.about(), why)
        })
    }

    /// The student's hint in the teacher's shape.
    fn regress(&self, batch: &Batch, s: &Tensor, t: &Tensor, own: &mut Modules) -> Result<Tensor, Tensor> {
        let (inputs, outputs, from, to) = (s.dim(3), t.dim(3), s.dim(1), t.dim(1));
        let spec = |kernel| ConvSpec::new(inputs, outputs, kernel).with_bias();
        let mut layers = own.layers().drawn(Initialization::PYTORCH);
        let mut at = layers.at("conv_reg");
        let fitted = match (from, to) {
            _ if 2 * from == to => at.transposed_convolution("conv", spec(4).stride(2).padding(1)).forward(s),
            _ if from == 2 * to => at.convolution("conv", spec(3).stride(2)).forward(s),
            _ if from >= to => at.convolution("conv", spec(1 + from - to).padding(0)).forward(s),
            _ => {
                let why = format!(
                    "no regressor goes from the student's {from}x{from} map to the teacher's {to}x{to} \
                     (layer {}): it may be as high, half as high, or higher",
                    self.hint_layer
                );
                return Err(batch.refuse(self.about(), why));
            }
        };
        let norm = at.batch_norm("bn", outputs);
        Ok(norm.forward(&fitted, &mut own.forward).relu())
    }
}

impl Distiller for FitNet {
    fn about(&self) -> About {
        About { name: "FITNET", title: "Hints (FitNet)", ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, own: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let s = self.hint(batch, "student", student)?;
        let t = self.hint(batch, "teacher", &teacher)?;
        let regressed = self.regress(batch, &s, &t, own)?;
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("hint", (regressed - t).square().mean_all() * self.feat_weight),
        ]))
    }
}
