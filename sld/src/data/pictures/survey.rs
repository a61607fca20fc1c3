//! Reading every picture of a data set once: which cannot be read, and what the others are like.

use crate::data::levels::Levels;
use crate::data::{DataError, Dataset};
use crate::picture::{Format, Picture};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its place in the data set.
    pub index: usize,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What a look at every picture found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The data set's name.
    pub name: String,
    /// Each class's name and number of pictures, the broken ones included.
    pub classes: Vec<(String, usize)>,
    /// The files that cannot be used, in the data set's order.
    pub broken: Vec<Broken>,
    /// How many pictures are in each format.
    pub formats: BTreeMap<Format, usize>,
    /// Width and height of the picture with the fewest pixels, and of that with the most.
    pub extremes: Option<[(usize, usize); 2]>,
    /// Of all pixels.
    levels: Levels,
    /// Length and checksum of each file's contents.
    contents: HashSet<(usize, u32)>,
    /// Files whose contents another one has too.
    pub copies: usize,
}

#[derive(Default)]
struct Part {
    survey: Survey,
    picture: Picture,
    file: Vec<u8>,
}

/// Reads every picture of `dataset` with all threads; `seen` is told of each.
pub fn survey(dataset: &Dataset, seen: impl Fn() + Sync) -> Survey {
    let mut classes: Vec<(String, usize)> = dataset.classes().iter().map(|name| (name.clone(), 0)).collect();
    dataset.labels().iter().for_each(|&label| classes[label as usize].1 += 1);
    let Some(files) = dataset.files() else {
        return Survey { name: dataset.name().into(), classes, ..Survey::default() };
    };
    let look = |mut part: Part, index: usize| {
        let Part { survey, picture, file } = &mut part;
        match files.read(index, file, picture) {
            Ok(format) => survey.add(format, picture, file),
            Err(why) => survey.broken.push(Broken { index, path: files.path(index), reason: reason(&why) }),
        }
        seen();
        part
    };
    let parts = (0..files.len()).into_par_iter().fold(Part::default, look).map(|part| part.survey);
    let mut all = parts.reduce(Survey::default, Survey::and);
    all.broken.sort_by_key(|broken| broken.index);
    Survey { name: dataset.name().into(), classes, ..all }
}

/// The reason without the path, which stands beside it, and without advice.
fn reason(why: &DataError) -> String {
    match why {
        DataError::Picture { source, .. } => source.to_string(),
        DataError::Read { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

impl Survey {
    fn add(&mut self, format: Format, picture: &Picture, file: &[u8]) {
        *self.formats.entry(format).or_default() += 1;
        self.meet([(picture.width(), picture.height()); 2]);
        self.levels.add(picture.pixels());
        self.copies += usize::from(!self.contents.insert((file.len(), crc32c::crc32c(file))));
    }

    fn meet(&mut self, [small, large]: [(usize, usize); 2]) {
        let area = |(width, height): (usize, usize)| (width * height, width);
        let [smallest, largest] = self.extremes.unwrap_or([small, large]);
        let smallest = if area(small) < area(smallest) { small } else { smallest };
        self.extremes = Some([smallest, if area(large) > area(largest) { large } else { largest }]);
    }

    fn and(mut self, other: Survey) -> Survey {
        self.broken.extend(other.broken);
        other
            .formats
            .into_iter()
            .for_each(|(format, count)| *self.formats.entry(format).or_default() += count);
        if let Some(extremes) = other.extremes {
            self.meet(extremes);
        }
        self.levels.merge(&other.levels);
        self.copies += other.copies + self.contents.intersection(&other.contents).count();
        self.contents.extend(other.contents);
        self
    }

    /// How many files both have, byte for byte.
    pub fn shared_with(&self, other: &Survey) -> usize {
        self.contents.intersection(&other.contents).count()
    }

    /// Mean and standard deviation of each channel (RGB), of values in [0, 1], over all pixels.
    pub fn moments(&self) -> [[f64; 3]; 2] {
        self.levels.moments()
    }
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let count: usize = self.classes.iter().map(|class| class.1).sum();
        writeln!(f, "{}: {count} pictures in {} classes", self.name, self.classes.len())?;
        let formats: Vec<String> =
            self.formats.iter().map(|(format, count)| format!("{count} {}", format.name())).collect();
        writeln!(f, "  formats     {}", formats.join(", "))?;
        if let Some([(w, h), (width, height)]) = self.extremes {
            writeln!(f, "  sizes       {w}x{h} to {width}x{height}")?;
        }
        for (name, [r, g, b]) in ["mean", "deviation"].into_iter().zip(self.moments()) {
            writeln!(f, "  {name:<9}   {r:.4} {g:.4} {b:.4}")?;
        }
        if self.copies > 0 {
            writeln!(f, "  copies      {} files are byte for byte another one", self.copies)?;
        }
        write!(f, "  classes")?;
        for (place, (name, count)) in self.classes.iter().enumerate() {
            let head = if place == 0 { "" } else { "         " };
            writeln!(f, "{head}{count:>8}  {name}")?;
        }
        write!(f, "  unreadable  {}", self.broken.len())?;
        self.broken
            .iter()
            .try_for_each(|broken| write!(f, "\n    {}: {}", broken.path.display(), broken.reason))
    }
}
