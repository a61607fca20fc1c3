//! What a distiller sees of a batch.

use super::about::About;
use autograd::{DType, Tensor};
use nn::{Features, Output};

/// What both networks make of one batch, for all its views, and what else a loss may need.
///
/// Views are stacked: rows `0..B` are the weak augmentation of each image, rows `B..2B` the strong one,
/// as the networks compute them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Logits `[views * B, C]`, and features.
    pub student: Output,
    /// The same, with no gradient into it; none for methods without a teacher.
    pub teacher: Option<Output>,
    /// Integer, `[B]`.
    pub labels: Tensor,
    /// What the method's [`super::Distiller::factor`] gives for the epoch; a scalar of shape `[]`.
    pub factor: Tensor,
    /// The number of training images.
    pub images: usize,
}

impl Batch {
    /// Of logits alone, without features.
    pub fn of_logits(student: Tensor, teacher: Option<Tensor>, labels: Tensor, factor: Tensor) -> Batch {
        let output = |logits: Tensor| Output {
            features: Features { pooled: logits.clone(), ..Features::none() },
            logits,
        };
        let images = labels.len();
        Batch { student: output(student), teacher: teacher.map(output), labels, factor, images }
    }

    /// `B`.
    pub fn size(&self) -> usize {
        self.labels.dim(0)
    }
    /// The rows of the weak augmentation.
    pub fn weak(&self, stacked: &Tensor) -> Tensor {
        stacked.slice(0, 0, self.size(), 1)
    }
    /// The rows of the strong augmentation.
    pub fn strong(&self, stacked: &Tensor) -> Tensor {
        stacked.slice(0, self.size(), self.size(), 1)
    }
    /// The labels of all rows, `[views * B]`.
    pub fn stacked_labels(&self) -> Tensor {
        let views = self.student.logits.dim(0) / self.size().max(1);
        Tensor::concatenate(&vec![&self.labels; views], 0)
    }

    /// The student's and the teacher's logits of the views that the method reads, if they are there and
    /// fit each other and the labels; else an invalid tensor that says what is wrong.
    pub fn pair(&self, about: About) -> Result<(Tensor, Tensor), Tensor> {
        let student = self.student_rows(about)?;
        let teacher = &self.teacher(about)?.logits;
        if teacher.shape() != self.student.logits.shape() {
            let shape = teacher.shape();
            let message = format!("the teacher's logits {shape:?} and the student's differ in shape");
            return Err(self.refuse(about, message));
        }
        Ok((student, teacher.detach().slice(0, 0, about.views * self.size(), 1)))
    }

    /// The student's part of [`Batch::pair`].
    pub fn student_rows(&self, about: About) -> Result<Tensor, Tensor> {
        let (views, logits) = (about.views, &self.student.logits);
        let rows = views * self.size();
        let fits = logits.rank() == 2
            && logits.dim(0) >= rows
            && logits.dim(0).is_multiple_of(self.size().max(1))
            && self.labels.rank() == 1
            && self.labels.dtype() == DType::I32
            && self.factor.shape().is_empty();
        if fits {
            return Ok(logits.slice(0, 0, rows, 1));
        }
        let message = format!(
            "needs logits [{views} B, C], {views} views one after the other, integer labels [B] and a \
             scalar factor"
        );
        Err(Tensor::invalid(about.name, &[logits, &self.labels, &self.factor], message))
    }

    /// `weight` times the cross entropy of the student's logits: the first term of every method that reads
    /// features.
    pub fn cross_entropy(&self, about: About, weight: f64) -> Result<Tensor, Tensor> {
        Ok(nn::loss::cross_entropy(&self.student_rows(about)?, &self.labels) * weight)
    }

    /// Both networks' features; no gradient flows into the teacher's.
    pub fn features(&self, about: About) -> Result<(&Features, Features), Tensor> {
        self.student_rows(about)?;
        Ok((&self.student.features, self.teacher(about)?.features.detach()))
    }

    fn teacher(&self, about: About) -> Result<&Output, Tensor> {
        self.teacher.as_ref().ok_or_else(|| self.refuse(about, "needs a teacher's logits"))
    }

    /// The invalid tensor of a method that cannot take these networks, and why.
    pub fn refuse(&self, about: About, why: impl Into<String>) -> Tensor {
        Tensor::invalid(about.name, &[&self.student.logits], why.into())
    }
}
