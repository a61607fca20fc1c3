//! Published ImageNet weights on real photographs: PyTorch's answers, where both are at hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use autograd::Tensor;
use cpu::CpuDevice;
use nn::checkpoint::{self, Role};
use nn::{Forward, models};
use sld::augment::normalize::Normalization;
use sld::data::pictures::{self, Sight};
use sld::picture::Picture;
use sld::training::Evaluator;
use sld_tests::compare::assert_close;
use sld_tests::{Fixture, Inputs, Program, runners};

const SIDE: usize = 224;

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(name);
    path.exists().then_some(path).or_else(|| {
        eprintln!("SKIPPED: there is no ../shared/{name}");
        None
    })
}

/// Torchvision's `.pth` as it is.
#[test]
fn torchvisions_mobilenet_v2_gives_pytorchs_logits() {
    let weights = shared("teachers/imagenet/mobilenet_v2-b0353104.pth");
    let (Some(weights), Some(samples)) = (weights, shared("data/imagenet-samples")) else { return };
    let expected = Fixture::open("models/imagenet/mobilenet_v2_real.safetensors").expect("committed");
    let network = checkpoint::read_network(&weights, Role::Teacher).unwrap();
    assert_eq!(nn::identify(&network.tensors), (vec!["imagenet/mobilenet_v2"], 1000));

    let table = Normalization::IMAGENET.table();
    let mut images = Vec::new();
    let crops = expected.json("crops");
    for crop in crops.as_array().unwrap() {
        let mut picture = Picture::default();
        picture.decode(&std::fs::read(samples.join(crop.as_str().unwrap())).unwrap()).unwrap();
        assert_eq!([picture.width(), picture.height()], [SIDE, SIDE]);
        let mut values = vec![0.0; picture.pixels().len()];
        table.apply(picture.pixels(), &mut values);
        images.extend(values);
    }
    let count = crops.as_array().unwrap().len();
    let model = models::build("imagenet/mobilenet_v2", 1000, 0).unwrap();
    let input = Tensor::input("images", &[count, SIDE, SIDE, 3]);
    for mut runner in runners(&["cpu"]) {
        let matched = checkpoint::match_names(&model.manifest(), &network.tensors).unwrap();
        for (entry, tensor) in model.state().iter().zip(matched) {
            runner.write(&entry.variable, &tensor.unwrap().data.to_f32());
        }
        for (what, mut forward) in [("folded", Forward::eval()), ("as PyTorch", Forward::eval_unfolded())] {
            let program = Program::new().output("logits", &model.forward(&input, &mut forward).logits);
            let call = Inputs::new().f32("images", images.clone());
            let logits = &runner.run(&program, &[call]).remove(0)["logits"];
            assert_close(what, logits, &expected.values("logits"), 1e-5);
        }
    }
}

/// A foreign checkpoint of the kind that people bring: the trainer's own wrapper around the names, an optimizer beside
/// the network, an `arch` that is another's. Of the 40 it knows 25 here; by its author's word nearly half of ImageNet's.
#[test]
fn a_quarter_of_mobilenet_v1_is_known_by_its_tensors_and_knows_photographs() {
    let weights = shared("teachers/imagenet/mobilenet_v1_025.pth.tar");
    let (Some(weights), Some(samples)) = (weights, shared("data/imagenet-samples")) else { return };
    let network = checkpoint::read_network(&weights, Role::Teacher).unwrap();
    assert_eq!(nn::identify(&network.tensors), (vec!["imagenet/MobileNetV1_025"], 1000));
    let device = CpuDevice::new(2);
    let model = models::build("imagenet/MobileNetV1_025", 1000, 0).unwrap();
    model.load(&network.tensors, &device).unwrap();
    let sight = Sight { side: SIDE, resize: 256, normalization: Normalization::IMAGENET };
    let photographs = pictures::open(&samples, sight, Some(pictures::IMAGENET)).unwrap().test.unwrap();
    assert_eq!(photographs.len(), 40);
    let mut evaluator = Evaluator::compile(&device, &model, 20, [SIDE, SIDE]).unwrap();
    let found = evaluator.run(&Arc::new(photographs), 2, |_, _| {}).unwrap();
    assert!(found.top1_correct >= 24 && found.top5_correct >= 34, "{found:?}");
}
