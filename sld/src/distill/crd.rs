//! Tian et al., *Contrastive Representation Distillation* (ICLR 2020, arXiv:1910.10699).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Drawn, Loss, Own};
use super::features::length;
use crate::random::{Purpose, Stream};
use crate::setting::{check::*, choice, settings};
use autograd::{Tensor, Variable};
use nn::initialization::Initialization;
use nn::layers::Modules;
use rayon::prelude::*;

choice! {
    /// `CRD.MODE`.
    Positive, "mode" {
        /// The image itself.
        Exact = "exact",
        /// Any image of its class.
        Relax = "relax",
    }
}

settings! {
    /// With embeddings `v` of length 1 of both networks' pooled features (linear layers, both trained with the student),
    /// a memory `M` of each network's embeddings of all `n` training images, one positive `p` and `K` negatives `k` of each
    /// image, and `c = K / n`:
    ///
    /// ```text
    /// p(v, m) = exp(v m / temperature) / Z,   Z = n times the mean of exp(..) over the first batch, for good
    /// side(v, M) = - [ log p(v, m_p) / (p(v, m_p) + c) + sum over k of log c / (p(v, m_k) + c) ], mean over images
    /// ce_weight CE(s, y) + feat_weight [ side(v_s, M_t) + side(v_t, M_s) ]
    /// ```
    ///
    /// Then `M[image] = normalised(momentum M[image] + (1 - momentum) v)`, for both.
    ///
    /// All products with the memory are made, not only those of the drawn images: a matrix product, in which those
    /// that were drawn count as often as they were.
    pub struct Crd {
        /// The positive: exact, the image itself; relax, any of its class.
        "CRD.MODE": positive: Positive = Positive::Exact;
        /// Length of an embedding.
        "CRD.FEAT.DIM": dim: u32 = 128, at_least_one;
        /// Length of the student's pooled feature.
        "CRD.FEAT.STUDENT_DIM": student_dim: u32 = 256, at_least_one;
        /// Length of the teacher's pooled feature.
        "CRD.FEAT.TEACHER_DIM": teacher_dim: u32 = 256, at_least_one;
        /// Weight of the cross entropy.
        "CRD.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the contrast.
        "CRD.LOSS.FEAT_WEIGHT": feat_weight: f64 = 0.8, not_negative;
        /// Negatives of an image.
        "CRD.NCE.K": negatives: u32 = 16384, at_least_one;
        /// Share of the memory that stays when an image is met again.
        "CRD.NCE.MOMENTUM": momentum: f64 = 0.5, fraction;
        /// Temperature.
        "CRD.NCE.TEMPERATURE": temperature: f64 = 0.07, positive;
    }
}

/// Added to what is divided by.
const EPSILON: f64 = 1e-7;

/// Names of the step's inputs: the images of the batch, their positives (both integers, `[B]`), and how often
/// each training image was drawn as a negative, `[B, n]`.
pub const INPUTS: [&str; 3] = ["crd images", "crd positives", "crd negatives"];

/// Counts of each image of `n` among the negatives `[B, K]` of a batch, `[B, n]`.
pub fn counts(negatives: &[Vec<u32>], n: usize) -> Vec<f32> {
    let mut counts = vec![0.0; negatives.len() * n];
    for (row, drawn) in counts.chunks_exact_mut(n.max(1)).zip(negatives) {
        drawn.iter().for_each(|&image| row[image as usize] += 1.0);
    }
    counts
}

/// One network's side of the contrast.
struct Side {
    /// `[B, dim]`, of length 1.
    embedding: Tensor,
    /// `[n, dim]`, of the network itself.
    memory: Variable,
}

/// What was drawn for a batch, as expressions.
struct Draws {
    images: Tensor,
    /// One-hot, `[B, n]`.
    positive: Tensor,
    /// Counts, `[B, n]`.
    negatives: Tensor,
}

impl Draws {
    fn new(batch: &Batch) -> Draws {
        let (b, n) = (batch.size(), batch.images);
        Draws {
            images: Tensor::input_i32(INPUTS[0], &[b]),
            positive: Tensor::input_i32(INPUTS[1], &[b]).one_hot(n),
            negatives: Tensor::input(INPUTS[2], &[b, n]),
        }
    }
}

impl Crd {
    fn embed(&self, name: &str, width: u32, feature: &Tensor, own: &mut Modules) -> Tensor {
        let mut layers = own.layers().drawn(Initialization::PYTORCH);
        let linear = layers.at(name).linear("linear", width as usize, self.dim as usize);
        let y = linear.forward(feature);
        &y / length(&y, &[1])
    }

    /// `M`, for each network; and `[K, temperature, Z_s, Z_t, momentum]`, of which the normalisers are negative
    /// before the first batch.
    fn remember(&self, n: usize, own: &mut Modules) -> (Variable, [Variable; 2]) {
        let mut layers = own.layers();
        let mut at = layers.at("contrast");
        let constants = [f64::from(self.negatives), self.temperature, -1.0, -1.0, self.momentum];
        let constants = constants.map(|value| value as f32).to_vec();
        let parameters = at.memory("params", &[5], |_| constants);
        let shape = [n, self.dim as usize];
        let bound = (3.0 / f64::from(self.dim)).sqrt();
        let memory = |name| at.memory(name, &shape, |draw| draw.uniform(shape[0] * shape[1], bound));
        (parameters, ["memory_v1", "memory_v2"].map(memory))
    }

    /// A side's loss: an embedding against the other network's memory. `normaliser` is what is remembered of
    /// `Z`; returned is also its value from now on.
    fn contrast(
        &self,
        own: &Modules,
        v: &Tensor,
        memory: &Variable,
        draws: &Draws,
        normaliser: &Tensor,
    ) -> (Tensor, Tensor) {
        let (b, n) = (v.dim(0), memory.shape()[0]);
        let temperature = f64::from(self.temperature as f32);
        let scores = (v.matmul(&memory.tensor().transpose()) * (1.0 / temperature)).exp();
        let Draws { positive, negatives, .. } = draws;
        let k = f64::from(self.negatives);
        let mean = (&scores * (positive + negatives)).sum_all() * (1.0 / (b as f64 * (k + 1.0)));
        let mean = own.mean_of_all(&mean.detach());
        let first = normaliser.less(&Tensor::scalar(0.0));
        let z = first.select(&(mean * n as f64), normaliser);

        let p = scores / &z;
        let c = k / n as f64;
        let all = &p + (c + EPSILON);
        let right = positive.select(&(&p / &all), &Tensor::scalar(0.0)).sum(&[1]);
        // log(c / all): the logarithm's constant apart.
        let others = (negatives * (c.ln() - all.log())).sum(&[1]);
        let loss = -(right.log() + others).mean_all();
        (loss, z)
    }

    /// The memory after the embeddings of these images were met, and of those that other processes have.
    fn renewed(&self, side: &Side, images: &Tensor, own: &Modules) -> Tensor {
        let memory = side.memory.tensor();
        let rows = images.one_hot(memory.dim(0));
        let mixed = rows.matmul(&memory) * self.momentum + side.embedding.detach() * (1.0 - self.momentum);
        let mixed = &mixed / length(&mixed, &[1]);
        let met = own.sum_of_all(&rows.sum(&[0])).reshape(&[memory.dim(0), 1]);
        met.select(&own.sum_of_all(&rows.transpose().matmul(&mixed)), &memory)
    }

    /// The positive, and the negatives: of other classes, without repetition where there are enough.
    fn draw(&self, drawn: &Drawn, image: u32, of_class: &[Vec<u32>]) -> (u32, Vec<u32>) {
        let mut random = Stream::new(drawn.seed, Purpose::Contrast, drawn.epoch, u64::from(image));
        let class = drawn.labels[image as usize];
        let own = &of_class[class as usize];
        let positive = match self.positive {
            Positive::Exact => image,
            Positive::Relax => own[random.below(own.len() as u64) as usize],
        };
        let (n, wanted) = (drawn.labels.len(), self.negatives as usize);
        let others = n - own.len();
        let repeats = wanted > others;
        let mut seen = vec![false; n];
        let mut negatives = Vec::with_capacity(wanted);
        while negatives.len() < wanted && others > 0 {
            let other = random.below(n as u64) as u32;
            if drawn.labels[other as usize] != class && (repeats || !seen[other as usize]) {
                seen[other as usize] = true;
                negatives.push(other);
            }
        }
        (positive, negatives)
    }
}

impl Distiller for Crd {
    fn about(&self) -> About {
        About {
            name: "CRD",
            title: "Contrastive representation distillation",
            knows_images: true,
            ..About::DEFAULT
        }
    }
    fn inputs(&self, drawn: &Drawn) -> Vec<(&'static str, Own)> {
        let classes = drawn.labels.iter().max().map_or(0, |&largest| largest as usize + 1);
        let mut of_class = vec![Vec::new(); classes];
        for (image, &class) in drawn.labels.iter().enumerate() {
            of_class[class as usize].push(image as u32);
        }
        let draws = drawn.indices.par_iter().map(|&image| self.draw(drawn, image, &of_class));
        let (positives, negatives): (Vec<u32>, Vec<Vec<u32>>) = draws.unzip();
        let integers = |values: &[u32]| Own::I32(values.iter().map(|&v| v as i32).collect());
        let counts = Own::F32(counts(&negatives, drawn.labels.len()));
        INPUTS.into_iter().zip([integers(drawn.indices), integers(&positives), counts]).collect()
    }
    fn equations(&self, batch: &Batch, own: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let widths = [
            (&student.pooled, self.student_dim, "CRD.FEAT.STUDENT_DIM", "student"),
            (&teacher.pooled, self.teacher_dim, "CRD.FEAT.TEACHER_DIM", "teacher"),
        ];
        for (feature, width, key, network) in widths {
            let is = feature.shape().last().copied().unwrap_or(0);
            if is != width as usize {
                let why = format!(
                    "{key} is {width}, and the {network}'s pooled feature has {is} values; set it to {is}"
                );
                return Err(batch.refuse(self.about(), why));
            }
        }
        let embedded = [
            self.embed("embed_s", self.student_dim, &student.pooled, own),
            self.embed("embed_t", self.teacher_dim, &teacher.pooled, own),
        ];
        let (parameters, [of_student, of_teacher]) = self.remember(batch.images, own);
        let [s, t] = embedded;
        let [s, t] = [Side { embedding: s, memory: of_student }, Side { embedding: t, memory: of_teacher }];

        let draws = Draws::new(batch);
        let known = parameters.tensor();
        let normaliser = |at: usize| known.slice(0, at, 1, 1).reshape(&[]);
        let (of_student, z_s) = self.contrast(own, &s.embedding, &t.memory, &draws, &normaliser(2));
        let (of_teacher, z_t) = self.contrast(own, &t.embedding, &s.memory, &draws, &normaliser(3));
        for side in [&s, &t] {
            own.remember(&side.memory, |own| self.renewed(side, &draws.images, own));
        }
        own.remember(&parameters, |_| {
            let [z_s, z_t] = [&z_s, &z_t].map(|z| z.reshape(&[1]));
            Tensor::concatenate(&[&known.slice(0, 0, 2, 1), &z_s, &z_t, &known.slice(0, 4, 1, 1)], 0)
        });
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("contrast_s", of_student * self.feat_weight),
            ("contrast_t", of_teacher * self.feat_weight),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negatives_are_of_other_classes_and_positives_of_the_own() {
        let labels: Vec<u32> = (0..60).map(|i| i % 3).collect();
        let draw = |crd: &Crd, epoch, image| {
            let mut of_class = vec![Vec::new(); 3];
            (0..60).for_each(|i| of_class[(i % 3) as usize].push(i));
            let drawn = Drawn { seed: 4, epoch, indices: &[image], labels: &labels };
            crd.draw(&drawn, image, &of_class)
        };
        let few = Crd { negatives: 40, positive: Positive::Relax, ..Crd::default() };
        let mut positives = std::collections::BTreeSet::new();
        for epoch in 0..200 {
            let (positive, mut negatives) = draw(&few, epoch, 7);
            assert!(labels[positive as usize] == 1 && negatives.iter().all(|&k| labels[k as usize] != 1));
            negatives.sort_unstable();
            negatives.dedup();
            // All forty there are, each once.
            assert_eq!(negatives.len(), 40);
            positives.insert(positive);
        }
        assert_eq!(positives.len(), 20, "any image of the class");
        // More than there are: with repetitions. The image itself is its positive.
        let many = Crd { negatives: 41, ..Crd::default() };
        let (positive, negatives) = draw(&many, 1, 7);
        assert_eq!((positive, negatives.len()), (7, 41));
        // A function of seed, epoch and image, and another one of each.
        let half = Crd { negatives: 20, ..Crd::default() };
        assert_eq!(draw(&half, 1, 7), draw(&half, 1, 7));
        assert_ne!(draw(&half, 1, 7).1, draw(&half, 2, 7).1);
        // Each is as likely as any other: 200 draws of 20 of 40.
        let mut times = [0u32; 60];
        (0..200).for_each(|epoch| draw(&half, epoch, 7).1.iter().for_each(|&k| times[k as usize] += 1));
        let others: Vec<u32> = times.into_iter().filter(|&t| t > 0).collect();
        assert!(others.len() == 40 && others.iter().all(|&t| (65..=135).contains(&t)), "{others:?}");
    }
}
