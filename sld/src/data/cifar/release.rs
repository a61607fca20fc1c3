//! The four published releases.

use crate::data::DataError;
use std::path::Path;

/// Which data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cifar {
    /// 10 classes.
    Cifar10,
    /// 100 classes (the "fine" labels) in 20 groups (the "coarse" ones).
    Cifar100,
}

impl Cifar {
    /// The customary spelling.
    pub fn name(self) -> &'static str {
        match self {
            Cifar::Cifar10 => "CIFAR-10",
            Cifar::Cifar100 => "CIFAR-100",
        }
    }

    /// Number of classes.
    pub fn classes(self) -> usize {
        match self {
            Cifar::Cifar10 => 10,
            Cifar::Cifar100 => 100,
        }
    }
}

/// How a release stores images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Fixed-size records: label bytes, then the three colour planes.
    Binary,
    /// Pickled dictionaries with a numpy array.
    Python,
}

/// A file of a release, and its published md5 where there is one.
#[derive(Clone, Copy, Debug)]
pub struct ReleaseFile {
    /// Its name in the folder.
    pub name: &'static str,
    /// Lower-case hexadecimal.
    pub md5: Option<&'static str>,
}

/// One published archive.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The data set in it.
    pub dataset: Cifar,
    /// How it is stored.
    pub format: Format,
    /// For messages.
    pub description: &'static str,
    /// Name of the archive; it lies below <https://www.cs.toronto.edu/~kriz/>.
    pub archive: &'static str,
    /// md5 of the archive.
    pub md5: &'static str,
    /// Length of the archive in bytes.
    pub bytes: u64,
    /// The folder inside the archive.
    pub folder: &'static str,
    /// Files of the training images, in order.
    pub train: &'static [ReleaseFile],
    /// Files of the test images.
    pub test: &'static [ReleaseFile],
    /// The file with the names of the classes.
    pub meta: ReleaseFile,
    /// Training images in the complete release.
    pub train_images: usize,
    /// Test images in the complete release.
    pub test_images: usize,
}

const fn file(name: &'static str, md5: &'static str) -> ReleaseFile {
    ReleaseFile { name, md5: Some(md5) }
}

const fn unhashed(name: &'static str) -> ReleaseFile {
    ReleaseFile { name, md5: None }
}

/// The published archives, in the order of preference where several are present.
pub static RELEASES: [Release; 4] = [
    Release {
        dataset: Cifar::Cifar100,
        format: Format::Python,
        description: "CIFAR-100 python",
        archive: "cifar-100-python.tar.gz",
        md5: "eb9058c3a382ffc7106e4002c42a8d85",
        bytes: 169_001_437,
        folder: "cifar-100-python",
        train: &[file("train", "16019d7e3df5f24257cddd939b257f8d")],
        test: &[file("test", "f0ef6b0ae62326f3e7ffdfab6717acfc")],
        meta: file("meta", "7973b15100ade9c7d40fb424638fde48"),
        train_images: 50_000,
        test_images: 10_000,
    },
    Release {
        dataset: Cifar::Cifar100,
        format: Format::Binary,
        description: "CIFAR-100 binary",
        archive: "cifar-100-binary.tar.gz",
        md5: "03b5dce01913d631647c71ecec9e9cb8",
        bytes: 168_513_733,
        folder: "cifar-100-binary",
        train: &[unhashed("train.bin")],
        test: &[unhashed("test.bin")],
        meta: unhashed("fine_label_names.txt"),
        train_images: 50_000,
        test_images: 10_000,
    },
    Release {
        dataset: Cifar::Cifar10,
        format: Format::Python,
        description: "CIFAR-10 python",
        archive: "cifar-10-python.tar.gz",
        md5: "c58f30108f718f92721af3b95e74349a",
        bytes: 170_498_071,
        folder: "cifar-10-batches-py",
        train: &[
            file("data_batch_1", "c99cafc152244af753f735de768cd75f"),
            file("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            file("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            file("data_batch_4", "634d18415352ddfa80567beed471001a"),
            file("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ],
        test: &[file("test_batch", "40351d587109b95175f43aff81a1287e")],
        meta: file("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        train_images: 50_000,
        test_images: 10_000,
    },
    Release {
        dataset: Cifar::Cifar10,
        format: Format::Binary,
        description: "CIFAR-10 binary",
        archive: "cifar-10-binary.tar.gz",
        md5: "c32a1d4ab5d03f1284b67883e8d87530",
        bytes: 170_052_171,
        folder: "cifar-10-batches-bin",
        train: &[
            unhashed("data_batch_1.bin"),
            unhashed("data_batch_2.bin"),
            unhashed("data_batch_3.bin"),
            unhashed("data_batch_4.bin"),
            unhashed("data_batch_5.bin"),
        ],
        test: &[unhashed("test_batch.bin")],
        meta: unhashed("batches.meta.txt"),
        train_images: 50_000,
        test_images: 10_000,
    },
];

impl Release {
    /// Where the archive is published.
    pub fn url(&self) -> String {
        format!("https://www.cs.toronto.edu/~kriz/{}", self.archive)
    }

    /// Every file the loader reads: training, test, class names.
    pub fn files(&self) -> impl Iterator<Item = &ReleaseFile> {
        self.train.iter().chain(self.test).chain([&self.meta])
    }

    /// Whether files with these names look like this release. One batch is enough, so that what is missing
    /// can be named.
    pub(super) fn recognises(&self, has: impl Fn(&str) -> bool) -> bool {
        self.train.iter().chain(self.test).any(|file| has(file.name))
    }

    /// A release names every class once.
    pub(super) fn check_class_names(&self, file: &Path, names: &[String]) -> Result<(), DataError> {
        let classes = self.dataset.classes();
        if names.len() == classes {
            return Ok(());
        }
        let reason =
            format!("{} class names, but {} has {classes} classes", names.len(), self.dataset.name());
        Err(DataError::content(file, reason))
    }
}
