//! A schedule for people: a table of its kernels, and a graph in Mermaid or Graphviz.

use std::fmt::Write;

use crate::ir::{Body, Kernel, Schedule};

/// Names of written buffers in a row of the table, at most.
const MOST_NAMES: usize = 8;

/// What a kernel does to memory and arithmetic, by the direct algorithm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Floating point operations, a multiply-add being two.
    pub flops: u64,
    /// Bytes read and written, each buffer counted once.
    pub bytes: u64,
}

impl Schedule {
    /// The work of one kernel.
    pub fn work(&self, kernel: &Kernel) -> Work {
        let flops = match &kernel.body {
            Body::Map { shape, program, .. } => count(shape) * program.arithmetic() as u64,
            Body::Maps { parts } => {
                parts.iter().map(|p| count(&p.shape) * p.program.arithmetic() as u64).sum()
            }
            Body::Reduce { shape, program, accumulators, .. } => {
                count(shape) * (program.arithmetic() as u64 + accumulators.len() as u64)
            }
            Body::MatMul { batch, m, n, k, .. } => 2 * (batch * m * n * k) as u64,
            Body::Convolution { geometry, .. } => geometry.flops(),
            Body::Pool { geometry, .. } => {
                let g = geometry;
                let [kh, kw] = g.window.size;
                (g.batch * g.out_height * g.out_width * g.channels * kh * kw) as u64
            }
        };
        let bytes = kernel.buffers().iter().map(|&b| 4 * self.buffers[b].len() as u64).sum();
        Work { flops, bytes }
    }

    /// The total of [`Schedule::work`] over one call.
    pub fn total_work(&self) -> Work {
        self.kernels
            .iter()
            .map(|k| self.work(k))
            .fold(Work::default(), |a, b| Work { flops: a.flops + b.flops, bytes: a.bytes + b.bytes })
    }

    /// A table, one row a kernel: number, label, iteration shape, MFLOP, KiB, and what it writes.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:>4}  {:<62} {:<22} {:>10} {:>10}  writes",
            "#", "kernel", "shape", "MFLOP", "KiB"
        );
        let mut section = |title: &str, kernels: &[Kernel]| {
            if kernels.is_empty() {
                return;
            }
            let _ = writeln!(text, "-- {title}");
            for (at, kernel) in kernels.iter().enumerate() {
                let work = self.work(kernel);
                let mut writes: Vec<&str> =
                    kernel.writes().iter().map(|&b| self.buffers[b].label.as_str()).collect();
                let hidden = writes.len().saturating_sub(MOST_NAMES);
                writes.truncate(MOST_NAMES);
                let more = if hidden > 0 { format!(" and {hidden} more") } else { String::new() };
                let _ = writeln!(
                    text,
                    "{at:>4}  {:<62} {:<22} {:>10.2} {:>10.1}  {}{more}",
                    kernel.label,
                    shape_text(kernel),
                    work.flops as f64 / 1e6,
                    work.bytes as f64 / 1024.0,
                    writes.join(", ")
                );
            }
        };
        section("once, and after frozen state is written", &self.prepare);
        section("every call", &self.kernels);
        let total = self.total_work();
        let _ = writeln!(
            text,
            "{} kernels a call, {:.2} GFLOP, {:.1} MiB moved, {:.1} MiB of working memory",
            self.kernels.len(),
            total.flops as f64 / 1e9,
            total.bytes as f64 / 1048576.0,
            self.working_bytes() as f64 / 1048576.0
        );
        text
    }

    /// The data flow between kernels as a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        self.edges(
            &mut text,
            |text, name, label, is_kernel| {
                let (open, close) = if is_kernel { ("[", "]") } else { ("([", "])") };
                let _ = writeln!(text, "  {name}{open}\"{label}\"{close}");
            },
            |text, from, to| {
                let _ = writeln!(text, "  {from} --> {to}");
            },
        );
        text
    }

    /// The data flow between kernels in Graphviz' dot language.
    pub fn graphviz(&self) -> String {
        let mut text = String::from("digraph step {\n  rankdir=TB; node [fontname=\"sans-serif\"];\n");
        self.edges(
            &mut text,
            |text, name, label, is_kernel| {
                let shape = if is_kernel { "box" } else { "ellipse" };
                let _ = writeln!(text, "  {name} [shape={shape}, label=\"{label}\"];");
            },
            |text, from, to| {
                let _ = writeln!(text, "  {from} -> {to};");
            },
        );
        text.push_str("}\n");
        text
    }

    fn edges(
        &self,
        text: &mut String,
        node: impl Fn(&mut String, &str, &str, bool),
        edge: impl Fn(&mut String, &str, &str),
    ) {
        let mut writer: Vec<Option<String>> = vec![None; self.buffers.len()];
        let kernels = self.prepare.iter().map(|k| ("p", k)).chain(self.kernels.iter().map(|k| ("k", k)));
        for (number, (prefix, kernel)) in kernels.enumerate() {
            let name = format!("{prefix}{number}");
            node(
                text,
                &name,
                &format!("{}<br/>{}", kernel.label, shape_text(kernel)).replace("<br/>", " "),
                true,
            );
            for read in kernel.reads() {
                let from = writer[read].get_or_insert_with(|| {
                    let leaf = format!("b{read}");
                    node(text, &leaf, &self.buffers[read].label, false);
                    leaf
                });
                edge(text, from, &name);
            }
            kernel.writes().into_iter().for_each(|b| writer[b] = Some(name.clone()));
        }
        for (name, buffer) in &self.outputs {
            let id = format!("out_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
            node(text, &id, name, false);
            if let Some(from) = &writer[*buffer] {
                edge(text, from, &id);
            }
        }
    }
}

fn count(shape: &[usize]) -> u64 {
    shape.iter().product::<usize>() as u64
}

fn shape_text(kernel: &Kernel) -> String {
    let join = |dims: &[usize]| dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    match &kernel.body {
        Body::Map { shape, .. } => join(shape),
        Body::Maps { parts } => {
            let elements: u64 = parts.iter().map(|p| count(&p.shape)).sum();
            format!("{elements} in {} parts", parts.len())
        }
        Body::Reduce { shape, outer, .. } => {
            format!("{} | {}", join(&shape[..*outer]), join(&shape[*outer..]))
        }
        Body::MatMul { batch, m, n, k, .. } => format!("{batch}x{m}x{n}x{k}"),
        Body::Convolution { geometry: g, .. } => {
            format!("{}x{}x{} {}->{}", g.batch, g.height, g.width, g.in_channels, g.out_channels)
        }
        Body::Pool { geometry: g, .. } => format!("{}x{}x{}x{}", g.batch, g.height, g.width, g.channels),
    }
}
