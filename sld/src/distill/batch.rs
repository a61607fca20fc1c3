//! What a distiller sees of a batch.

use super::about::About;
use super::target::Target;
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
    /// The one label of each image, integer, `[B]`: [`Target::labels`]. Cross entropy is not of these but of the
    /// target, [`Batch::cross_entropy`], which may be smoothed or of mixed images.
    pub labels: Tensor,
    /// What the method's [`super::Distiller::factor`] gives for the epoch; a scalar of shape `[]`.
    pub factor: Tensor,
    /// The number of training images.
    pub images: usize,
    target: Target,
}

impl Batch {
    /// What the networks make of `images`, and what it is held against: labels, or what was made of them.
    pub fn new(
        student: Output,
        teacher: Option<Output>,
        target: impl Into<Target>,
        factor: Tensor,
        images: usize,
    ) -> Batch {
        let target = target.into();
        Batch { student, teacher, labels: target.labels(), factor, images, target }
    }

    /// Of logits alone, without features.
    pub fn of_logits(
        student: Tensor,
        teacher: Option<Tensor>,
        target: impl Into<Target>,
        factor: Tensor,
    ) -> Batch {
        let output = |logits: Tensor| Output {
            features: Features { pooled: logits.clone(), ..Features::none() },
            logits,
        };
        let target = target.into();
        let images = target.len();
        Batch::new(output(student), teacher.map(output), target, factor, images)
    }

    /// `B`.
    pub fn size(&self) -> usize {
        self.target.len()
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
            && (self.labels.dtype() == DType::I32 || self.target.is_mixed())
            && self.factor.shape().is_empty();
        if about.knows_images && self.target.is_mixed() {
            let why = "it knows each image by its number, and a mixed image is two";
            return Err(self.refuse(about, why));
        }
        if fits {
            return Ok(logits.slice(0, 0, rows, 1));
        }
        let message = format!(
            "needs logits [{views} B, C], {views} views one after the other, integer labels [B] and a \
             scalar factor"
        );
        Err(Tensor::invalid(about.name, &[logits, &self.labels, &self.factor], message))
    }

    /// `weight` times the cross entropy of the student's logits with the target, the mean over the batch and the sum of
    /// views: the first term of every method.
    pub fn cross_entropy(&self, about: About, weight: f64) -> Result<Tensor, Tensor> {
        let each = self.target.cross_entropy(&self.student_rows(about)?);
        Ok(each.sum_all() * (1.0 / self.size() as f64) * weight)
    }

    /// The share of images whose target is among the `k` largest logits of the student's weak view.
    pub fn accuracy(&self, k: usize) -> Tensor {
        let weak = self.weak(&self.student.logits);
        self.target.right(&weak, k.min(weak.dim(1))).mean_all()
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
