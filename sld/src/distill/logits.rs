//! What a distiller sees of a batch.

use super::about::About;
use autograd::{DType, Tensor};

/// Both networks' logits of one batch, for all its views, and what else a loss may need.
///
/// Views are stacked: rows `0..B` are the weak augmentation of each image, rows `B..2B` the strong one,
/// as the networks compute them.
#[derive(Clone, Debug)]
pub struct Logits {
    /// `[views * B, C]`.
    pub student: Tensor,
    /// `[views * B, C]`, with no gradient into it; none for methods without a teacher.
    pub teacher: Option<Tensor>,
    /// Integer, `[B]`.
    pub labels: Tensor,
    /// What the method's [`super::Distiller::factor`] gives for the epoch; a scalar of shape `[]`.
    pub factor: Tensor,
}

impl Logits {
    /// `B`.
    pub fn batch(&self) -> usize {
        self.labels.dim(0)
    }
    /// The rows of the weak augmentation.
    pub fn weak(&self, stacked: &Tensor) -> Tensor {
        stacked.slice(0, 0, self.batch(), 1)
    }
    /// The rows of the strong augmentation.
    pub fn strong(&self, stacked: &Tensor) -> Tensor {
        stacked.slice(0, self.batch(), self.batch(), 1)
    }
    /// The labels of all rows, `[views * B]`.
    pub fn stacked_labels(&self) -> Tensor {
        let views = self.student.dim(0) / self.batch().max(1);
        Tensor::concatenate(&vec![&self.labels; views], 0)
    }

    /// The student's and the teacher's logits of the views that the method reads, if they are there and
    /// fit each other and the labels; else an invalid tensor that says what is wrong.
    pub(super) fn pair(&self, about: About) -> Result<(Tensor, Tensor), Tensor> {
        let student = self.student_rows(about)?;
        let fail = |message: &str| Err(Tensor::invalid(about.name, &[&self.student], message.into()));
        match &self.teacher {
            None => fail("needs a teacher's logits"),
            Some(teacher) if teacher.shape() != self.student.shape() => {
                let message =
                    format!("the teacher's logits {:?} and the student's differ in shape", teacher.shape());
                fail(&message)
            }
            Some(teacher) => Ok((student, teacher.detach().slice(0, 0, about.views * self.batch(), 1))),
        }
    }

    /// The student's part of [`Logits::pair`].
    pub(super) fn student_rows(&self, about: About) -> Result<Tensor, Tensor> {
        let views = about.views;
        let rows = views * self.batch();
        let fits = self.student.rank() == 2
            && self.student.dim(0) >= rows
            && self.student.dim(0).is_multiple_of(self.batch().max(1))
            && self.labels.rank() == 1
            && self.labels.dtype() == DType::I32
            && self.factor.shape().is_empty();
        if fits {
            return Ok(self.student.slice(0, 0, rows, 1));
        }
        let message = format!(
            "needs logits [{views} B, C], {views} views one after the other, integer labels [B] and a \
             scalar factor"
        );
        Err(Tensor::invalid(about.name, &[&self.student, &self.labels, &self.factor], message))
    }
}
