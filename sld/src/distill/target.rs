//! What the labels of a batch are made into.

use autograd::Tensor;

/// What a network's answer to each image of a batch is held against.
#[derive(Clone, Debug)]
pub struct Target {
    /// Integer, `[B]`.
    labels: Tensor,
    /// The part of each target that is spread evenly over all classes.
    smoothing: f64,
    /// Where images are mixed: the labels of what was mixed in, `[B]`, and the share of an image's own, `[]`.
    mixed: Option<[Tensor; 2]>,
}

impl From<Tensor> for Target {
    /// Of integer labels `[B]`, as they are.
    fn from(labels: Tensor) -> Target {
        Target { labels, smoothing: 0.0, mixed: None }
    }
}

impl Target {
    /// With labels smoothed ([`Tensor::smoothed_cross_entropy`]).
    pub fn smoothed(self, smoothing: f64) -> Target {
        Target { smoothing, ..self }
    }

    /// Of mixed images: `others` are the labels `[B]` of what was mixed in, `share` `[]` what an image kept of itself.
    pub fn mixed(self, others: Tensor, share: Tensor) -> Target {
        Target { mixed: Some([others, share]), ..self }
    }

    /// Whether images are mixed.
    pub fn is_mixed(&self) -> bool {
        self.mixed.is_some()
    }

    /// `B`.
    pub fn len(&self) -> usize {
        self.labels.dim(0)
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one label of each image, `[B]`; of mixed images, which have two, an invalid tensor that says so.
    pub fn labels(&self) -> Tensor {
        match self.mixed {
            None => self.labels.clone(),
            Some(_) => {
                let why = "its equations read the one label of each image, and a mixed image has two";
                Tensor::invalid("labels", &[&self.labels], why.into())
            }
        }
    }

    /// Cross entropy of each row of logits `[views B, C]`, result `[views B]`: of mixed images
    /// `share CE(s, own) + (1 - share) CE(s, other)` (Zhang et al., 2018).
    pub fn cross_entropy(&self, logits: &Tensor) -> Tensor {
        self.over_labels(logits, |labels| logits.smoothed_cross_entropy(labels, self.smoothing))
    }

    /// How right each row of logits is: 1 for a label among the `k` largest, else 0; of mixed images the share of that
    /// label.
    pub fn right(&self, logits: &Tensor, k: usize) -> Tensor {
        self.over_labels(logits, |labels| logits.top_k_correct(labels, k))
    }

    fn over_labels(&self, logits: &Tensor, of: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let views = logits.shape().first().map_or(1, |rows| rows / self.len().max(1));
        let stacked = |labels: &Tensor| match views {
            1 => of(labels),
            _ => of(&Tensor::concatenate(&vec![labels; views], 0)),
        };
        match &self.mixed {
            None => stacked(&self.labels),
            Some([others, share]) => share * stacked(&self.labels) + (1.0 - share) * stacked(others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedule::{Device, Step, Value};

    /// Of probabilities 1/7, 2/7, 4/7 the cross entropies are ln 7, ln 3.5 and ln 1.75; the rest is written out by hand.
    #[test]
    fn smoothed_labels_of_mixed_images_are_the_papers() {
        let logits = Tensor::input("logits", &[4, 3]);
        let labels = |name: &str| Tensor::input_i32(name, &[2]);
        let sharp = Target::from(labels("labels"));
        let mixed = sharp.clone().mixed(labels("others"), Tensor::input("share", &[]));
        let each = [sharp.clone(), sharp.smoothed(0.1), mixed.clone(), mixed.clone().smoothed(0.1)];
        let mut step = Step::new().output("right", &mixed.right(&logits, 1));
        for (number, target) in each.iter().enumerate() {
            step = step.output(number.to_string(), &target.cross_entropy(&logits));
        }
        let mut program = cpu::CpuDevice::new(1).compile_step(&step).unwrap();
        let row = [1.0f32, 2.0, 4.0].map(f32::ln);
        let (logits, share) = (row.repeat(4), [0.75f32]);
        // Two views of two images.
        let inputs = [
            ("logits", Value::F32(&logits)),
            ("labels", Value::I32(&[2, 0])),
            ("others", Value::I32(&[0, 1])),
            ("share", Value::F32(&share)),
        ];
        program.call(&inputs).unwrap();
        let [zero, one, two] = [7.0f64, 3.5, 1.75].map(f64::ln);
        let even = 0.1 * (zero + one + two) / 3.0;
        let wanted = [
            [two, zero],
            [0.9 * two + even, 0.9 * zero + even],
            [0.75 * two + 0.25 * zero, 0.75 * zero + 0.25 * one],
            [0.9 * (0.75 * two + 0.25 * zero) + even, 0.9 * (0.75 * zero + 0.25 * one) + even],
        ];
        for (number, wanted) in wanted.iter().enumerate() {
            let found = program.output(&number.to_string()).unwrap();
            assert_eq!(found.len(), 4);
            for (found, wanted) in found.iter().zip(wanted.iter().cycle()) {
                assert!((f64::from(*found) - wanted).abs() < 1e-6, "{number}: {found}, not {wanted}");
            }
        }
        assert_eq!(program.output("right").unwrap(), [0.75, 0.0, 0.75, 0.0]);
    }
}
