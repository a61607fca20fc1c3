//! Published ImageNet weights on real photographs: PyTorch's answers, where both are at hand.

use std::path::{Path, PathBuf};

use autograd::Tensor;
use nn::checkpoint::{self, Role};
use nn::{Forward, models};
use sld::augment::normalize::Normalization;
use sld::picture::Picture;
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
