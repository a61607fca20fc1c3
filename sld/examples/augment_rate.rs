//! How many weak and strong pairs of views a core makes in a second.
//!
//! `cargo run --release -p sld --example augment_rate [SECONDS]` prints the rate of one core, of the loader
//! with 1 and 2 threads (finished float batches, taken in order), and the time of each operation.
//! `benches/augment/rate.py` runs it in alternation with Pillow.

use sld::augment::{Canvas, Normalization, Op, ViewDraws};
use sld::data::Dataset;
use sld::data::loader::{Loader, LoaderConfig, Parts, Position, Views};
use sld::random::{Purpose, Stream};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Images with structure at several scales, as photographs have: noise would make branches unpredictable
/// and flat images would make histograms cheap.
fn images(count: u64) -> Dataset {
    let mut pixels = Vec::new();
    for index in 0..count {
        let mut stream = Stream::new(0, Purpose::Synthetic, 0, index);
        let waves: Vec<[f64; 4]> = (0..9)
            .map(|_| [stream.range(0.02, 0.6), stream.range(0.02, 0.6), stream.unit() * 6.3, stream.unit()])
            .collect();
        for position in 0..1024 {
            let (x, y) = ((position % 32) as f64, (position / 32) as f64);
            for channel in waves.chunks(3) {
                let sum: f64 = channel.iter().map(|[a, b, p, w]| w * (a * x + b * y + p).sin()).sum();
                pixels.push((127.0 + 50.0 * sum + 8.0 * stream.normal()).clamp(0.0, 255.0) as u8);
            }
        }
    }
    let labels = vec![0; count as usize];
    Dataset::new("waves", (32, 32), pixels, labels, vec!["wave".into()], Normalization::CIFAR100)
        .expect("sizes fit")
}

/// Runs `work` for `time`; calls per second.
fn rate(time: Duration, mut work: impl FnMut(u64)) -> f64 {
    let begin = Instant::now();
    let mut calls = 0;
    while begin.elapsed() < time {
        for _ in 0..64 {
            work(calls);
            calls += 1;
        }
    }
    calls as f64 / begin.elapsed().as_secs_f64()
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    let data = Arc::new(images(2048));
    let table = data.normalization().table();
    let mut canvas = Canvas::new();
    let (mut weak, mut strong) = (vec![0.0; 3072], vec![0.0; 3072]);

    let pairs = rate(time, |call| {
        let image = data.image((call % 2048) as usize);
        let draws = ViewDraws::new(1, 1, call, 32, 32);
        draws.paint_weak(&mut canvas, image, 32, 32);
        table.apply(canvas.pixels(), &mut weak);
        draws.paint_strong(&mut canvas, image, 32, 32);
        table.apply(canvas.pixels(), &mut strong);
        black_box((&mut weak, &mut strong));
    });
    println!("one core              {pairs:>9.0} pairs/s");

    for threads in [1, 2] {
        let config = LoaderConfig {
            batch_size: 64,
            parts: Parts::WHOLE,
            views: Views::WeakAndStrong,
            mixing: None,
            seed: 1,
            threads,
            prefetch: 8,
        };
        let mut loader =
            Loader::train(data.clone(), config, Position { epoch: 1, batch: 0 }).expect("valid settings");
        let batches = rate(time, |_| {
            let batch = loader.next().expect("endless").expect("in memory");
            loader.recycle(black_box(batch));
        });
        println!(
            "loader, {threads} thread{}      {:>9.0} pairs/s",
            if threads == 1 { " " } else { "s" },
            batches * 64.0
        );
    }

    for op in Op::ALL {
        let calls = rate(time / 10, |call| {
            canvas.load(data.image((call % 2048) as usize), 32, 32);
            op.apply(&mut canvas, op.value(((call * 61) % 128) as f64 / 128.0));
            black_box(&mut canvas);
        });
        println!("  {:<14} {:>6.2} us", format!("{op:?}"), 1e6 / calls);
    }
}
