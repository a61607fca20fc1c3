//! `sld data`.

use crate::config::{self, DatasetKind};
use crate::data::cifar::{self, Cifar, Integrity, LoadOptions, RELEASES, Release};
use crate::data::fetch::{Download, fetch};
use crate::data::inspect::Summary;
use crate::data::pictures;
use crate::experiment::terminal;
use crate::outln;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  sld data fetch cifar100
  sld data fetch cifar10 --output /big/disk
  sld data inspect data";

/// Get data sets, and look at them.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct DataArgs {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    Fetch(FetchArgs),
    Inspect(InspectArgs),
}

/// A data set that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// 60,000 images of 32x32 in 100 classes, 161 MiB.
    Cifar100,
    /// 60,000 images of 32x32 in 10 classes, 163 MiB.
    Cifar10,
}

const FETCH_EXAMPLES: &str = "\
Examples:
  sld data fetch cifar100                                into data/
  sld data fetch cifar10 --output /big/disk --binary
  sld data fetch cifar100 --url https://mirror.example/cifar-100-python.tar.gz";

const INSPECT_EXAMPLES: &str = "\
Examples:
  sld data inspect data                                  what `sld data fetch` got
  sld data inspect cifar-10-python.tar.gz
  sld data inspect cifar-100-binary                      an unpacked folder
  sld data inspect photos                                train/CLASS/*, val/CLASS/*: reads every picture";

/// Download a data set; go on with a broken download; check its md5.
///
/// The archive is not unpacked: it is read as it is.
#[derive(Debug, Clone, Args)]
#[command(after_help = FETCH_EXAMPLES)]
pub struct FetchArgs {
    /// The data set.
    pub name: Name,
    /// Folder to put the archive into.
    #[arg(short, long, value_name = "DIR", default_value = "data")]
    pub output: PathBuf,
    /// Another place of the same file, such as a mirror.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Fetch the binary archive instead of the python one.
    #[arg(long)]
    pub binary: bool,
}

/// Check a data set and print its counts, mean and deviation; of pictures, every file that cannot be read.
#[derive(Debug, Clone, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub struct InspectArgs {
    /// A folder of data files, an archive, a folder with either, or a folder of pictures.
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// Accept a complete release whose checksum is not the published one.
    #[arg(long)]
    pub skip_checksums: bool,
}

/// Runs `sld data`.
pub fn run(args: DataArgs) -> anyhow::Result<()> {
    match args.action {
        Action::Fetch(args) => run_fetch(args),
        Action::Inspect(args) => run_inspect(args),
    }
}

fn run_fetch(args: FetchArgs) -> anyhow::Result<()> {
    let release = release(args.name, args.binary)?;
    let target = args.output.join(release.archive);
    let download = Download {
        url: args.url.unwrap_or_else(|| release.url()),
        target: target.clone(),
        md5: Some(release.md5.to_owned()),
        bytes: Some(release.bytes),
    };
    let outcome = fetch(&download)?;
    outln!("{} {} (md5 {})", target.display(), outcome, release.md5)?;
    outln!("train with:  sld train --cfg FILE --data {}", args.output.display())?;
    Ok(())
}

fn release(name: Name, binary: bool) -> anyhow::Result<&'static Release> {
    let dataset = match name {
        Name::Cifar100 => Cifar::Cifar100,
        Name::Cifar10 => Cifar::Cifar10,
    };
    let format = if binary { cifar::Format::Binary } else { cifar::Format::Python };
    let mut all = RELEASES.iter();
    let found = all.find(|release| release.dataset == dataset && release.format == format);
    found.ok_or_else(|| anyhow::anyhow!("there is no {} archive of this format", dataset.name()))
}

fn run_inspect(args: InspectArgs) -> anyhow::Result<()> {
    if pictures::is_at(&args.path) {
        return inspect_pictures(&args.path);
    }
    let options = LoadOptions { wanted: None, skip_checksums: args.skip_checksums };
    let loaded = cifar::load(&args.path, options)?;
    let integrity = match loaded.integrity {
        Integrity::Verified => "checksums are the published ones",
        Integrity::Unverified => "complete; checksums not compared",
        Integrity::Subset => "a subset of the release",
    };
    outln!("{} in {}: {integrity}", loaded.release.description, loaded.path.display())?;
    outln!("{}", Summary::new(&loaded.splits.train))?;
    outln!("{}", Summary::new(&loaded.splits.test))?;
    Ok(())
}

/// Reads every picture.
fn inspect_pictures(root: &Path) -> anyhow::Result<()> {
    // What networks would see plays no part.
    let sight = config::Dataset { kind: DatasetKind::Imagefolder, ..Default::default() }.sight();
    let sight = sight.context("a folder of pictures has a size")?;
    let folder = pictures::open(root, sight, Some(pictures::IMAGENET))?;
    folder.notes.iter().try_for_each(|note| outln!("{note}"))?;
    let mut surveys = Vec::new();
    for images in folder.train.iter().chain(&folder.test) {
        let bar = terminal::counting(images.len() as u64, "pictures read");
        let survey = pictures::survey(images, || bar.inc(1));
        bar.finish_and_clear();
        outln!("{survey}")?;
        surveys.push(survey);
    }
    if let [train, test] = &surveys[..]
        && train.shared_with(test) > 0
    {
        outln!("{} pictures to test on are also there to train on, byte for byte", train.shared_with(test))?;
    }
    let broken: usize = surveys.iter().map(|survey| survey.broken.len()).sum();
    anyhow::ensure!(
        broken == 0,
        "{broken} pictures cannot be read (listed above): training stops at the first; repair or remove them, or leave \
         them out with DATASET.SKIP_BROKEN true"
    );
    Ok(())
}
