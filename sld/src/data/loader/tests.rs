use super::*;
use crate::augment::{Canvas, Normalization, ViewDraws};

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
