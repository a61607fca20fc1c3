//! Writes the synthetic task in the CIFAR-100 binary layout, to look at it or to train on it elsewhere.
//!
//! `cargo run --release -p sld --example synthetic_dump FOLDER [TRAIN TEST]`

use sld::data::Dataset;
use sld::data::synthetic::{SyntheticConfig, generate};
use std::path::Path;

fn write(data: &Dataset, path: &Path) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for index in 0..data.len() {
        bytes.extend([0, data.labels()[index] as u8]);
        let pixels = data.image(index).as_chunks::<3>().0;
        (0..3).for_each(|channel| bytes.extend(pixels.iter().map(|pixel| pixel[channel])));
    }
    std::fs::write(path, bytes)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = Path::new(arguments.first().ok_or("name a folder to write to")?);
    let mut config = SyntheticConfig::default();
    if let [_, train, test] = &arguments[..] {
        (config.train, config.test) = (train.parse()?, test.parse()?);
    }
    let begin = std::time::Instant::now();
    let splits = generate(&config)?;
    println!("{} and {} images in {:?}", config.train, config.test, begin.elapsed());
    std::fs::create_dir_all(folder)?;
    write(&splits.train, &folder.join("train.bin"))?;
    write(&splits.test, &folder.join("test.bin"))?;
    std::fs::write(folder.join("fine_label_names.txt"), splits.train.classes().join("\n"))?;
    Ok(())
}
