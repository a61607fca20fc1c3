//! Runs made of formulas, shaped like real ones.

use sld::run::{Accuracy, EpochMetrics, Evaluation, ModelInfo, RunInfo, SwapMetrics, SwapSide, TrainMetrics};

/// A number in [-1, 1) that depends on nothing but `key`.
pub fn noise(key: u64) -> f64 {
    let mut z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as f64 / 2f64.powi(63) - 1.0
}

/// What a run of `epochs` epochs measures that ends near `top`; stages and gate lie as in 240.
pub fn metrics(epochs: u32, top: f64, swaps: bool, seed: u64) -> Vec<EpochMetrics> {
    (1..=epochs).map(|epoch| one(epoch, epochs, top, swaps, seed)).collect()
}

fn one(epoch: u32, epochs: u32, top: f64, swaps: bool, seed: u64) -> EpochMetrics {
    let time = f64::from(epoch) / f64::from(epochs) * 240.0;
    let stage = [150.0, 180.0, 210.0].iter().filter(|stage| time > **stage).count() as i32;
    let wobble =
        |key: u64| noise(key ^ (seed << 32) ^ u64::from(epoch)) * if stage == 0 { 1.6 } else { 0.25 };
    let risen = 1.0 - (-time / 22.0).exp();
    let gain = [0.0, 8.0, 9.5, 9.9][stage as usize];
    let top1 = (top - 9.9) * risen + gain + wobble(1);
    let train1 = (top - 16.0) * risen + gain * 1.3 + 0.3 * wobble(2);
    let gate = swaps && stage > 0;
    let level = 14.0 - 9.0 * risen - f64::from(stage) * 0.8 + 0.1 * wobble(3);
    let own = if gate { 2.6 + 1.2 * (-(time - 150.0) / 30.0).exp() + 0.05 * wobble(4) } else { 0.0 };
    let share = 1.0 - train1 / 100.0;
    let confidence = 0.008 * train1;
    let swap = SwapMetrics {
        teacher: SwapSide {
            share: 0.063 + 0.0015 * wobble(5),
            confidence_before: 0.884 + 0.001 * wobble(6),
            confidence_after: 0.927 + 0.001 * wobble(7),
        },
        student: SwapSide {
            share,
            confidence_before: confidence,
            confidence_after: confidence + 0.37 * share,
        },
        student_gate: gate,
        teacher_level: level,
        student_level: own,
    };
    let ce = 0.1 * (9.0 - 6.5 * risen - f64::from(stage) * 0.3);
    let kd = 0.9 * (level + own);
    let mut train =
        TrainMetrics { loss: ce + kd, top1: train1, top5: 50.0 + train1 / 2.0, ..Default::default() };
    if swaps {
        train.terms = [("ce".to_string(), ce), ("kd".to_string(), kd)].into();
    }
    EpochMetrics {
        epoch,
        lr: 0.025 * 0.1f64.powi(stage),
        train,
        validation: None,
        test: Accuracy { top1, top5: 62.0 + top1 * 0.42, loss: 4.4 - 0.046 * top1 },
        images_per_second: 512.0 + 9.0 * noise(seed ^ u64::from(epoch) << 8),
        seconds: 98.0 + noise(seed ^ u64::from(epoch) << 9),
        swap: swaps.then_some(swap),
    }
}

/// Counts of 100 test images a class that ends near `top`; neighbours are confused most.
pub fn evaluation(classes: usize, top: f64) -> Evaluation {
    let names = (0..classes).map(|i| CLASSES.get(i).map_or(format!("class_{i}"), |name| name.to_string()));
    let mut evaluation = Evaluation::new(240, names.collect());
    for label in 0..classes {
        let right = (top + 18.0 * noise(label as u64)).clamp(5.0, 99.0) / 100.0;
        for image in 0..100u64 {
            let draw = |key: u64| 0.5 + 0.5 * noise(key << 40 ^ image << 20 ^ label as u64);
            let prediction = if draw(1) < right {
                label
            } else if draw(2) < 0.6 {
                (label + 1 + (draw(3).powi(3) * 4.0) as usize * 7) % classes
            } else {
                (draw(4) * classes as f64) as usize
            };
            evaluation.count(label, prediction);
        }
    }
    evaluation
}

/// A description that fits.
pub fn info(distiller: &str, epochs: u32) -> RunInfo {
    let teacher = ModelInfo {
        name: "resnet32x4".into(),
        parameters: 7_433_860,
        top1: Some(79.42),
        ..Default::default()
    };
    RunInfo {
        distiller: distiller.into(),
        dataset: "CIFAR-100".into(),
        student: ModelInfo { name: "resnet8x4".into(), parameters: 1_233_540, ..Default::default() },
        teacher: (distiller != "NONE").then_some(teacher),
        device: "CPU (2 threads, AVX-512)".into(),
        precision: "f32".into(),
        train_images: 50_000,
        test_images: 10_000,
        test_digest: "c1fa2100".into(),
        train_digest: "7a1e2100".into(),
        changes: Vec::new(),
        validation_images: 0,
        epochs,
        patience: 0,
        batch_size: 64,
        device_bytes: 0,
        seed: 0,
        version: "0.1.0 (95be2d8)".into(),
        // 2026-11-27 03:18:49 UTC.
        started: 1_795_749_529,
        settings: vec![
            format!("DISTILLER.TYPE: \"{distiller}\""),
            "DISTILLER.TEACHER: \"resnet32x4\"".into(),
            "DISTILLER.STUDENT: \"resnet8x4\"".into(),
            "SOLVER.LR: 0.025".into(),
            "SOLVER.WEIGHT_DECAY: 0.0005".into(),
        ],
    }
}

const CLASSES: &[&str] = &[
    "apple",
    "aquarium_fish",
    "baby",
    "bear",
    "beaver",
    "bed",
    "bee",
    "beetle",
    "bicycle",
    "bottle",
    "bowl",
    "boy",
    "bridge",
    "bus",
    "butterfly",
    "camel",
    "can",
    "castle",
    "caterpillar",
    "cattle",
    "chair",
    "chimpanzee",
    "clock",
    "cloud",
    "cockroach",
    "couch",
    "crab",
    "crocodile",
    "cup",
    "dinosaur",
    "dolphin",
    "elephant",
    "flatfish",
    "forest",
    "fox",
    "girl",
    "hamster",
    "house",
    "kangaroo",
    "keyboard",
    "lamp",
    "lawn_mower",
    "leopard",
    "lion",
    "lizard",
    "lobster",
    "man",
    "maple_tree",
    "motorcycle",
    "mountain",
    "mouse",
    "mushroom",
    "oak_tree",
    "orange",
    "orchid",
    "otter",
    "palm_tree",
    "pear",
    "pickup_truck",
    "pine_tree",
    "plain",
    "plate",
    "poppy",
    "porcupine",
    "possum",
    "rabbit",
    "raccoon",
    "ray",
    "road",
    "rocket",
    "rose",
    "sea",
    "seal",
    "shark",
    "shrew",
    "skunk",
    "skyscraper",
    "snail",
    "snake",
    "spider",
    "squirrel",
    "streetcar",
    "sunflower",
    "sweet_pepper",
    "table",
    "tank",
    "telephone",
    "television",
    "tiger",
    "tractor",
    "train",
    "trout",
    "tulip",
    "turtle",
    "wardrobe",
    "whale",
    "willow_tree",
    "wolf",
    "woman",
    "worm",
];
