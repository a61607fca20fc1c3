//! A model while it is written: nodes, initializers, and names for their values.

use std::collections::HashSet;

use super::proto::{self, Attribute, Node, TensorData, attribute_type, data_type};

/// Numbers of an initializer.
pub enum Numbers {
    F32(Vec<f32>),
    I32(Vec<i32>),
    I64(Vec<i64>),
}

#[derive(Default)]
pub struct Writer {
    pub nodes: Vec<Node>,
    pub initializers: Vec<TensorData>,
    /// The layer that what is written now belongs to; empty between layers.
    pub layer: String,
    names: HashSet<String>,
}

impl Writer {
    /// A name that nothing has yet: this one, or with a number behind it.
    pub fn name(&mut self, wanted: &str) -> String {
        let numbered = (1..).map(|number| format!("{wanted}_{number}"));
        let mut names = std::iter::once(wanted.to_string()).chain(numbered);
        let name = names.find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        name
    }

    /// Appends a node of one output, whose name it returns.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let place = if self.layer.is_empty() { String::new() } else { format!("{}/", self.layer) };
        let output = self.name(&format!("{place}{}", op.to_lowercase()));
        self.named_node(output.clone(), op, inputs, attributes);
        output
    }

    /// Appends a node whose output has a name already.
    pub fn named_node(&mut self, output: String, op: &str, inputs: &[&str], attribute: Vec<Attribute>) {
        self.nodes.push(Node {
            input: inputs.iter().map(|name| name.to_string()).collect(),
            name: output.clone(),
            output: vec![output],
            op_type: op.into(),
            attribute,
        });
    }

    /// Appends an initializer, and returns its name.
    pub fn initializer(&mut self, wanted: &str, shape: &[usize], numbers: Numbers) -> String {
        let name = self.name(wanted);
        let (data_type, raw_data) = match numbers {
            Numbers::F32(values) => (data_type::FLOAT, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Numbers::I32(values) => (data_type::INT32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Numbers::I64(values) => (data_type::INT64, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        let dims = shape.iter().map(|&dim| dim as i64).collect();
        self.initializers.push(TensorData { dims, data_type, name: name.clone(), raw_data });
        name
    }

    /// A list of whole numbers, as operators take axes and shapes.
    pub fn integers(&mut self, wanted: &str, values: Vec<i64>) -> String {
        self.initializer(wanted, &[values.len()], Numbers::I64(values))
    }
}

pub fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.into(), i, ints: vec![], r#type: attribute_type::INT }
}

pub fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> Attribute {
    let ints = values.into_iter().map(|value| value as i64).collect();
    Attribute { name: name.into(), i: 0, ints, r#type: attribute_type::INTS }
}

/// An input or output of the model; a dim of `batch` stays open.
pub fn value_info(name: &str, elem_type: i32, shape: &[usize], batch: usize) -> proto::ValueInfo {
    let size = |dim: usize| match dim == batch {
        true => proto::Size::Parameter("batch".into()),
        false => proto::Size::Value(dim as i64),
    };
    let dim = shape.iter().map(|&dim| proto::Dimension { value: Some(size(dim)) }).collect();
    let tensor_type = proto::TensorType { elem_type, shape: Some(proto::Shape { dim }) };
    proto::ValueInfo { name: name.into(), r#type: Some(proto::Type { tensor_type: Some(tensor_type) }) }
}
