//! A layer of one's own, with a parameter and a running statistic, checked by finite differences.
//!
//! The layer divides each channel by a running mean of its magnitude, and scales it by a number that is learned.
//!
//!     cargo run --release --example own_layer

use std::collections::HashMap;

use nn::prelude::*;
use schedule::{Device, Step, Value};

struct SizeNorm {
    weight: Variable,
    running_size: Variable,
}

impl SizeNorm {
    fn new(b: &mut Builder, name: &str, channels: usize) -> SizeNorm {
        // From here on names continue `name`: `NAME.weight`, as in a state dict of PyTorch.
        let mut at = b.at(name);
        SizeNorm {
            weight: at.parameter("weight", &[channels], |_| vec![1.0; channels]),
            // Not learned; as a variance it may not be negative, or a file with it is refused.
            running_size: at.add("running_size", &[channels], Kind::Variance, |_| vec![1.0; channels]),
        }
    }

    /// `[N, C] -> [N, C]`.
    fn forward(&self, x: &Tensor, forward: &mut Forward) -> Tensor {
        // For tables of the step: expressions from here on are this layer's.
        let _layer = within(&self.weight);
        let size = forward.current(&self.running_size);
        if forward.is_training() {
            let batch = x.abs().mean(&[0]).reshape(self.running_size.shape());
            forward.update(&self.running_size, &size * 0.9 + batch.detach() * 0.1);
        }
        x * self.weight.tensor() / (size + 1e-3)
    }
}

pub(crate) fn main() -> anyhow::Result<()> {
    let initializer = Initializer::new(Initialization::PYTORCH, 1);
    let (layer, state) = Builder::build(initializer, |b| SizeNorm::new(b, "norm", 3));
    println!("its state: {:?}", state.iter().map(|entry| &entry.variable).collect::<Vec<_>>());

    // No rule for its gradient has to be written: it is made of operations that have one.
    let x = Tensor::input("x", &[4, 3]);
    let mut forward = Forward::train(1);
    let loss = layer.forward(&x, &mut forward).square().mean_all();
    let gradient = grad(&loss, &[layer.weight.tensor()]).remove(0);

    // Finite differences, in f64: the same expressions, evaluated plainly.
    let values: Vec<f64> = (0..12).map(|i| 1.5 - 0.3 * f64::from(i)).collect();
    let inputs = HashMap::from([("x".to_string(), values.clone())]);
    let evaluate = |tensor: &Tensor, weight: [f64; 3]| -> anyhow::Result<Vec<f64>> {
        let state = HashMap::from([(layer.weight.id(), weight.to_vec())]);
        Ok(autograd::evaluate(std::slice::from_ref(tensor), &inputs, &state, &HashMap::new())?.remove(0))
    };
    let exact = evaluate(&gradient, [1.0; 3])?;
    for channel in 0..3 {
        let at = |offset: f64| {
            let mut weight = [1.0; 3];
            weight[channel] += offset;
            evaluate(&loss, weight).map(|loss| loss[0])
        };
        let numeric = (at(1e-5)? - at(-1e-5)?) / 2e-5;
        println!("d loss / d weight[{channel}] = {:.8}, by differences {numeric:.8}", exact[channel]);
        anyhow::ensure!((exact[channel] - numeric).abs() < 1e-8, "the gradient is wrong");
    }

    // On a device its statistic moves with every step of training.
    let device = cpu::CpuDevice::new(1);
    let mut step = device.compile_step(&Step::new().output("loss", &loss).updates(forward.into_updates()))?;
    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    for _ in 0..60 {
        step.call(&[("x", Value::F32(&values))])?;
    }
    let size = autograd::VariableStore::read(&device, &layer.running_size)?;
    println!("running sizes after 60 steps: {size:.3?}");
    let mean = (0..4).map(|row| values[3 * row].abs()).sum::<f32>() / 4.0;
    anyhow::ensure!((size[0] - mean).abs() < 0.01, "the running size is not the batch's, {mean}");
    Ok(())
}
