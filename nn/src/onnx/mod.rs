//! Inference expressions as ONNX models, for other programs to run.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nn::{models, onnx};
//! # use autograd::Variable;
//! # struct Initial;
//! # impl autograd::VariableStore for Initial {
//! #     fn read(&self, variable: &Variable) -> autograd::Result<Vec<f32>> { Ok(variable.initial().to_vec()) }
//! #     fn write(&self, _: &Variable, _: &[f32]) -> autograd::Result<()> { Ok(()) }
//! # }
//! # let device = Initial;
//!
//! let student = models::build("resnet8", 100, 1)?;
//! // `device` is where the student's weights are.
//! let model = onnx::network(&student, [32, 32], &device, &[("classes", "apple, aquarium fish, ..")])?;
//! assert!(model.len() > 4 * student.parameter_count());
//! # Ok(()) }
//! ```
//!
//! A node of the expression becomes a node of the model, but for three things:
//!
//! * What depends on weights alone (batch norm folded into a convolution, a transposed weight) is computed now,
//!   in `f64`, and becomes an initializer. A bias added to a convolution becomes the convolution's.
//! * The language has images with channels last, ONNX with channels before height and width. A value is kept as
//!   its maker gave it, with the order of its dims; transposing moves no number until somebody needs another order.
//! * ONNX repeats dims of size 1 by itself in elementwise operations, so a broadcast is written only for others.
//!
//! The batch stays open: the expression is written with [`BATCH`] images, a number that no other dim has.

mod error;
mod expression;
mod operand;
mod order;
mod proto;
mod writer;

pub use error::{BATCH, OnnxError};

use autograd::{Tensor, VariableStore};
use prost::Message;

use crate::layers::Forward;
use crate::models::Model;

/// The version of ONNX's operators that are written, and of its files: those of ONNX 1.13 (2022).
const OPERATORS: i64 = 18;
const FILES: i64 = 8;

/// The network in evaluation, as the bytes of an `.onnx` file: input `images` `[batch, channels, height, width]`
/// (normalised as the network was trained), output `logits` `[batch, classes]`. `properties` are names and values
/// for the reader of the file.
///
/// # Errors
/// A network of one's own with a primitive that ONNX does not have; an image size that it does not take; the
/// device's.
pub fn network(
    model: &Model,
    [height, width]: [usize; 2],
    device: &dyn VariableStore,
    properties: &[(&str, &str)],
) -> Result<Vec<u8>, OnnxError> {
    let images = Tensor::input("images", &[BATCH, height, width, model.channels()]);
    let logits = model.forward(&images, &mut Forward::eval()).logits;
    expression(model.name(), &[("logits", &logits)], device, properties)
}

/// Any expression of inputs and variables as the bytes of an `.onnx` file, with these names for the outputs.
/// Inputs of rank 4 are images `[BATCH, H, W, C]`: the model takes them as `[batch, C, H, W]`.
///
/// # Errors
/// As [`network`].
pub fn expression(
    name: &str,
    outputs: &[(&str, &Tensor)],
    device: &dyn VariableStore,
    properties: &[(&str, &str)],
) -> Result<Vec<u8>, OnnxError> {
    let graph = expression::translate(name, outputs, device)?;
    let properties = properties
        .iter()
        .map(|(key, value)| proto::Property { key: key.to_string(), value: value.to_string() });
    let model = proto::Model {
        ir_version: FILES,
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![proto::OperatorSet { domain: String::new(), version: OPERATORS }],
        metadata_props: properties.collect(),
    };
    Ok(model.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use autograd::{Conv2d, Variable, grad};

    use super::*;
    use crate::models;

    /// Variables have their initial values.
    struct Initial;

    impl VariableStore for Initial {
        fn read(&self, variable: &Variable) -> autograd::Result<Vec<f32>> {
            Ok(variable.initial().to_vec())
        }
        fn write(&self, _: &Variable, _: &[f32]) -> autograd::Result<()> {
            Ok(())
        }
    }

    fn dims(info: &proto::ValueInfo) -> Vec<String> {
        let tensor = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()).unwrap();
        let dims = &tensor.shape.as_ref().unwrap().dim;
        let text = |dim: &proto::Dimension| match dim.value.as_ref().unwrap() {
            proto::Size::Value(value) => value.to_string(),
            proto::Size::Parameter(name) => name.clone(),
        };
        dims.iter().map(text).collect()
    }

    #[test]
    fn a_residual_network_is_convolutions_with_biases_and_nothing_is_transposed() {
        let model = models::build("resnet8", 10, 1).unwrap();
        let bytes = network(&model, [32, 32], &Initial, &[("seen", "32")]).unwrap();
        let file = proto::Model::decode(&*bytes).unwrap();
        assert_eq!((&*file.metadata_props[0].key, &*file.metadata_props[0].value), ("seen", "32"));
        let graph = file.graph.unwrap();
        assert_eq!(dims(&graph.input[0]), ["batch", "3", "32", "32"]);
        assert_eq!(dims(&graph.output[0]), ["batch", "10"]);
        let mut kinds: HashMap<&str, usize> = HashMap::new();
        graph.node.iter().for_each(|node| *kinds.entry(&node.op_type).or_default() += 1);
        // A stem, three blocks of two and two shortcuts; three additions of blocks, one of the classifier's bias.
        let expected = [("Conv", 9), ("Relu", 7), ("Add", 4), ("MatMul", 1)];
        assert!(expected.iter().all(|(kind, count)| kinds.get(kind) == Some(count)), "{kinds:?}");
        assert!(!kinds.contains_key("Transpose"), "{kinds:?}");
        let convolutions = graph.node.iter().filter(|node| node.op_type == "Conv");
        assert!(convolutions.clone().all(|node| node.input.len() == 3));
        assert_eq!(convolutions.clone().next().unwrap().input[1], "conv1.weight");
        // Every weight once.
        let numbers: usize = graph.initializer.iter().map(|data| data.raw_data.len()).sum();
        assert!(numbers < 4 * model.parameter_count() + 500, "{numbers}");
    }

    #[test]
    fn what_onnx_does_not_have_is_named_with_its_line() {
        let weight = Variable::full("weight", &[1, 1, 3, 3], 0.5);
        let x = Tensor::input("x", &[BATCH, 4, 4, 1]);
        let loss = x.conv2d(&weight.tensor(), Conv2d::new(1, 1)).sum_all();
        let gradient = grad(&loss, &[weight.tensor()]).remove(0);
        let error = expression("gradient", &[("dw", &gradient)], &Initial, &[]).unwrap_err().to_string();
        assert!(error.contains("convolution_weight_grad has no counterpart"), "{error}");
        let half = x.slice(0, 0, 2, 1);
        let error = expression("half", &[("half", &half)], &Initial, &[]).unwrap_err().to_string();
        assert!(error.contains(file!()) && error.contains("number of images"), "{error}");
        let invalid = x.matmul(&x.reshape(&[1]));
        assert!(expression("invalid", &[("y", &invalid)], &Initial, &[]).is_err());
    }
}
