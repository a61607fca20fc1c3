use super::paint::Easel;
use super::*;
use crate::augment::{Canvas, Normalization, ViewDraws};
use crate::data::{File, Files};
use crate::random::{Purpose, Stream};

/// 53 random 8x8 images in 5 classes.
fn dataset() -> Arc<Dataset> {
    let mut stream = Stream::new(9, Purpose::Synthetic, 0, 0);
    let images = (0..53 * 8 * 8 * 3).map(|_| stream.bits() as u8).collect();
    let labels = (0..53).map(|i| i % 5).collect();
    let classes = (0..5).map(|c| c.to_string()).collect();
    Arc::new(Dataset::new("random", (8, 8), images, labels, classes, Normalization::CIFAR100).unwrap())
}

fn config(threads: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size: 10,
        parts: Parts::WHOLE,
        views: Views::WeakAndStrong,
        mixing: None,
        seed: 4,
        threads,
        prefetch: 4,
    }
}

const BEGIN: Position = Position { epoch: 1, batch: 0 };

fn train(threads: usize) -> Loader {
    Loader::train(dataset(), config(threads), BEGIN).unwrap()
}

/// The next `count` batches.
fn take(loader: &mut Loader, count: usize) -> Vec<Batch> {
    loader.take(count).map(|batch| batch.unwrap()).collect()
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let one: Vec<Batch> = take(&mut train(1), 20);
    let three: Vec<Batch> = take(&mut train(3), 20);
    assert_eq!(one, three);
    assert_eq!(one, take(&mut train(0), 20), "made when they are asked for");
}

#[test]
fn recycled_buffers_change_nothing_and_are_used() {
    let fresh: Vec<Batch> = take(&mut train(1), 20);
    let mut loader = train(2);
    let mut addresses = std::collections::HashSet::new();
    for expected in fresh {
        let batch = loader.next().unwrap().unwrap();
        assert_eq!(batch, expected);
        addresses.insert(batch.images.as_ptr());
        loader.recycle(batch);
    }
    // Prefetch of 4, one with the consumer; a reallocation after the small last batch may add a few.
    assert!(addresses.len() <= 10, "{} different buffers for 20 batches", addresses.len());
}

#[test]
fn an_epoch_is_a_permutation_with_its_rest_and_epochs_differ() {
    let mut loader = train(2);
    assert_eq!(loader.batches_per_epoch(), 6);
    let mut orders = Vec::new();
    for epoch in 1..=3 {
        let batches: Vec<Batch> = take(&mut loader, 6);
        assert!(batches.iter().all(|batch| batch.epoch == epoch));
        assert_eq!(
            batches.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(),
            [10, 10, 10, 10, 10, 3]
        );
        assert_eq!(batches.iter().map(|batch| batch.number).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        orders.push(batches.iter().flat_map(|batch| batch.indices.clone()).collect::<Vec<_>>());
    }
    assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    for mut order in orders {
        order.sort_unstable();
        assert_eq!(order, (0..53).collect::<Vec<_>>());
    }
}

#[test]
fn a_loader_can_start_anywhere() {
    let whole: Vec<Batch> = take(&mut train(1), 18);
    for (epoch, batch, skipped) in [(1, 4, 4), (2, 0, 6), (1, 6, 6), (2, 5, 11), (3, 1, 13)] {
        let mut loader = Loader::train(dataset(), config(2), Position { epoch, batch }).unwrap();
        for expected in &whole[skipped..] {
            let Position { epoch, batch } = loader.position();
            assert_eq!((epoch, batch), (expected.epoch, expected.number));
            assert_eq!(&loader.next().unwrap().unwrap(), expected);
        }
    }
}

#[test]
fn a_batch_holds_the_views_of_its_images() {
    let data = dataset();
    let table = data.normalization().table();
    let mut canvas = Canvas::new();
    let (mut weak, mut strong) = (vec![0.0; 192], vec![0.0; 192]);
    for batch in take(&mut train(2), 7) {
        for (place, &index) in batch.indices.iter().enumerate() {
            let image = data.image(index as usize);
            assert_eq!(batch.labels[place], data.labels()[index as usize]);
            let draws = ViewDraws::new(4, batch.epoch, u64::from(index), 8, 8);
            draws.paint_weak(&mut canvas, image, 8, 8);
            table.apply(canvas.pixels(), &mut weak);
            draws.paint_strong(&mut canvas, image, 8, 8);
            table.apply(canvas.pixels(), &mut strong);
            // All weak views come first.
            for (number, view) in [(place, &weak), (batch.labels.len() + place, &strong)] {
                assert_eq!(batch.images[number * 192..(number + 1) * 192], view[..]);
            }
        }
    }
    // The weak views do not depend on whether strong ones are made.
    let alone = LoaderConfig { views: Views::Weak, ..config(1) };
    let mut alone = Loader::train(data, alone, BEGIN).unwrap();
    for (alone, both) in take(&mut alone, 7).into_iter().zip(take(&mut train(1), 7)) {
        assert_eq!(alone.images, both.images[..both.images.len() / 2]);
    }
}

#[test]
fn mixed_batches_are_the_same_in_parts_and_from_anywhere() {
    let load = |mixing, parts, start| {
        let config = LoaderConfig { mixing, parts, ..config(2) };
        Loader::train(dataset(), config, start).unwrap()
    };
    let mixing = Mixing::new(0.5, 1.0);
    let plain: Vec<Batch> = take(&mut load(None, Parts::WHOLE, BEGIN), 12);
    let mixed: Vec<Batch> = take(&mut load(mixing, Parts::WHOLE, BEGIN), 12);
    let mut shares = Vec::new();
    for (plain, mixed) in plain.iter().zip(&mixed) {
        let mixture = mixing.unwrap().draw(4, plain.epoch, plain.number as u64, (8, 8));
        assert_eq!((&mixed.labels, mixed.share), (&plain.labels, mixture.share() as f32));
        // Each image with the one before it in its view, the first with the last.
        let mut others = plain.labels.clone();
        others.rotate_right(1);
        assert_eq!(mixed.others, others);
        let mut images = plain.images.clone();
        let view = images.len() / 2;
        for view in images.chunks_mut(view) {
            let last = view[view.len() - 192..].to_vec();
            mixture.apply(view, &last);
        }
        assert!(images == mixed.images && (mixed.share == 1.0 || images != plain.images));
        shares.push(mixed.share);
    }
    shares.dedup();
    assert!(shares.len() > 8, "a draw for each batch: {shares:?}");
    assert_eq!(mixed[7..], take(&mut load(mixing, Parts::WHOLE, Position { epoch: 2, batch: 1 }), 5));
    // Cut in four, of which the second process has the last two.
    let halves = take(&mut load(mixing, Parts { of: 4, first: 2, count: 2 }, BEGIN), 2);
    let (whole, halves) = (&mixed[0], [&halves[0], &halves[1]]);
    let [first, second] = halves.map(|half| half.labels.len());
    assert_eq!(halves.map(|half| half.others.clone()).concat(), whole.others[10 - first - second..]);
    let weak = |half: &Batch| half.images[..half.images.len() / 2].to_vec();
    assert!(halves.map(weak).concat() == weak(whole)[(10 - first - second) * 192..]);
}

#[test]
fn the_seed_and_the_epoch_matter() {
    let first = train(1).next().unwrap().unwrap();
    let other = LoaderConfig { seed: 5, ..config(1) };
    let other = Loader::train(dataset(), other, BEGIN).unwrap().next().unwrap().unwrap();
    assert_ne!(other.indices, first.indices);
    let seen = first.indices[0];
    let place = |batch: &Batch| batch.indices.iter().position(|&index| index == seen);
    let again = train(1).skip(6).flatten().find(|batch| place(batch).is_some()).unwrap();
    let at = place(&again).unwrap() * 192;
    let strong = |batch: &Batch| batch.images[batch.images.len() / 2..].to_vec();
    assert_ne!(strong(&again)[at..at + 192], strong(&first)[..192]);
}

#[test]
fn evaluation_is_in_order_and_plain() {
    let data = dataset();
    for threads in [1, 3] {
        let batches: Vec<Batch> = take(&mut Loader::evaluate(data.clone(), 10, threads).unwrap(), 99);
        let indices: Vec<u32> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        assert_eq!(indices, (0..53).collect::<Vec<_>>());
        assert_eq!(batches.iter().flat_map(|batch| batch.labels.clone()).collect::<Vec<_>>(), data.labels());
        let mut expected = vec![0.0; data.images().len()];
        data.normalization().table().apply(data.images(), &mut expected);
        assert_eq!(batches.iter().flat_map(|batch| batch.images.clone()).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn the_shelf_is_bounded() {
    let mut loader = train(3);
    for delivered in 1..=5 {
        let _ = loader.next();
        let claimed = || loader.shared.lock().next_job;
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while claimed() < delivered + 4 && std::time::Instant::now() < patience {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert_eq!(claimed(), delivered + 4);
    }
}

#[test]
fn dropping_ends_the_threads() {
    for taken in [0, 1, 7] {
        let mut loader = train(3);
        loader.by_ref().take(taken).for_each(drop);
        let shared = Arc::downgrade(&loader.shared);
        drop(loader);
        assert!(shared.upgrade().is_none(), "a worker still holds the data");
    }
}

/// The fixture's pictures, all of 35x23 pixels, seen as squares of 16; and how many there are.
fn pictures(names: &[&str]) -> Arc<Dataset> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pictures/files");
    let files: Vec<File> = names.iter().map(|name| File { path: Path::new(name).into(), bytes: 0 }).collect();
    let labels = (0..files.len() as u32).collect();
    let classes = names.iter().map(|name| name.to_string()).collect();
    let files = Files::new(Path::new(root), files, 18);
    Arc::new(Dataset::of_files("pictures", 16, files, labels, classes, Normalization::IMAGENET).unwrap())
}

const READABLE: [&str; 7] =
    ["420.jpg", "gray.jpg", "cmyk.jpg", "rgba.png", "palette.png", "lossy.webp", "24.bmp"];

#[test]
fn pictures_are_painted_from_their_files_with_any_number_of_threads() {
    let data = pictures(&READABLE);
    let config = |threads| LoaderConfig { batch_size: 3, ..config(threads) };
    let load = |threads, start| Loader::train(data.clone(), config(threads), start).unwrap();
    let one = take(&mut load(1, BEGIN), 9);
    assert_eq!(one, take(&mut load(3, BEGIN), 9));
    assert_eq!(one[4..], take(&mut load(2, Position { epoch: 2, batch: 1 }), 5));
    assert_eq!(one[0].images.len(), 2 * 3 * 16 * 16 * 3);
    // The first image of the batch, from its file.
    let mut easel = Easel::default();
    let (mut weak, mut strong) = (vec![0.0; 768], vec![0.0; 768]);
    let table = data.normalization().table();
    easel.views(&data, &table, one[0].indices[0], (4, 1), &mut weak, Some(&mut strong)).unwrap();
    assert_eq!((&one[0].images[..768], &one[0].images[3 * 768..4 * 768]), (&weak[..], &strong[..]));
    let plain = take(&mut Loader::evaluate(data.clone(), 4, 2).unwrap(), 9);
    assert_eq!(plain.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [4, 3]);
    easel.plain(&data, &table, 6, &mut weak).unwrap();
    assert_eq!(plain[1].images[2 * 768..], weak);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_in_its_place() {
    for (bad, reason) in [("text.jpg", "it is no picture"), ("not/there.jpg", "cannot read")] {
        let data = pictures(&["420.jpg", "gray.jpg", bad, "24.bmp"]);
        let mut loader = Loader::evaluate(data, 1, 2).unwrap();
        let found: Vec<Result<Batch, DataError>> = loader.by_ref().collect();
        assert_eq!(found.iter().map(|batch| batch.is_ok()).collect::<Vec<_>>(), [true, true, false, true]);
        let said = found[2].as_ref().unwrap_err().to_string();
        assert!(said.contains(bad) && said.contains(reason), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_read_that_stalls_is_told_and_keeps_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.jpg");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let files = Files::new(folder.path(), vec![File { path: Path::new("pipe.jpg").into(), bytes: 0 }], 16);
    let classes = vec!["one".into()];
    let data = Dataset::of_files("pipe", 16, files, vec![0], classes, Normalization::IMAGENET).unwrap();
    let mut loader = Loader::train(Arc::new(data), config(2), BEGIN).unwrap();
    assert!(matches!(loader.wait(Duration::from_millis(300)), Ok(Waited::NotYet)));
    let (path, time) = loader.slowest().unwrap();
    assert_eq!(path, pipe);
    assert!(time >= Duration::from_millis(100), "{time:?}");
    static TOLD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    tell_stalls(|path, _| TOLD.lock().unwrap().push(path.into()));
    loader.patience = Duration::ZERO;
    assert!(matches!(loader.wait(Duration::ZERO), Ok(Waited::NotYet)));
    assert_eq!(*TOLD.lock().unwrap(), [pipe]);
    assert!(loader.patience >= 2 * time, "not told again at once");
    let started = Instant::now();
    drop(loader);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn impossible_settings_are_errors() {
    let message = |result: Result<Loader, DataError>| result.err().unwrap().to_string();
    let zero = LoaderConfig { batch_size: 0, ..config(1) };
    assert!(message(Loader::train(dataset(), zero, BEGIN)).contains("batch size is 0"));
    let beyond = Position { epoch: 1, batch: 7 };
    assert!(message(Loader::train(dataset(), config(1), beyond)).contains("batch size changed"));
    let empty = Arc::new(dataset().subset("nothing", &[]));
    assert!(message(Loader::evaluate(empty, 10, 1)).contains("nothing has 0 images"));
}
