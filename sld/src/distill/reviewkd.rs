//! Chen, Liu, Zhao, Jia, *Distilling Knowledge via Knowledge Review* (CVPR 2021, arXiv:2104.09044).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::features::sum;
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::initialization::{Initialization, Weights};
use nn::layers::{ConvSpec, Modules, adaptive_average_pool, resize_nearest};

settings! {
    /// From the deepest feature `x_0` of the student (the pooled one) to the shallower, each stage reviews what it is
    /// handed by the one before (`f` is trained with the student, `h` compares at several sizes):
    ///
    /// ```text
    /// u_0 = in_0(x_0),   u_i = a in_i(x_i) + b resize(u_{i-1}),   [a, b] = sigmoid(attention_i(both))
    /// ce_weight CE(s, y) + reviewkd_weight min(epoch / warmup, 1) sum over i of h(out_i(u_i), t_i)
    /// ```
    ///
    /// The student's features are those after ReLU unless asked otherwise; the teacher's those before.
    pub struct ReviewKd {
        /// Weight of the cross entropy.
        "REVIEWKD.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the review.
        "REVIEWKD.REVIEWKD_WEIGHT": reviewkd_weight: f64 = 1.0, not_negative;
        /// Epochs until the review has its full weight.
        "REVIEWKD.WARMUP_EPOCHS": warmup_epochs: u32 = 20, at_least_one;
        /// Size of the maps to which what is handed on is brought, from the pooled feature to the shallowest.
        "REVIEWKD.SHAPES": shapes: Vec<u32> = vec![1, 8, 16, 32], sizes;
        /// The same, of the teacher's maps.
        "REVIEWKD.OUT_SHAPES": out_shapes: Vec<u32> = vec![1, 8, 16, 32], sizes;
        /// Channels of the student's features, from the shallowest to the pooled.
        "REVIEWKD.IN_CHANNELS": in_channels: Vec<u32> = vec![64, 128, 256, 256], sizes;
        /// The same, of the teacher's.
        "REVIEWKD.OUT_CHANNELS": out_channels: Vec<u32> = vec![64, 128, 256, 256], sizes;
        /// In the reference's files. No effect, there neither.
        "REVIEWKD.MAX_MID_CHANNEL": max_mid_channel: u32 = 512, at_least_one;
        /// Whether the student's features are those before ReLU.
        "REVIEWKD.STU_PREACT": student_before_relu: bool = false;
    }
}

/// Most channels that stages hand on.
const MOST_MID_CHANNELS: u32 = 512;

const CONVOLUTIONS: Initialization =
    Initialization { convolution: Weights::LeCunUniform, ..Initialization::PYTORCH };

/// The sizes of a comparison beside the map's own, each with half the weight of the one before.
const LEVELS: [usize; 3] = [4, 2, 1];

/// Squared distance of two maps and of their averages over ever larger cells, as a weighted mean.
fn hierarchical_distance(x: &Tensor, y: &Tensor) -> Tensor {
    let distance = |x: &Tensor, y: &Tensor| (x - y).square().mean_all();
    let (mut total, mut weights, mut weight) = (distance(x, y), 1.0, 1.0);
    for level in LEVELS.into_iter().filter(|&level| level < x.dim(1)) {
        weight /= 2.0;
        total = total + distance(&adaptive_average_pool(x, level), &adaptive_average_pool(y, level)) * weight;
        weights += weight;
    }
    total * (1.0 / weights)
}

/// One stage's channels and sizes.
struct Stage {
    /// From the pooled feature's, 0, on.
    index: usize,
    mid: usize,
    outputs: usize,
    /// Of what it is handed, and of what it compares.
    size: usize,
    out_size: usize,
}

impl Stage {
    /// What it hands on, and what it compares with the teacher's.
    fn review(&self, x: &Tensor, handed: Option<&Tensor>, own: &mut Modules) -> (Tensor, Tensor) {
        let Stage { index, mid, outputs, .. } = *self;
        let mut layers = own.layers().drawn(CONVOLUTIONS);
        let mut at = layers.at(format!("abfs.{index}"));
        let first = at.at("conv1").conv_norm("0", "1", ConvSpec::new(x.dim(3), mid, 1));
        let last = at.at("conv2").conv_norm("0", "1", ConvSpec::new(mid, outputs, 3));
        let attention = handed.map(|_| {
            let spec = ConvSpec::new(2 * mid, 2, 1).with_bias();
            at.drawn(Initialization::PYTORCH).convolution("att_conv.0", spec)
        });
        let mut u = first.forward(x, &mut own.forward);
        if let (Some(handed), Some(attention)) = (handed, attention) {
            let handed = resize_nearest(handed, self.size);
            let both = Tensor::concatenate(&[&u, &handed], 3);
            let shares = attention.forward(&both).sigmoid();
            u = u * shares.slice(3, 0, 1, 1) + handed * shares.slice(3, 1, 1, 1);
        }
        if u.dim(2) != self.out_size {
            u = resize_nearest(&u, self.out_size);
        }
        let compared = last.forward(&u, &mut own.forward);
        (u, compared)
    }
}

impl Distiller for ReviewKd {
    fn about(&self) -> About {
        // Batch norm of a pooled feature needs a second image.
        About { name: "REVIEWKD", title: "Knowledge review", smallest_batch: 2, ..About::DEFAULT }
    }
    /// The warm-up: rises to 1 over `warmup_epochs`.
    fn factor(&self, epoch: usize) -> Option<f64> {
        Some((epoch as f64 / f64::from(self.warmup_epochs)).min(1.0))
    }
    fn equations(&self, batch: &Batch, own: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let refuse = |why: String| batch.refuse(self.about(), why);
        let pooled = |x: &Tensor| x.reshape(&[x.dim(0), 1, 1, x.len() / x.dim(0).max(1)]);
        let stages = if self.student_before_relu { &student.before_relu } else { &student.stages };
        let students: Vec<Tensor> = stages.iter().cloned().chain([pooled(&student.pooled)]).rev().collect();
        let after_stem = teacher.before_relu.get(1..).unwrap_or(&[]);
        let teachers: Vec<Tensor> =
            after_stem.iter().cloned().chain([pooled(&teacher.pooled)]).rev().collect();
        let channels = |list: &[u32]| list.iter().rev().map(|&c| c as usize).collect::<Vec<_>>();
        let (inputs, outputs) = (channels(&self.in_channels), channels(&self.out_channels));
        let keys = [self.shapes.len(), self.out_shapes.len(), inputs.len(), outputs.len()];
        if keys.iter().any(|&length| length != teachers.len()) || teachers.len() > students.len() {
            return Err(refuse(format!(
                "its lists SHAPES, OUT_SHAPES, IN_CHANNELS and OUT_CHANNELS have {keys:?} entries, the teacher has {} \
                 features before a ReLU (with the pooled), the student {}",
                teachers.len(),
                students.len()
            )));
        }
        let mid = self.in_channels.last().copied().unwrap_or(1).min(MOST_MID_CHANNELS) as usize;
        let (mut handed, mut distances) = (None, Vec::new());
        for (index, (x, t)) in students.iter().zip(&teachers).enumerate() {
            let size = self.shapes[index] as usize;
            let out_size = self.out_shapes[index] as usize;
            let [of_student, of_teacher] = [x, t].map(|x| [x.dim(1), x.dim(2), x.dim(3)]);
            let fits = [
                (of_student, [size, size, inputs[index]], "SHAPES and IN_CHANNELS", "student"),
                (of_teacher, [out_size, out_size, outputs[index]], "OUT_SHAPES and OUT_CHANNELS", "teacher"),
            ];
            for (is, says, keys, network) in fits {
                if is != says {
                    return Err(refuse(format!(
                        "{keys} say {says:?} (height, width, channels) for the {network}'s feature {index} from the \
                         pooled on, which is {is:?}"
                    )));
                }
            }
            let stage = Stage { index, mid, outputs: outputs[index], size, out_size };
            let (u, compared) = stage.review(x, handed.as_ref(), own);
            distances.push(hierarchical_distance(&compared, t));
            handed = Some(u);
        }
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("review", &batch.factor * sum(distances) * self.reviewkd_weight),
        ]))
    }
}
