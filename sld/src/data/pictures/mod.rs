//! Folders of pictures: ImageNet as published, Tiny-ImageNet, and anybody's own.
//!
//! `train/CLASS/*` and `val/CLASS/*` (or `test/CLASS/*`); Tiny-ImageNet's `val/images/*` with
//! `val_annotations.txt`; or `CLASS/*` alone, of which a part is then held out. Pictures may lie deeper in a class's
//! folder. Classes are sorted by folder ([`Classes`]), pictures by path, as torchvision's `ImageFolder` does; hidden
//! files and folders, which it takes, are left out and told. What is in memory is a list of files: no picture is
//! read before a batch needs it.

mod annotations;
mod classes;
mod list;
mod survey;

pub use classes::Classes;
pub use list::LeftOut;
pub use survey::{Broken, Survey, survey};

use super::{DataError, Dataset, File, Files};
use crate::augment::Normalization;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// How networks see the pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// Pixels of a side.
    pub side: usize,
    /// In evaluation, pixels of the shorter side before the central square is cut out; at least `side`.
    pub resize: usize,
    /// From levels to floats.
    pub normalization: Normalization,
}

/// A folder's pictures, listed.
#[derive(Clone, Debug)]
pub struct Folder {
    /// The pictures to train on; `None` where there are none for it.
    pub train: Option<Dataset>,
    /// The pictures to test on; `None` where none are set apart for it.
    pub test: Option<Dataset>,
    /// What the user should know of it, a line each.
    pub notes: Vec<String>,
}

/// The 1,000 classes of ImageNet's challenge: on each line a folder's name, a tab, and what torchvision calls it.
pub const IMAGENET: &str = include_str!("imagenet.txt");

/// Names of a folder with test pictures, the first that is there.
const TEST_FOLDERS: [&str; 2] = ["val", "test"];
/// Tiny-ImageNet's labels of its test pictures.
const ANNOTATIONS: &str = "val_annotations.txt";

/// Lists the pictures at `root`. Where no list of classes lies there, `classes` is it (in the form of [`IMAGENET`]) if
/// it has all the folders; else the folders are the classes.
///
/// # Errors
/// There is no such folder, or no pictures in it; a class without pictures to train on, a class that only the test
/// pictures have, and what [`Classes::find`] refuses.
pub fn open(root: &Path, sight: Sight, classes: Option<&str>) -> Result<Folder, DataError> {
    if !root.is_dir() {
        let reason = match root.exists() {
            true => "is no folder; name the one that holds train/ and val/",
            false => "does not exist; name the folder that holds train/ and val/",
        };
        return Err(DataError::content(root, reason));
    }
    let train = root.join("train");
    let test = TEST_FOLDERS.iter().map(|name| root.join(name)).find(|folder| folder.is_dir());
    let train = match (train.is_dir(), &test) {
        (true, _) => Some(Tree::list(root, &train)?),
        (false, Some(_)) => None,
        (false, None) => Some(Tree::list(root, root)?),
    };
    let test = test.map(|folder| Tree::of_test(root, &folder)).transpose()?;
    let all = train.as_ref().or(test.as_ref()).map(Tree::folders).unwrap_or_default();
    let classes = Classes::find(root, &all, classes)?;
    let mut notes: Vec<String> = train.iter().chain(&test).flat_map(|tree| tree.left_out.lines()).collect();
    if let Some(list) = classes.list() {
        notes.push(format!("{} classes, named by {list}", classes.len()));
    }
    let name = |part: &str| match root.file_name() {
        Some(name) => format!("{} ({part})", name.to_string_lossy()),
        None => part.to_owned(),
    };
    let train = train.map(|tree| {
        tree.check_train()?;
        tree.dataset(name("train"), root, &classes, sight)
    });
    let test = test.map(|tree| {
        notes.extend(tree.empty_classes());
        tree.dataset(name("test"), root, &classes, sight)
    });
    Ok(Folder { train: train.transpose()?, test: test.transpose()?, notes })
}

/// The same pictures without those that cannot be read, which are found by reading all of them; `seen` is told of
/// each. `None` if none can be read.
pub fn without_broken(dataset: Dataset, seen: impl Fn() + Sync) -> (Option<Dataset>, Vec<Broken>) {
    let broken = survey(&dataset, seen).broken;
    let is_kept = |index: &usize| broken.binary_search_by_key(index, |broken| broken.index).is_err();
    let kept: Vec<usize> = (0..dataset.len()).filter(is_kept).collect();
    let readable = match (kept.len(), broken.is_empty()) {
        (0, _) => None,
        (_, true) => Some(dataset),
        _ => Some(dataset.subset(dataset.name(), &kept)),
    };
    (readable, broken)
}

/// The pictures in a folder and the folders in it, by folder, then by name.
///
/// # Errors
/// A folder cannot be read.
pub fn below(folder: &Path) -> Result<Vec<File>, DataError> {
    let mut found = Vec::new();
    list::pictures(Path::new(""), folder, &mut found, &mut LeftOut::default())?;
    Ok(found)
}

/// Whether there are folders of pictures at `root`, rather than another kind of data.
pub fn is_at(root: &Path) -> bool {
    let inside = |name: &&str| root.join(name).is_dir();
    ["train"].iter().chain(&TEST_FOLDERS).any(inside)
        || list::entries(root, &mut LeftOut::default()).is_ok_and(|(_, folders)| {
            folders.iter().any(|folder| {
                let found = list::entries(folder, &mut LeftOut::default());
                found.is_ok_and(|(files, _)| {
                    files.iter().any(|(file, _)| list::is_picture(file).unwrap_or(false))
                })
            })
        })
}

/// The class folders of `train`, `val` or `test`, with their pictures.
struct Tree {
    folder: PathBuf,
    /// By the folder's name.
    classes: Vec<(String, Vec<File>)>,
    left_out: LeftOut,
}

impl Tree {
    fn list(root: &Path, folder: &Path) -> Result<Self, DataError> {
        let mut left_out = LeftOut::default();
        let (files, folders) = list::entries(folder, &mut left_out)?;
        for (file, _) in files {
            // Lists and read-me files lie there by right.
            if list::is_picture(&file)? {
                left_out.add(list::LOOSE, &file);
            }
        }
        if folders.is_empty() {
            let reason = "holds no class folders; each class's pictures belong into a folder of its own";
            return Err(DataError::content(folder, reason));
        }
        let listed = folders.into_par_iter().map(|folder| {
            let (mut found, mut left_out) = (Vec::new(), LeftOut::default());
            list::pictures(root, &folder, &mut found, &mut left_out)?;
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(((name, found), left_out))
        });
        let listed: Result<Vec<_>, DataError> = listed.collect();
        let (classes, others): (Vec<_>, Vec<_>) = listed?.into_iter().unzip();
        others.into_iter().for_each(|other| left_out.append(other));
        Ok(Self { folder: folder.into(), classes, left_out })
    }

    /// Test pictures in class folders, or in one folder with a list of their classes.
    fn of_test(root: &Path, folder: &Path) -> Result<Self, DataError> {
        let list = folder.join(ANNOTATIONS);
        match list.is_file() {
            true => {
                let classes = annotations::read(root, folder, &list)?;
                Ok(Self { folder: folder.into(), classes, left_out: LeftOut::default() })
            }
            false => Self::list(root, folder),
        }
    }

    fn folders(&self) -> Vec<String> {
        self.classes.iter().map(|(name, _)| name.clone()).collect()
    }

    fn empty(&self) -> Vec<&str> {
        self.classes.iter().filter(|(_, files)| files.is_empty()).map(|(name, _)| name.as_str()).collect()
    }

    /// A class that cannot be learned would take a place among the outputs.
    fn check_train(&self) -> Result<(), DataError> {
        let empty = self.empty();
        if empty.is_empty() {
            return Ok(());
        }
        let reason = format!(
            "holds no picture in {} of {} class folders ({}); put some there, or remove the folders",
            empty.len(),
            self.classes.len(),
            some(&empty)
        );
        Err(DataError::content(&self.folder, reason))
    }

    fn empty_classes(&self) -> Option<String> {
        let empty = self.empty();
        (!empty.is_empty()).then(|| format!("{}: no picture of {}", self.folder.display(), some(&empty)))
    }

    fn dataset(
        self,
        name: String,
        root: &Path,
        classes: &Classes,
        sight: Sight,
    ) -> Result<Dataset, DataError> {
        let unknown: Vec<&str> = (self.classes.iter().map(|(folder, _)| folder.as_str()))
            .filter(|folder| classes.of_folder(folder).is_none())
            .collect();
        if !unknown.is_empty() {
            let reason = format!(
                "holds classes that the {} to train on do not have: {}; add them there, or remove them here",
                classes.len(),
                some(&unknown)
            );
            return Err(DataError::content(&self.folder, reason));
        }
        let (mut files, mut labels) = (Vec::new(), Vec::new());
        for (folder, pictures) in self.classes {
            labels.extend(std::iter::repeat_n(classes.of_folder(&folder).unwrap_or(0), pictures.len()));
            files.extend(pictures);
        }
        if files.is_empty() {
            return Err(DataError::content(&self.folder, "holds no picture"));
        }
        let files = Files::new(root, files, sight.resize);
        Dataset::of_files(name, sight.side, files, labels, classes.names().to_vec(), sight.normalization)
    }
}

/// `"a", "b", "c" and 4 more`.
fn some(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(3).map(|name| format!("\"{name}\"")).collect();
    match names.len() {
        0..=3 => shown.join(", "),
        more => format!("{} and {} more", shown.join(", "), more - 3),
    }
}
