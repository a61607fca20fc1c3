//! Lee et al., *Self-supervised Knowledge Distillation Using Singular Value Decomposition* (arXiv:1807.06819).

use super::about::About;
use super::batch::Batch;
use super::distiller::{Distiller, Loss};
use super::eigen::{eigen, follow, largest};
use super::features::{length, sum};
use crate::setting::{check::*, settings};
use autograd::Tensor;
use nn::layers::Modules;

settings! {
    /// Each image's features of a stage are a matrix of `C H` rows and `W` columns; `v` are its first `K` right singular
    /// vectors, weighted with the teacher's singular values (divided by their length). A student's vector is the one of
    /// its first `K + 3` that is most nearly parallel to the teacher's, turned to its side. With, from stage to stage,
    ///
    /// ```text
    /// R_i[w, u] = exp(-(v_i[w] - v_{i-1}[u])^2 / 8)
    /// ce_weight CE(s, y) + feat_weight sum over stages of |R(s) - R(t)|^2 / B
    /// ```
    ///
    /// A decomposition leaves the vectors' signs open, and the loss depends on the teacher's: here their sums are not
    /// positive, as LAPACK mostly gives them for features that are not negative.
    pub struct Kdsvd {
        /// Vectors of each stage.
        "KDSVD.K": vectors: u32 = 1, at_least_one;
        /// Weight of the cross entropy.
        "KDSVD.LOSS.CE_WEIGHT": ce_weight: f64 = 1.0, not_negative;
        /// Weight of the relations' distance.
        "KDSVD.LOSS.FEAT_WEIGHT": feat_weight: f64 = 1.0, not_negative;
    }
}

/// How many more of the student's vectors are looked at than of the teacher's.
const MORE: usize = 3;

/// Both networks' vectors of one stage, `[B, W, K]`, weighted; and nothing flows into the teacher's.
#[derive(Clone)]
pub struct Vectors {
    /// With the signs of the teacher's.
    pub student: Tensor,
    /// With the signs that they are to have.
    pub teacher: Tensor,
}

/// `X' X` of each image, `[B, W, W]`, divided by its trace, which is no variable here: it changes no vector.
fn products(x: &Tensor) -> Tensor {
    let [b, h, w, c] = [0, 1, 2, 3].map(|axis| x.dim(axis));
    let rows = x.permute(&[0, 1, 3, 2]).reshape(&[b, h * c, w]);
    let trace = rows.square().sum(&[1, 2]).detach();
    let none = trace.equal(&Tensor::scalar(0.0));
    rows.transpose().matmul(&rows) / none.select(&Tensor::scalar(1.0), &trace)
}

impl Vectors {
    /// Of features `[B, H, W, C]` with equal widths. `signs` gives the teacher's vectors the signs they are to have, from
    /// their own, `[B, W, K]`.
    pub fn new(student: &Tensor, teacher: &Tensor, k: usize, signs: impl Fn(&Tensor) -> Tensor) -> Vectors {
        let (b, w) = (student.dim(0), student.dim(2));
        let (products_s, products_t) = (products(student), products(teacher));
        // One decomposition of both networks' matrices.
        let both = Tensor::concatenate(&[&products_s.detach(), &products_t.detach()], 0);
        let (values, vectors) = eigen(&both);
        let (values, vectors) = (values.detach(), vectors.detach());
        let of = |x: &Tensor, side: usize| x.slice(0, side * b, b, 1);
        let (teachers, squares) = largest(&of(&values, 1), &of(&vectors, 1), k.min(w));
        let teachers = &teachers * signs(&teachers);
        let singular = squares.maximum(&Tensor::scalar(0.0)).sqrt();
        let weights = (&singular / length(&singular, &[1]).maximum(&Tensor::scalar(1e-30))).unsqueeze(1);

        let (all_values, all_vectors) = (of(&values, 0), of(&vectors, 0));
        let (columns, found) = largest(&all_values, &all_vectors, (k + MORE).min(w));
        // [B, K + 3, K].
        let cosines = columns.transpose().matmul(&teachers).detach();
        let sizes = cosines.abs();
        let chosen = sizes.equal(&sizes.max(1)) * cosines.sign();
        let students = follow(&products_s, (&all_values, &all_vectors), (&columns, &found));
        Vectors { student: students.matmul(&chosen) * &weights, teacher: (teachers * weights).detach() }
    }
}

/// -1 for vectors whose sum is positive, else 1.
pub fn not_positive(vectors: &Tensor) -> Tensor {
    let one = Tensor::scalar(1.0);
    Tensor::scalar(0.0).less(&vectors.sum(&[1])).select(&-&one, &one)
}

/// `v_i[w] - v_{i-1}[u]`, `[B, W, U, K]`.
fn differences(v: &Tensor, before: &Tensor) -> Tensor {
    v.unsqueeze(2) - before.unsqueeze(1)
}

/// `e^x - 1` for `|x| < 1/2`, with all of its own digits.
fn exp_minus_one(x: &Tensor) -> Tensor {
    // The series, from the inside out: x (1 + x/2 (1 + x/3 (..))).
    let inner = (2..=10).rev().fold(Tensor::scalar(1.0), |sum, k| sum * x * (1.0 / f64::from(k)) + 1.0);
    x * inner
}

/// `sum over stages of |R(s) - R(t)|^2 / B`. The relations are alike: what they differ by is made without
/// their difference. Vectors are at most 1 long, so that no exponent's difference is over 1/2.
pub fn distance(stages: &[Vectors]) -> Tensor {
    let distance = stages.windows(2).map(|pair| {
        let [before, stage] = pair else { unreachable!("windows of two") };
        let s = differences(&stage.student, &before.student);
        let t = differences(&stage.teacher, &before.teacher);
        let relation = (t.square() * (-1.0 / 8.0)).exp();
        let exponent = (&t - &s) * (&t + &s) * (1.0 / 8.0);
        (relation * exp_minus_one(&exponent)).square().sum_all() * (1.0 / stage.student.dim(0) as f64)
    });
    sum(distance)
}

impl Distiller for Kdsvd {
    fn about(&self) -> About {
        About { name: "KDSVD", title: "Singular value decomposition", ..About::DEFAULT }
    }
    fn equations(&self, batch: &Batch, _: &mut Modules) -> Result<Loss, Tensor> {
        let (student, teacher) = batch.features(self.about())?;
        let pairs: Vec<(&Tensor, &Tensor)> = student.stages.iter().zip(&teacher.stages).skip(1).collect();
        if let Some((i, (s, t))) =
            pairs.iter().enumerate().find(|(_, (s, t))| s.dim(2) != t.dim(2) || s.dim(2) < 2)
        {
            let why = format!(
                "the maps of a layer must be equally wide, at least 2; in layer {} the student's are {} and the \
                 teacher's {}",
                i + 1,
                s.dim(2),
                t.dim(2)
            );
            return Err(batch.refuse(self.about(), why));
        }
        let vectors = |(s, t): &(&Tensor, &Tensor)| Vectors::new(s, t, self.vectors as usize, not_positive);
        let stages: Vec<Vectors> = pairs.iter().map(vectors).collect();
        Ok(Loss::sum(vec![
            ("ce", batch.cross_entropy(self.about(), self.ce_weight)?),
            ("relations", distance(&stages) * self.feat_weight),
        ]))
    }
}
