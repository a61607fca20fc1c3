//! The classes of a folder of pictures: the names of its folders, and what people call them.

use crate::data::error::DataError;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Lists that name every class, as they lie beside `train`: a folder's name on each line, what it is called behind
/// a tab (in ImageNet's from Kaggle: behind a space).
const LISTS: [(&str, char); 3] =
    [("LOC_synset_mapping.txt", ' '), ("classes.txt", '\t'), ("wnids.txt", '\t')];
/// Tiny-ImageNet's names of all of WordNet's ids.
const WORDS: &str = "words.txt";

/// The classes, sorted by their folders' names, as torchvision's `ImageFolder` sorts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    folders: Vec<String>,
    /// What each is called: unlike each other.
    names: Vec<String>,
    /// Where they are listed, if they are.
    list: Option<&'static str>,
}

impl Classes {
    /// The classes of the data set at `root`, in which pictures lie in the given folders. `known` is a list (a
    /// folder's name, a tab, a title on each line) for where there is none, if it has all the folders.
    ///
    /// # Errors
    /// A folder is none of the classes that are listed; names that differ only in case; a list that cannot be read.
    pub fn find(root: &Path, folders: &[String], known: Option<&str>) -> Result<Self, DataError> {
        let mut listed = None;
        for (file, separator) in LISTS {
            let lines = read(&root.join(file), separator)?;
            // A file of that name may be about something else.
            if folders.iter().any(|folder| lines.contains_key(folder)) {
                listed = Some((file, lines));
                break;
            }
        }
        let known = known.map(|text| lines(text, '\t'));
        let known = known.filter(|lines| folders.iter().all(|folder| lines.contains_key(folder)));
        let (list, mut titles) = match (listed, known) {
            (Some((file, lines)), _) => (Some(file), lines),
            (None, Some(lines)) => (Some("the list of known ones"), lines),
            (None, None) => (None, folders.iter().map(|folder| (folder.clone(), String::new())).collect()),
        };
        if let (Some(list), Some(folder)) = (list, folders.iter().find(|f| !titles.contains_key(*f))) {
            let reason = format!(
                "the folder \"{folder}\" is none of the {} classes that {list} lists; add it there, or remove the list",
                titles.len()
            );
            return Err(DataError::content(root, reason));
        }
        let words = read(&root.join(WORDS), '\t')?;
        for (folder, title) in titles.iter_mut().filter(|(_, title)| title.is_empty()) {
            *title = words.get(folder).cloned().unwrap_or_default();
        }
        let (folders, titles): (Vec<String>, Vec<String>) = titles.into_iter().unzip();
        check_case(root, &folders)?;
        Ok(Self { names: names(&folders, titles), folders, list })
    }

    /// The classes of a list: a folder's name, a tab, a title on each line.
    pub fn listed(list: &str) -> Self {
        let (folders, titles): (Vec<String>, Vec<String>) = lines(list, '\t').into_iter().unzip();
        Self { names: names(&folders, titles), folders, list: Some("the list") }
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.folders.len()
    }

    /// What each class is called.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class whose pictures lie in folders of that name.
    pub fn of_folder(&self, folder: &str) -> Option<u32> {
        self.folders.binary_search_by(|known| known.as_str().cmp(folder)).ok().map(|class| class as u32)
    }

    /// The name of a class's folder.
    pub fn folder(&self, class: usize) -> &str {
        &self.folders[class]
    }

    /// The file that lists them, if one does.
    pub fn list(&self) -> Option<&'static str> {
        self.list
    }
}

/// The lines of a file by what stands before the separator; none if there is no such file.
fn read(path: &Path, separator: char) -> Result<BTreeMap<String, String>, DataError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(lines(&String::from_utf8_lossy(&bytes), separator)),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(why) => Err(DataError::read(path)(why)),
    }
}

fn lines(text: &str, separator: char) -> BTreeMap<String, String> {
    let lines = text.lines().map(|line| line.split_once(separator).unwrap_or((line, "")));
    lines
        .map(|(folder, title)| (folder.trim().to_owned(), title.trim().to_owned()))
        .filter(|(folder, _)| !folder.is_empty())
        .collect()
}

/// The first of each title's synonyms ("tench, Tinca tinca"); the folder's name where that is no title or not one
/// class's alone.
fn names(folders: &[String], titles: Vec<String>) -> Vec<String> {
    let first = |title: &String| title.split(',').next().unwrap_or_default().trim().to_owned();
    let short: Vec<String> = titles.iter().map(first).collect();
    let mut count: HashMap<&str, usize> = HashMap::new();
    short.iter().for_each(|name| *count.entry(name).or_default() += 1);
    let name = |(folder, short): (&String, &String)| match (short.as_str(), count[short.as_str()]) {
        ("", _) => folder.clone(),
        (_, 1) => short.clone(),
        _ => format!("{short} ({folder})"),
    };
    folders.iter().zip(&short).map(name).collect()
}

fn check_case(root: &Path, folders: &[String]) -> Result<(), DataError> {
    let mut seen: HashMap<String, &String> = HashMap::new();
    for folder in folders {
        if let Some(other) = seen.insert(folder.to_lowercase(), folder) {
            let reason = format!(
                "the classes \"{other}\" and \"{folder}\" differ only in case, and are one folder on other systems; \
                 rename one, or put their pictures together"
            );
            return Err(DataError::content(root, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], folders: &[&str]) -> Result<Classes, DataError> {
        let root = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(root.path().join(name), text).unwrap());
        Classes::find(root.path(), &folders.iter().map(|f| f.to_string()).collect::<Vec<_>>(), None)
    }

    #[test]
    fn classes_are_the_folders_or_what_is_listed_sorted_by_folder() {
        let plain = found(&[], &["b", "a c"]).unwrap();
        assert_eq!((plain.names(), plain.list()), (&["a c".to_owned(), "b".to_owned()][..], None));
        let kaggle = "n2 crane\nn1 tench, Tinca tinca\nn3 crane, bird\n";
        let listed = found(&[("LOC_synset_mapping.txt", kaggle)], &["n3"]).unwrap();
        assert_eq!(listed.names(), ["tench", "crane (n2)", "crane (n3)"]);
        assert_eq!((listed.of_folder("n3"), listed.of_folder("n4")), (Some(2), None));
        let tiny =
            [("wnids.txt", "n2\nn1\n"), ("words.txt", "n0\tx\nn1\tgoldfish, Carassius\nn2\tbullfrog\n")];
        assert_eq!(found(&tiny, &["n2", "n1"]).unwrap().names(), ["goldfish", "bullfrog"]);
        // A list that is about something else.
        assert_eq!(found(&[("classes.txt", "see the manual\n")], &["a"]).unwrap().list(), None);
    }

    #[test]
    fn a_known_list_serves_where_it_has_all_folders() {
        let root = tempfile::tempdir().unwrap();
        let find = |folders: &[&str]| {
            let folders: Vec<String> = folders.iter().map(|folder| folder.to_string()).collect();
            Classes::find(root.path(), &folders, Some(crate::data::pictures::IMAGENET)).unwrap()
        };
        let known = find(&["n01443537"]);
        assert_eq!((known.len(), known.of_folder("n01443537")), (1000, Some(1)));
        assert_eq!((known.names()[1].as_str(), known.names()[999].as_str()), ("goldfish", "toilet tissue"));
        assert_eq!(find(&["n01443537", "my cat"]).len(), 2);
    }

    #[test]
    fn what_contradicts_is_said() {
        let message =
            |files: &[(&str, &str)], folders: &[&str]| found(files, folders).unwrap_err().to_string();
        assert!(
            message(&[("classes.txt", "a\nb\n")], &["a", "z"]).contains("\"z\" is none of the 2 classes")
        );
        assert!(message(&[], &["Cat", "cat"]).contains("\"Cat\" and \"cat\" differ only in case"));
    }
}
