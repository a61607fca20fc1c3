//! What there is to look at: what the networks say of a few images, and the weights of their first layers.

use anyhow::Result;
use autograd::{Tensor, Variable};
use nn::layers::Forward;
use nn::models::Model;
use schedule::{Device, Executable, Step, Value};
use sld::data::Dataset;
use sld::distill::swap;

use crate::networks::first_layer;

/// Images to look at, at most.
const IMAGES: usize = 8;
/// Of these, images that the teacher is wrong about, at most.
const WRONG: usize = 6;
/// Filters to look at, at most.
const FILTERS: usize = 32;

/// A few images by their number in `labels`: such as are `wrong`, then others, of as many classes as can be.
pub fn choose(labels: &[u32], wrong: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    // First one of each class, then whatever there is.
    for (wanted, most, again) in
        [(true, WRONG, false), (true, WRONG, true), (false, IMAGES, false), (false, IMAGES, true)]
    {
        for image in (0..labels.len()).filter(|&image| wrong(image) == wanted) {
            let is_new = !chosen.contains(&image)
                && (again || chosen.iter().all(|&other| labels[other] != labels[image]));
            if is_new && chosen.len() < most {
                chosen.push(image);
            }
        }
    }
    chosen
}

/// A network's first layer as pictures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// Height and width of each.
    pub size: [usize; 2],
    /// RGB, one filter after the other: grey is 0, the brightest and the darkest are the largest weights of all.
    pub weights: Vec<u8>,
    /// The same of what training has changed of them.
    pub changes: Vec<u8>,
}

/// A few images and the networks that look at them, compiled together.
pub struct View {
    executable: Box<dyn Executable>,
    images: Dataset,
    inputs: Vec<f32>,
    labels: Vec<i32>,
    first: Vec<Variable>,
    /// Of each network the probabilities `[images][classes]` and first layer at the last look.
    pub probabilities: Vec<Vec<Vec<f32>>>,
    /// See `probabilities`.
    pub filters: Vec<Filters>,
    /// The first network's, the teacher's, after the swap.
    pub swapped: Vec<Vec<f32>>,
}

impl View {
    /// Of the first of `models`, the teacher, also what the swap makes of it.
    pub fn new(device: &dyn Device, models: &[&Model], images: Dataset) -> Result<View> {
        let shape = [images.len(), images.height(), images.width(), 3];
        let input = Tensor::input("images", &shape);
        let labels = Tensor::input_i32("labels", &shape[..1]);
        let mut step = Step::new();
        let mut first = Vec::new();
        for (number, model) in models.iter().enumerate() {
            let logits = model.forward(&input, &mut Forward::eval()).logits;
            step = step.output(format!("probabilities {number}"), &logits.softmax(1));
            if number == 0 {
                step = step.output("swapped", &swap(&logits, &labels).softmax(1));
            }
            if let Some(weights) = first_layer(model) {
                step = step.output(format!("weights {number}"), &weights.tensor());
                first.push(weights);
            }
        }
        let executable = device.compile_step(&step)?;
        let table = images.normalization().table();
        let mut inputs = vec![0.0; shape.iter().product()];
        table.apply(images.images(), &mut inputs);
        let labels = images.labels().iter().map(|&label| label as i32).collect();
        let (probabilities, filters, swapped) = (vec![], vec![], vec![]);
        Ok(View { executable, images, inputs, labels, first, probabilities, filters, swapped })
    }

    /// The images.
    pub fn images(&self) -> &Dataset {
        &self.images
    }

    /// Looks again.
    pub async fn look(&mut self) -> Result<()> {
        self.executable
            .call(&[("images", Value::F32(&self.inputs)), ("labels", Value::I32(&self.labels))])?;
        let classes = self.images.classes().len();
        let rows = |values: Vec<f32>| values.chunks_exact(classes).map(<[f32]>::to_vec).collect();
        self.swapped = rows(self.executable.output_async("swapped").await?);
        (self.probabilities, self.filters) = (vec![], vec![]);
        for (number, first) in self.first.iter().enumerate() {
            let said = self.executable.output_async(&format!("probabilities {number}")).await?;
            self.probabilities.push(rows(said));
            let weights = self.executable.output_async(&format!("weights {number}")).await?;
            let changes: Vec<f32> =
                weights.iter().zip(first.initial()).map(|(now, then)| now - then).collect();
            let side = self.images.height();
            let (size, weights) = pictures(first.shape(), side, &weights);
            let (_, changes) = pictures(first.shape(), side, &changes);
            self.filters.push(Filters { size, weights, changes });
        }
        Ok(())
    }
}

/// Height, width and pixels of the weights `[filters, 3, height, width]` of a convolution or
/// `[filters, height * width * 3]` of a perceptron.
fn pictures(shape: &[usize], side: usize, weights: &[f32]) -> ([usize; 2], Vec<u8>) {
    let largest = weights.iter().fold(f32::MIN_POSITIVE, |largest, weight| largest.max(weight.abs()));
    let byte = |weight: f32| (127.5 + 127.5 * weight / largest).round() as u8;
    let each: usize = shape[1..].iter().product();
    let kept = weights.chunks_exact(each).take(FILTERS);
    match shape {
        &[_, channels, height, width] => {
            let pixel = |filter: &[f32], at: usize| filter[at % channels * height * width + at / channels];
            let interleaved =
                |filter: &[f32]| (0..each).map(|at| byte(pixel(filter, at))).collect::<Vec<_>>();
            ([height, width], kept.flat_map(interleaved).collect())
        }
        _ => ([side, each / side / 3], kept.flatten().map(|&weight| byte(weight)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_come_first_and_no_image_twice() {
        let labels: Vec<u32> = (0..40).map(|image| image % 4).collect();
        let wrong = |image: usize| image >= 20 && image < 29;
        assert_eq!(choose(&labels, wrong), [20, 21, 22, 23, 24, 25, 0, 1]);
        assert_eq!(choose(&labels, |_| false), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(choose(&labels[..3], |image| image == 2), [2, 0, 1]);
    }

    #[test]
    fn filters_are_pictures_with_interleaved_colours() {
        // One filter of 1 x 2 pixels: red -1 and 0, green 1 and 0, blue 0.5 and 0.
        let filters = pictures(&[1, 3, 1, 2], 32, &[-1.0, 0.0, 1.0, 0.0, 0.5, 0.0]);
        assert_eq!(filters, ([1, 2], vec![0, 255, 191, 128, 128, 128]));
        let filters = pictures(&[1, 6], 1, &[-1.0, 1.0, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!(filters, ([1, 2], vec![0, 255, 191, 128, 128, 128]));
    }
}
