//! Labelled images: in memory, or in files that are read when they are needed; of 8-bit RGB, or of the floats that a
//! network takes, of any number of channels.

use super::augmentation::Augmentation;
use super::error::DataError;
use super::files::Files;
use crate::augment::Normalization;
use crate::random::Stream;

/// Labelled images. Networks see all of them in one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    name: String,
    width: usize,
    height: usize,
    channels: usize,
    images: Images,
    labels: Vec<u32>,
    classes: Vec<String>,
    normalization: Normalization,
    recipe: Option<String>,
    augmentation: Option<Augmentation>,
}

#[derive(Clone, Debug, PartialEq)]
enum Images {
    /// Of the size that networks see, one after another.
    Memory(Vec<u8>),
    /// As networks take them, one after another.
    Values(Vec<f32>),
    /// Of any size.
    Files(Files),
}

/// A data set's training and test images.
#[derive(Clone, Debug, PartialEq)]
pub struct Splits {
    /// The images to train on.
    pub train: Dataset,
    /// The images to test on.
    pub test: Dataset,
}

impl Dataset {
    /// A data set of `labels.len()` images, each `height` rows of `width` interleaved RGB pixels, one after
    /// another in `images`. `classes` names the classes; `normalization` is what networks are fed with.
    ///
    /// # Errors
    /// If the sizes do not fit together or a label has no class.
    pub fn new(
        name: impl Into<String>,
        (width, height): (usize, usize),
        images: Vec<u8>,
        labels: Vec<u32>,
        classes: Vec<String>,
        normalization: Normalization,
    ) -> Result<Self, DataError> {
        let name = name.into();
        let expected = labels.len() * width * height * 3;
        if images.len() != expected {
            let reason = format!(
                "{} bytes of images for {} labels of {width}x{height} RGB images, which need {expected}",
                images.len(),
                labels.len()
            );
            return Err(DataError::content(name.as_ref(), reason));
        }
        Self::checked(name, [height, width, 3], Images::Memory(images), labels, classes, normalization)
    }

    /// The same of images that come one by one, each with the place of its class among `classes`.
    ///
    /// # Errors
    /// An image of another size, or of no class.
    pub fn collect(
        name: impl Into<String>,
        (width, height): (usize, usize),
        images: impl IntoIterator<Item = (Vec<u8>, u32)>,
        classes: Vec<String>,
        normalization: Normalization,
    ) -> Result<Self, DataError> {
        let (name, expected) = (name.into(), width * height * 3);
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for (image, label) in images {
            if image.len() != expected {
                let (number, found) = (labels.len(), image.len());
                let reason = format!(
                    "image {number} (from 0) has {found} bytes, a {width}x{height} RGB image has {expected}"
                );
                return Err(DataError::content(name.as_ref(), reason));
            }
            pixels.extend(image);
            labels.push(label);
        }
        Self::new(name, (width, height), pixels, labels, classes, normalization)
    }

    /// A data set of floats as a network takes them, which come image by image, `[height, width, channels]` each, with
    /// the place of its class among `classes`. They are trained on as they are; [`Dataset::augmented`] changes that.
    ///
    /// # Errors
    /// An image of another size, or of no class.
    pub fn of_values(
        name: impl Into<String>,
        shape: [usize; 3],
        images: impl IntoIterator<Item = (Vec<f32>, u32)>,
        classes: Vec<String>,
    ) -> Result<Self, DataError> {
        let (name, expected): (String, usize) = (name.into(), shape.iter().product());
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for (image, label) in images {
            if image.len() != expected {
                let (number, found) = (labels.len(), image.len());
                let reason = format!(
                    "image {number} (from 0) has {found} values, one of {shape:?} (height, width, channels) has {expected}"
                );
                return Err(DataError::content(name.as_ref(), reason));
            }
            values.extend(image);
            labels.push(label);
        }
        Self::checked(name, shape, Images::Values(values), labels, classes, Normalization::RAW)
    }

    /// The same images of floats, each changed in place by `augment` whenever it is trained on. The stream's numbers
    /// depend on seed, epoch and image alone; the last argument is true for the strong view, for methods with two.
    pub fn augmented(self, augment: impl Fn(&mut [f32], &mut Stream, bool) + Send + Sync + 'static) -> Self {
        Self { augmentation: Some(Augmentation::new(augment)), ..self }
    }

    /// What changes images of floats when they are trained on.
    pub fn augmentation(&self) -> Option<&Augmentation> {
        self.augmentation.as_ref()
    }

    /// A data set of pictures in `files`, of which networks see squares of `side` pixels.
    ///
    /// # Errors
    /// If there are not as many files as labels, or a label has no class.
    pub fn of_files(
        name: impl Into<String>,
        side: usize,
        files: Files,
        labels: Vec<u32>,
        classes: Vec<String>,
        normalization: Normalization,
    ) -> Result<Self, DataError> {
        let name = name.into();
        if files.len() != labels.len() {
            let reason = format!("{} files for {} labels", files.len(), labels.len());
            return Err(DataError::content(name.as_ref(), reason));
        }
        Self::checked(name, [side, side, 3], Images::Files(files), labels, classes, normalization)
    }

    fn checked(
        name: String,
        [height, width, channels]: [usize; 3],
        images: Images,
        labels: Vec<u32>,
        classes: Vec<String>,
        normalization: Normalization,
    ) -> Result<Self, DataError> {
        if classes.is_empty() {
            return Err(DataError::content(name.as_ref(), "there are no classes"));
        }
        if let Some(image) = labels.iter().position(|&label| label as usize >= classes.len()) {
            let label = i64::from(labels[image]);
            let classes = classes.len();
            return Err(DataError::Label { file: name.into(), image, label, kind: "class", classes });
        }
        Ok(Self {
            name,
            width,
            height,
            channels,
            images,
            labels,
            classes,
            normalization,
            recipe: None,
            augmentation: None,
        })
    }

    /// The same images, with a text from which they can be drawn again.
    pub fn drawn_from(self, recipe: String) -> Self {
        Self { recipe: Some(recipe), ..self }
    }

    /// What they were drawn from, if they were.
    pub fn recipe(&self) -> Option<&str> {
        self.recipe.as_deref()
    }

    /// A checksum of images (of files: their names and lengths), labels and classes: results on data with
    /// another one cannot be compared.
    pub fn digest(&self) -> String {
        let labels =
            self.labels.iter().fold(0, |sum, label| crc32c::crc32c_append(sum, &label.to_le_bytes()));
        let classes =
            self.classes.iter().fold(labels, |sum, class| crc32c::crc32c_append(sum, class.as_bytes()));
        let sum = match &self.images {
            Images::Memory(images) => crc32c::crc32c_append(classes, images),
            Images::Values(values) => {
                values.iter().fold(classes, |sum, value| crc32c::crc32c_append(sum, &value.to_le_bytes()))
            }
            Images::Files(files) => files.digest(classes),
        };
        format!("{sum:08x}")
    }

    /// What the data set is called, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Width of an image in pixels, as networks see it.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height of an image in pixels, as networks see it.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Channels of an image, as networks see it.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height, width and channels of an image, as networks see it.
    pub fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }

    /// Values of an image: height · width · channels.
    pub fn image_len(&self) -> usize {
        self.width * self.height * self.channels
    }

    /// Image `index`: rows of interleaved RGB pixels.
    ///
    /// # Panics
    /// If there is no such image of bytes in memory.
    pub fn image(&self, index: usize) -> &[u8] {
        &self.images()[index * self.image_len()..][..self.image_len()]
    }

    /// Image `index` of floats, `[height, width, channels]`; `None` where images are others.
    pub fn values(&self, index: usize) -> Option<&[f32]> {
        match &self.images {
            Images::Values(values) => values.get(index * self.image_len()..)?.get(..self.image_len()),
            _ => None,
        }
    }

    /// All images of bytes that are in memory, one after another.
    pub fn images(&self) -> &[u8] {
        match &self.images {
            Images::Memory(images) => images,
            Images::Values(_) | Images::Files(_) => &[],
        }
    }

    /// The files of images that are not in memory.
    pub fn files(&self) -> Option<&Files> {
        match &self.images {
            Images::Memory(_) | Images::Values(_) => None,
            Images::Files(files) => Some(files),
        }
    }

    /// The class of each image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The names of the classes; their number is the number of classes, even if some have no image.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The constants with which images become floats.
    pub fn normalization(&self) -> Normalization {
        self.normalization
    }

    /// The same images for a network that was trained with other constants.
    pub fn normalized_by(self, normalization: Normalization) -> Self {
        Self { normalization, ..self }
    }

    /// The same images with other classes, in which each has the class of its class's name.
    ///
    /// # Errors
    /// The name of a class that has no place among `classes`.
    pub fn with_classes(self, classes: &[String]) -> Result<Self, String> {
        let place =
            |name: &String| classes.iter().position(|class| class == name).ok_or_else(|| name.clone());
        let places: Vec<usize> = self.classes.iter().map(place).collect::<Result<_, _>>()?;
        let labels = self.labels.iter().map(|&label| places[label as usize] as u32).collect();
        Ok(Self { labels, classes: classes.to_vec(), ..self })
    }

    /// A copy of the images at `indices`, in their order.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn subset(&self, name: impl Into<String>, indices: &[usize]) -> Dataset {
        let images = match &self.images {
            Images::Memory(_) => {
                let mut images = Vec::with_capacity(indices.len() * self.image_len());
                indices.iter().for_each(|&index| images.extend_from_slice(self.image(index)));
                Images::Memory(images)
            }
            Images::Values(_) => {
                let image = |&index: &usize| self.values(index).unwrap_or_default();
                Images::Values(indices.iter().flat_map(image).copied().collect())
            }
            Images::Files(files) => Images::Files(files.subset(indices)),
        };
        let labels = indices.iter().map(|&index| self.labels[index]).collect();
        Dataset {
            name: name.into(),
            width: self.width,
            height: self.height,
            channels: self.channels,
            images,
            labels,
            classes: self.classes.clone(),
            normalization: self.normalization,
            recipe: self.recipe.clone(),
            augmentation: self.augmentation.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_come_one_by_one_are_checked() {
        let collect = |images: Vec<(Vec<u8>, u32)>| {
            Dataset::collect("own", (1, 2), images, vec!["a".into(), "b".into()], Normalization::CIFAR10)
        };
        let set = collect(vec![(vec![1; 6], 1), (vec![2; 6], 0)]).unwrap();
        assert_eq!((set.len(), set.image(1), set.labels()), (2, &[2; 6][..], &[1, 0][..]));
        let error = collect(vec![(vec![1; 6], 1), (vec![2; 5], 0)]).unwrap_err().to_string();
        assert!(error.contains("image 1 (from 0) has 5 bytes, a 1x2 RGB image has 6"), "{error}");
        assert!(collect(vec![(vec![1; 6], 2)]).is_err());
    }

    #[test]
    fn the_digest_tells_images_labels_and_classes_apart_but_not_names() {
        let set = |name: &str, pixel: u8, label: u32, class: &str| {
            let classes = vec!["cat".into(), class.into()];
            let images = vec![0, 0, pixel];
            Dataset::new(name, (1, 1), images, vec![label], classes, Normalization::CIFAR10).unwrap().digest()
        };
        let digest = set("a", 1, 0, "dog");
        assert_eq!(set("b", 1, 0, "dog"), digest);
        for other in [set("a", 2, 0, "dog"), set("a", 1, 1, "dog"), set("a", 1, 0, "emu")] {
            assert_ne!(other, digest);
        }
    }
}
