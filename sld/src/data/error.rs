//! What can be wrong with data, each with the file and what to do about it.

use std::path::{Path, PathBuf};

/// Why data could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There is nothing at the path.
    #[error("{} does not exist; name a folder or .tar.gz with CIFAR data, or fetch it with `sld data fetch cifar100`", path.display())]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// The path holds none of the known layouts.
    #[error(
        "no {wanted} data in {}; expected a folder with {files}, or the archive {archives}; \
         `sld data fetch cifar100` downloads one", path.display()
    )]
    NotFound {
        /// The path searched.
        path: PathBuf,
        /// The data set looked for.
        wanted: &'static str,
        /// Files that would have been recognised.
        files: String,
        /// Archives that would have been recognised.
        archives: String,
    },
    /// Both CIFAR-10 and CIFAR-100 are there.
    #[error("{} holds both CIFAR-10 and CIFAR-100; say which, or name the inner folder or archive", path.display())]
    Ambiguous {
        /// The path searched.
        path: PathBuf,
    },
    /// A file that belongs to the layout is absent.
    #[error("{} has no {file}, which {layout} needs; extract or download the archive again", path.display())]
    MissingFile {
        /// The folder or archive.
        path: PathBuf,
        /// The absent file.
        file: String,
        /// The layout that was recognised by its other files.
        layout: &'static str,
    },
    /// An archive cannot be unpacked.
    #[error("{} is damaged or was not downloaded to the end ({source}); download it again", path.display())]
    Archive {
        /// The .tar.gz file.
        path: PathBuf,
        /// What the decompressor or the tar reader said.
        source: std::io::Error,
    },
    /// A binary batch is not a whole number of records.
    #[error(
        "{} has {bytes} bytes, which is not a whole number of {record}-byte records: the last image is \
         cut off; download it again", file.display()
    )]
    Truncated {
        /// The batch file.
        file: PathBuf,
        /// Its length.
        bytes: usize,
        /// The length of one label-and-image record.
        record: usize,
    },
    /// A picture's file cannot be used.
    #[error(
        "{}: {source}; `sld data inspect` lists all such files, and DATASET.SKIP_BROKEN true leaves them out",
        path.display()
    )]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong with its contents.
        source: crate::picture::PictureError,
    },
    /// A file holds no image.
    #[error("{} holds no images; download it again", file.display())]
    Empty {
        /// The batch file or data set.
        file: PathBuf,
    },
    /// A label is not one of the classes.
    #[error("{}: image {image} has label {label}, but {kind} labels are 0 to {}; the file is damaged or of another data set", file.display(), classes - 1)]
    Label {
        /// The batch file.
        file: PathBuf,
        /// Place of the image in the file, from 0.
        image: usize,
        /// The label found.
        label: i64,
        /// Which label it is: "fine", "coarse" or "class".
        kind: &'static str,
        /// Number of classes.
        classes: usize,
    },
    /// A complete release whose checksum is not the published one.
    #[error(
        "{} has md5 {actual}, but the published file has {expected}: it was damaged or changed; download \
         it again, or switch the checksum test off if the change is intended", file.display()
    )]
    Checksum {
        /// The archive or file.
        file: PathBuf,
        /// The published md5.
        expected: &'static str,
        /// The md5 found.
        actual: String,
    },
    /// A python file does not hold what the release's files hold.
    #[error("{} is not a CIFAR python batch: {source}; download it again", file.display())]
    Pickle {
        /// The pickle file.
        file: PathBuf,
        /// Where reading stopped, and why.
        source: nn::pickle::PickleError,
    },
    /// The parts of a file contradict each other.
    #[error("{}: {reason}", file.display())]
    Content {
        /// The file or data set.
        file: PathBuf,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// A loader or split was asked for something impossible.
    #[error("{0}")]
    Setting(String),
}

impl DataError {
    pub(super) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> DataError + use<> {
        let path = path.to_path_buf();
        |source| DataError::Read { path, source }
    }

    pub(super) fn content(file: &Path, reason: impl Into<String>) -> DataError {
        DataError::Content { file: file.to_path_buf(), reason: reason.into() }
    }
}
