//! The augmentations against what Pillow 13.0.0 produced: equal bytes, case by case.

use safetensors::{Dtype, SafeTensors};
use sld::augment::photo::{Framing, Photo, evaluation_view};
use sld::augment::resample::{CropBox, Resampler, shorter_side};
use sld::augment::{Canvas, Normalization, Op, RandAugment, cutout::cutout, views::Geometry};

const SIDE: usize = 32;
const BYTES: usize = SIDE * SIDE * 3;
const IMAGES: [&str; 6] = ["noise", "ramp", "lowcontrast", "smooth", "constant", "twotone"];

fn fixture() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/aug/ops.safetensors");
    std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn bytes<'a>(tensors: &SafeTensors<'a>, name: &str) -> &'a [u8] {
    let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(tensor.dtype(), Dtype::U8, "{name}");
    tensor.data()
}

fn doubles(tensors: &SafeTensors, name: &str) -> Vec<f64> {
    let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(tensor.dtype(), Dtype::F64, "{name}");
    tensor.data().as_chunks::<8>().0.iter().map(|&eight| f64::from_le_bytes(eight)).collect()
}

#[track_caller]
fn assert_equal(actual: &[u8], expected: &[u8], case: &str) {
    assert_eq!(actual.len(), expected.len(), "{case}");
    let wrong = actual.iter().zip(expected).filter(|(a, b)| a != b).count();
    let first = actual.iter().zip(expected).position(|(a, b)| a != b);
    if let Some(at) = first {
        let (y, x, channel) = (at / 3 / SIDE, at / 3 % SIDE, at % 3);
        panic!(
            "{case}: {wrong} of {} bytes differ, first at row {y}, column {x}, channel {channel}: \
             {} instead of {}",
            actual.len(),
            actual[at],
            expected[at]
        );
    }
}

#[test]
fn every_operation_on_every_image_at_every_value() {
    let file = fixture();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut canvas = Canvas::new();
    let mut cases = 0;
    for op in Op::ALL {
        let values = doubles(&tensors, &format!("op/{op:?}/values"));
        for image in IMAGES {
            let input = bytes(&tensors, &format!("input/{image}"));
            let expected = bytes(&tensors, &format!("op/{op:?}/{image}"));
            assert_eq!(expected.len(), values.len() * BYTES);
            for (value, expected) in values.iter().zip(expected.chunks_exact(BYTES)) {
                canvas.load(input, SIDE, SIDE);
                op.apply(&mut canvas, *value);
                assert_equal(canvas.pixels(), expected, &format!("{op:?}({value}) of {image}"));
                cases += 1;
            }
        }
    }
    // 3 operations without a value, 9 with 5 values, Posterize with 6 and Solarize with 8; 6 images.
    assert_eq!(cases, 6 * (3 + 9 * 5 + 6 + 8));
}

#[test]
fn cutout_at_recorded_places() {
    let file = fixture();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let noise = bytes(&tensors, "input/noise");
    let expected = bytes(&tensors, "cutout/out_on_noise");
    let draws = doubles(&tensors, "cutout/v_cx_cy");
    let (draws, _) = draws.as_chunks::<3>();
    assert_eq!(draws.len(), 64);
    let mut canvas = Canvas::new();
    for (&[fraction, x, y], expected) in draws.iter().zip(expected.chunks_exact(BYTES)) {
        canvas.load(noise, SIDE, SIDE);
        cutout(&mut canvas, fraction, x, y);
        assert_equal(canvas.pixels(), expected, &format!("cutout({fraction}) at ({x}, {y})"));
    }
}

#[test]
fn crop_and_flip_at_recorded_offsets() {
    let file = fixture();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let noise = bytes(&tensors, "input/noise");
    let expected: Vec<&[u8]> = bytes(&tensors, "cropflip/out").chunks_exact(BYTES).collect();
    let offsets = tensors.tensor("cropflip/offsets").unwrap();
    let (offsets, _) = offsets.data().as_chunks::<16>();
    assert_eq!((offsets.len(), expected.len()), (5, 10));
    let mut canvas = Canvas::new();
    for (case, pair) in offsets.iter().enumerate() {
        let (top, left) = pair.split_at(8);
        let [top, left] = [top, left].map(|eight| i64::from_le_bytes(eight.try_into().unwrap()) as usize);
        for flip in [false, true] {
            Geometry { top, left, flip }.apply(&mut canvas, noise, SIDE, SIDE);
            let expected = expected[2 * case + usize::from(flip)];
            assert_equal(canvas.pixels(), expected, &format!("crop at ({top}, {left}), flip {flip}"));
        }
    }
}

#[test]
fn normalization_of_all_levels() {
    let file = fixture();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let expected = tensors.tensor("normalise/levels").unwrap();
    let expected: Vec<u32> =
        expected.data().as_chunks::<4>().0.iter().map(|&four| u32::from_le_bytes(four)).collect();
    let pixels: Vec<u8> = (0..=255).flat_map(|level| [level; 3]).collect();
    let mut floats = vec![0.0; pixels.len()];
    Normalization::CIFAR100.table().apply(&pixels, &mut floats);
    let actual: Vec<u32> = floats.iter().map(|value| value.to_bits()).collect();
    assert_eq!(actual, expected);
}

#[test]
fn whole_randaugment_calls() {
    let file = fixture();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let draws = doubles(&tensors, "randaugment/draws");
    let (draws, _) = draws.as_chunks::<7>();
    let expected = bytes(&tensors, "randaugment/out");
    assert_eq!((draws.len(), expected.len()), (64, 64 * BYTES));
    let mut canvas = Canvas::new();
    for (call, (&draw, expected)) in draws.iter().zip(expected.chunks_exact(BYTES)).enumerate() {
        let [op1, op2, u1, u2, cutout_unit, x, y] = draw;
        let randaugment = RandAugment {
            ops: [Op::ALL[op1 as usize], Op::ALL[op2 as usize]],
            units: [u1, u2],
            cutout_unit,
            cutout_centre: (x, y),
        };
        canvas.load(bytes(&tensors, &format!("input/{}", IMAGES[call % 4])), SIDE, SIDE);
        randaugment.apply(&mut canvas);
        assert_equal(canvas.pixels(), expected, &format!("call {call}: {randaugment:?}"));
    }
}

#[test]
fn imagenet_resizes_and_crops() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/aug/imagenet_geometry.safetensors");
    let file = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let integers = |name: &str| -> Vec<usize> {
        let tensor = tensors.tensor(name).unwrap();
        let (eights, _) = tensor.data().as_chunks::<8>();
        eights.iter().map(|&eight| i64::from_le_bytes(eight) as usize).collect()
    };
    let (mut resampler, mut canvas) = (Resampler::default(), Canvas::new());
    for image in ["a", "b"] {
        let input = tensors.tensor(&format!("{image}/input")).unwrap();
        let [height, width, 3] = *input.shape() else { panic!("{:?}", input.shape()) };
        let photo = Photo { pixels: input.data(), width, height };
        for (case, side) in [("rrc0", 64), ("rrc1", 112)] {
            let [top, left, rows, columns] = integers(&format!("{image}/{case}_ijhw"))[..] else { panic!() };
            let window = CropBox { top, left, height: rows, width: columns };
            Framing { window, flip: false }.apply(&mut resampler, &mut canvas, photo, side);
            assert!(
                canvas.pixels() == bytes(&tensors, &format!("{image}/{case}")),
                "{image}/{case} {window:?}"
            );
        }
        let resized = integers(&format!("{image}/resized_hw"));
        assert_eq!(shorter_side(width, height, 256), (resized[1], resized[0]));
        evaluation_view(&mut resampler, &mut canvas, photo, 256, 224);
        assert!(canvas.pixels() == bytes(&tensors, &format!("{image}/val_view")), "{image}/val_view");
    }
}
