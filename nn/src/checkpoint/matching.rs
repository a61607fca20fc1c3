//! Whether a checkpoint's tensors are those of a model, and if not, what differs.

use std::collections::HashMap;
use std::fmt;

use super::tensor::NamedTensor;

/// A model's tensors: names and shapes, in the model's order.
pub type Manifest = [(String, Vec<usize>)];

/// A tensor whose shape is not the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshapen {
    /// Its name.
    pub name: String,
    /// The shape that the model has.
    pub expected: Vec<usize>,
    /// The shape in the checkpoint.
    pub found: Vec<usize>,
}

/// Why a checkpoint's tensors do not fit a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// In the model, not in the checkpoint: name and shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// In the checkpoint, not in the model: name and shape.
    pub unexpected: Vec<(String, Vec<usize>)>,
    /// In both with different shapes.
    pub misshapen: Vec<Misshapen>,
    /// The model that comes nearest, if a search was made (see [`Mismatch::with_nearest`]).
    pub nearest: Option<Nearest>,
}

/// The known model whose tensors come nearest to a checkpoint's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The model's name.
    pub model: String,
    /// How many tensors are missing, unexpected or of another shape: 0 if it fits.
    pub differences: usize,
}

/// Finds each tensor of `expected` among `tensors`.
///
/// On success there is one entry for each of `expected`, in its order: the tensor, or `None` for a batch
/// norm's `num_batches_tracked`, which files from before PyTorch 0.4.1 lack (it then starts at 0). Tensors
/// are matched by name; order does not matter. Element types are not compared.
pub fn match_names<'a>(
    expected: &Manifest,
    tensors: &'a [NamedTensor],
) -> Result<Vec<Option<&'a NamedTensor>>, Mismatch> {
    let mut left: HashMap<&str, &NamedTensor> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut mismatch = Mismatch::default();
    let mut matched = Vec::with_capacity(expected.len());
    for (name, shape) in expected {
        let found = left.remove(name.as_str());
        match found {
            Some(tensor) if tensor.shape != *shape => mismatch.misshapen.push(Misshapen {
                name: name.clone(),
                expected: shape.clone(),
                found: tensor.shape.clone(),
            }),
            None if !may_be_absent(name) => mismatch.missing.push((name.clone(), shape.clone())),
            _ => {}
        }
        matched.push(found);
    }
    // In file order, each name once.
    mismatch.unexpected = tensors
        .iter()
        .filter(|tensor| left.remove(tensor.name.as_str()).is_some())
        .map(|tensor| (tensor.name.clone(), tensor.shape.clone()))
        .collect();
    if mismatch.differences() == 0 { Ok(matched) } else { Err(mismatch) }
}

fn may_be_absent(name: &str) -> bool {
    name.rsplit('.').next() == Some("num_batches_tracked")
}

/// The model among `models` (name, manifest) that differs from `tensors` in the fewest tensors; the first
/// of several, `None` if `models` is empty or no model shares a tensor's name with the checkpoint.
pub fn nearest_model<'a>(
    tensors: &[NamedTensor],
    models: impl IntoIterator<Item = (&'a str, &'a Manifest)>,
) -> Option<Nearest> {
    models
        .into_iter()
        .filter_map(|(model, manifest)| {
            let differences = match match_names(manifest, tensors) {
                Ok(_) => 0,
                Err(mismatch) if mismatch.missing.len() == manifest.len() => return None,
                Err(mismatch) => mismatch.differences(),
            };
            Some(Nearest { model: model.to_owned(), differences })
        })
        .min_by_key(|nearest| nearest.differences)
}

impl Mismatch {
    /// How many tensors are missing, unexpected or of another shape.
    pub fn differences(&self) -> usize {
        self.missing.len() + self.unexpected.len() + self.misshapen.len()
    }

    /// Looks for the nearest of `models`, so that the message can name it.
    pub fn with_nearest<'a>(
        mut self,
        tensors: &[NamedTensor],
        models: impl IntoIterator<Item = (&'a str, &'a Manifest)>,
    ) -> Self {
        self.nearest = nearest_model(tensors, models);
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the checkpoint's tensors are not the model's")?;
        list(f, "missing from the checkpoint", &self.missing, named)?;
        list(f, "not in the model", &self.unexpected, named)?;
        list(f, "of another shape", &self.misshapen, |bad| {
            format!("{} is {:?}, should be {:?}", bad.name, bad.found, bad.expected)
        })?;
        match &self.nearest {
            Some(nearest) if nearest.differences == 0 => {
                write!(f, "\nthe model {} would fit", nearest.model)
            }
            Some(nearest) => write!(
                f,
                "\nthe nearest model is {}, which differs in {} tensors",
                nearest.model, nearest.differences
            ),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Mismatch {}

fn named((name, shape): &(String, Vec<usize>)) -> String {
    format!("{name} {shape:?}")
}

/// Writes the first few of a list; a wrong architecture would give hundreds.
fn list<T>(f: &mut fmt::Formatter<'_>, title: &str, items: &[T], show: impl Fn(&T) -> String) -> fmt::Result {
    const SHOWN: usize = 10;
    if items.is_empty() {
        return Ok(());
    }
    write!(f, "\n{} {title}:", items.len())?;
    for item in items.iter().take(SHOWN) {
        write!(f, "\n  {}", show(item))?;
    }
    if items.len() > SHOWN {
        write!(f, "\n  ... and {} more", items.len() - SHOWN)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(entries: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        entries.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    }

    fn zeros(entries: &[(&str, &[usize])]) -> Vec<NamedTensor> {
        entries
            .iter()
            .map(|(name, shape)| NamedTensor::f32(*name, shape, vec![0.0; shape.iter().product()]))
            .collect()
    }

    #[test]
    fn tensors_are_found_by_name_whatever_their_order() {
        let expected = manifest(&[("a", &[2]), ("bn.num_batches_tracked", &[]), ("b", &[3])]);
        let tensors = zeros(&[("b", &[3]), ("a", &[2])]);
        let matched = match_names(&expected, &tensors).unwrap();
        let names: Vec<Option<&str>> = matched.iter().map(|t| t.map(|t| t.name.as_str())).collect();
        assert_eq!(names, [Some("a"), None, Some("b")]);
    }

    #[test]
    fn every_difference_is_listed_by_name() {
        let expected = manifest(&[("a", &[2]), ("b", &[3, 1]), ("c", &[4])]);
        let tensors = zeros(&[("c", &[4]), ("b", &[1, 3]), ("student.d", &[5])]);
        let mismatch = match_names(&expected, &tensors).unwrap_err();
        assert_eq!(mismatch.missing, manifest(&[("a", &[2])]));
        assert_eq!(mismatch.unexpected, manifest(&[("student.d", &[5])]));
        assert_eq!(mismatch.misshapen.len(), 1);
        assert_eq!(mismatch.misshapen[0].name, "b");

        let near = manifest(&[("b", &[1, 3]), ("c", &[4])]);
        let exact = manifest(&[("b", &[1, 3]), ("c", &[4]), ("student.d", &[5])]);
        let models = [("far", &expected[..]), ("near", &near[..])];
        let mismatch = mismatch.with_nearest(&tensors, models);
        let message = mismatch.to_string();
        for part in [
            "a [2]",
            "student.d [5]",
            "b is [1, 3], should be [3, 1]",
            "the nearest model is near, which differs in 1 tensors",
        ] {
            assert!(message.contains(part), "{part:?} not in {message}");
        }
        let models = [("near", &near[..]), ("exact", &exact[..])];
        let message = mismatch.with_nearest(&tensors, models).to_string();
        assert!(message.contains("the model exact would fit"), "{message}");
    }

    #[test]
    fn a_checkpoint_of_something_else_has_no_nearest_model() {
        let expected = manifest(&[("a", &[2])]);
        let tensors = zeros(&[("z", &[2])]);
        assert_eq!(nearest_model(&tensors, [("m", &expected[..])]), None);
    }
}
