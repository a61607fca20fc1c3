//! Holding out training images, so that nothing need be chosen on the test set.

use super::{DataError, Dataset};
use crate::random::{Purpose, Stream};

/// Splits `dataset` into (kept, held out): of every class, `fraction` of its images (rounded to nearest)
/// is held out, chosen by `seed`. Both parts keep the images' order.
///
/// # Errors
/// If `fraction` is not in (0, 1), or one part would be empty.
pub fn hold_out(dataset: &Dataset, fraction: f64, seed: u64) -> Result<(Dataset, Dataset), DataError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        let message =
            format!("the held-out fraction must lie between 0 and 1, both excluded; it is {fraction}");
        return Err(DataError::Setting(message));
    }
    let mut by_class = vec![Vec::new(); dataset.classes().len()];
    for (index, &label) in dataset.labels().iter().enumerate() {
        by_class[label as usize].push(index);
    }
    let mut held = vec![false; dataset.len()];
    for (class, indices) in by_class.iter_mut().enumerate() {
        Stream::new(seed, Purpose::Split, class as u64, 0).shuffle(indices);
        let count = (indices.len() as f64 * fraction).round() as usize;
        indices[..count].iter().for_each(|&index| held[index] = true);
    }
    let (out, kept): (Vec<usize>, Vec<usize>) = (0..dataset.len()).partition(|&index| held[index]);
    if out.is_empty() || kept.is_empty() {
        let message = format!(
            "holding out the fraction {fraction} of {} images in {} classes leaves {} to train on and {} held \
             out; choose another fraction",
            dataset.len(),
            dataset.classes().len(),
            kept.len(),
            out.len()
        );
        return Err(DataError::Setting(message));
    }
    let name = dataset.name();
    Ok((dataset.subset(name, &kept), dataset.subset(format!("{name}, held out"), &out)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::Normalization;

    fn numbered(labels: Vec<u32>, classes: usize) -> Dataset {
        let images = (0..labels.len()).flat_map(|i| [i as u8, (i >> 8) as u8, 0]).collect();
        let names = (0..classes).map(|c| c.to_string()).collect();
        Dataset::new("numbered", (1, 1), images, labels, names, Normalization::CIFAR10).unwrap()
    }

    #[test]
    fn every_class_gives_its_share_and_nothing_is_lost() {
        let labels: Vec<u32> = (0..600).map(|i| if i < 300 { 0 } else { 1 + i % 3 }).collect();
        let whole = numbered(labels, 4);
        let (kept, held) = hold_out(&whole, 0.1, 5).unwrap();
        let count = |d: &Dataset, class| d.labels().iter().filter(|&&label| label == class).count();
        assert_eq!((0..4).map(|c| count(&held, c)).collect::<Vec<_>>(), [30, 10, 10, 10]);
        let mut all: Vec<(&[u8], u32)> = Vec::new();
        for part in [&kept, &held] {
            all.extend((0..part.len()).map(|i| (part.image(i), part.labels()[i])));
        }
        all.sort_by_key(|(image, _)| (image[1], image[0]));
        let expected: Vec<_> = (0..600).map(|i| (whole.image(i), whole.labels()[i])).collect();
        assert_eq!(all, expected);
        assert_eq!(hold_out(&whole, 0.1, 5).unwrap(), (kept, held.clone()));
        assert_ne!(hold_out(&whole, 0.1, 6).unwrap().1, held, "the seed chooses");
    }

    #[test]
    fn impossible_fractions_are_errors() {
        let whole = numbered(vec![0, 1, 0, 1], 2);
        for fraction in [0.0, 1.0, -0.1, 1.5, f64::NAN, 0.01, 0.99] {
            let error = hold_out(&whole, fraction, 0).unwrap_err().to_string();
            assert!(error.contains("fraction"), "{error}");
        }
    }
}
