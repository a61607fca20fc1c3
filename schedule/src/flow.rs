//! How data flow through a schedule, as a graph in Mermaid or Graphviz that fits a screen: a node is a part
//! of the step within some layers, not a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::explain::kernels;
use crate::ir::{Kernel, Role, Schedule};
use crate::work::Work;

/// Nodes that fit a screen. Layers are folded further until there are no more.
const MOST_NODES: usize = 30;

/// How far layers are folded: to blocks (`layer1.0`), to stages (`layer1`), or to nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fold {
    Block,
    Stage,
    Part,
}

/// What a node stands for: a part of the step, and the layers whose paths begin so.
type Key = (&'static str, String);

struct Flow {
    /// In order of execution.
    nodes: Vec<(Key, usize, Work)>,
    inputs: BTreeSet<String>,
    /// From and to, by the names of nodes in the graph.
    edges: BTreeSet<(String, String)>,
    outputs: Vec<String>,
}

impl Schedule {
    /// The data flow between parts and layers as a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let flow = self.flow();
        let mut text = String::from("flowchart TD\n");
        for name in flow.inputs.iter().chain(&flow.outputs) {
            let _ = writeln!(text, "  {}([\"{name}\"])", leaf(name));
        }
        for (part, members) in flow.parts() {
            let _ = writeln!(text, "  subgraph {part}");
            for at in members {
                let _ = writeln!(text, "    n{at}[\"{}\"]", flow.label(at, "<br/>"));
            }
            text += "  end\n";
        }
        for (from, to) in &flow.edges {
            let _ = writeln!(text, "  {from} --> {to}");
        }
        text
    }

    /// The data flow between parts and layers in Graphviz' dot language.
    pub fn graphviz(&self) -> String {
        let flow = self.flow();
        let mut text = String::from(
            "digraph step {\n  rankdir=TB; node [fontname=\"sans-serif\", shape=box]; \
             graph [fontname=\"sans-serif\"];\n",
        );
        for name in flow.inputs.iter().chain(&flow.outputs) {
            let _ = writeln!(text, "  {} [shape=ellipse, label=\"{name}\"];", leaf(name));
        }
        for (part, members) in flow.parts() {
            let _ = writeln!(text, "  subgraph cluster_{part} {{\n    label=\"{part}\";");
            for at in members {
                let _ = writeln!(text, "    n{at} [label=\"{}\"];", flow.label(at, "\\n"));
            }
            text += "  }\n";
        }
        for (from, to) in &flow.edges {
            let _ = writeln!(text, "  {from} -> {to};");
        }
        text + "}\n"
    }

    fn flow(&self) -> Flow {
        let nodes = |fold| self.kernels.iter().map(|k| self.key(k, fold)).collect::<BTreeSet<_>>().len();
        let fold = [Fold::Block, Fold::Stage].into_iter().find(|&fold| nodes(fold) <= MOST_NODES);
        let fold = fold.unwrap_or(Fold::Part);
        let mut flow =
            Flow { nodes: vec![], inputs: BTreeSet::new(), edges: BTreeSet::new(), outputs: vec![] };
        // The node that wrote a buffer last.
        let mut writer: BTreeMap<usize, String> = BTreeMap::new();
        for kernel in &self.kernels {
            let key = self.key(kernel, fold);
            let at = flow.nodes.iter().position(|node| node.0 == key).unwrap_or_else(|| {
                flow.nodes.push((key, 0, Work::default()));
                flow.nodes.len() - 1
            });
            let (_, count, work) = &mut flow.nodes[at];
            *count += 1;
            *work = *work + self.work(kernel);
            for read in kernel.reads() {
                let from = match (&self.buffers[read].role, writer.get(&read)) {
                    (_, Some(node)) => node.clone(),
                    (Role::Input { name, .. }, None) => {
                        flow.inputs.insert(name.clone());
                        leaf(name)
                    }
                    // State and what is made of it beforehand: every layer has some.
                    _ => continue,
                };
                if from != format!("n{at}") {
                    flow.edges.insert((from, format!("n{at}")));
                }
            }
            writer.extend(kernel.writes().into_iter().map(|buffer| (buffer, format!("n{at}"))));
        }
        for (name, buffer) in &self.outputs {
            flow.outputs.push(name.clone());
            flow.edges.extend(writer.get(buffer).map(|from| (from.clone(), leaf(name))));
        }
        flow
    }

    fn key(&self, kernel: &Kernel, fold: Fold) -> Key {
        let scope = self.scope(kernel);
        let part = if scope.part.is_empty() { "step" } else { scope.part };
        let layer = scope.layer.as_deref().unwrap_or("");
        let names: Vec<&str> = layer.split('.').collect();
        // A block is a number in a stage.
        let number = names.iter().position(|name| name.parse::<u32>().is_ok());
        let kept = match (fold, number) {
            (Fold::Part, _) => 0,
            (Fold::Block, Some(at)) => at + 1,
            (Fold::Stage, Some(at)) => at.max(1),
            (_, None) => names.len(),
        };
        (part, names[..kept].join("."))
    }
}

impl Flow {
    /// The numbers of the nodes of each part, in order of execution.
    fn parts(&self) -> Vec<(&'static str, Vec<usize>)> {
        let mut parts: Vec<(&str, Vec<usize>)> = Vec::new();
        for (at, ((part, _), ..)) in self.nodes.iter().enumerate() {
            match parts.iter_mut().find(|(known, _)| known == part) {
                Some((_, members)) => members.push(at),
                None => parts.push((part, vec![at])),
            }
        }
        parts
    }

    fn label(&self, at: usize, line: &str) -> String {
        let ((part, layers), count, work) = &self.nodes[at];
        let name = if layers.is_empty() { part } else { layers.as_str() };
        format!("{name}{line}{}, {:.1} MFLOP", kernels(*count), work.flops as f64 / 1e6)
    }
}

/// The name in the graph of an input or output.
fn leaf(name: &str) -> String {
    format!("io_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}
