//! A schedule for people: a table of its kernels, by the part of the step and the layer they belong to.

use std::fmt::Write;

use autograd::scope::Scope;

use crate::ir::{Body, Kernel, Schedule};
use crate::work::Work;

/// Widths of the table's columns; with the gaps between them a row has at most 118 characters.
const NUMBER: usize = 5;
const LAYER: usize = 29;
const LABEL: usize = 38;
const SHAPE: usize = 22;
const AMOUNT: usize = 9;

impl Schedule {
    /// Where in the program a kernel belongs: where what it computes at its core does. Of a kernel for
    /// several layers the layer is what their paths begin with, and none if that is nothing.
    pub fn scope(&self, kernel: &Kernel) -> Scope {
        let written = match &kernel.body {
            // Not the sums beside it, which are the next layer's.
            Body::Convolution { epilogue, .. } if !epilogue.stores.is_empty() => {
                epilogue.stores.iter().map(|store| store.buffer).collect()
            }
            _ => kernel.writes(),
        };
        let scopes = written.into_iter().map(|buffer| self.buffers[buffer].scope.clone());
        scopes.reduce(together).unwrap_or_default()
    }

    /// The kernel by its number in the [`table`](Schedule::table) (`12`, or `p3` of those that run once),
    /// else all whose row contains the text (`student layer1.0.conv1`, `weight grad`), with their numbers.
    pub fn find(&self, wanted: &str) -> Vec<(String, &Kernel)> {
        let all: Vec<(String, &Kernel)> = self.numbered().collect();
        let row = |kernel: &Kernel| {
            let Scope { part, layer } = self.scope(kernel);
            format!("{part} {} {}", layer.as_deref().unwrap_or(""), kernel.label)
        };
        let numbered = all.iter().position(|(number, _)| number == wanted);
        match numbered {
            Some(at) => vec![all[at].clone()],
            None => all.into_iter().filter(|(_, kernel)| row(kernel).contains(wanted)).collect(),
        }
    }

    fn numbered(&self) -> impl Iterator<Item = (String, &Kernel)> {
        let once = self.prepare.iter().enumerate().map(|(at, kernel)| (format!("p{at}"), kernel));
        once.chain(self.kernels.iter().enumerate().map(|(at, kernel)| (at.to_string(), kernel)))
    }

    /// A table, one row a kernel: number in the order of execution, layer, label, iteration shape, MFLOP
    /// and KiB, grouped by the part of the step. No line is over 120 characters long.
    pub fn table(&self) -> String {
        self.table_of("shape", |_, kernel| (shape_text(kernel), self.work(kernel)))
    }

    /// The same with what a device does for each of [all kernels](Schedule::all_kernels), by number, instead of its
    /// shape: a text, under `head`, and its work there.
    pub fn table_of(&self, head: &str, row: impl Fn(usize, &Kernel) -> (String, Work)) -> String {
        let mut text = format!(
            "{:>NUMBER$}  {:<LAYER$} {:<LABEL$} {:<SHAPE$} {:>AMOUNT$} {:>AMOUNT$}\n",
            "#", "layer", "kernel", head, "MFLOP", "KiB"
        );
        let rows = self.numbered().enumerate().map(|(at, (number, kernel))| {
            let (what, work) = row(at, kernel);
            Row { number, kernel, scope: self.scope(kernel), what, work }
        });
        let mut once: Vec<Row> = rows.collect();
        let every = once.split_off(self.prepare.len());
        let total: Work = every.iter().map(|row| row.work).sum();
        for (rows, when) in [(once, "once, and after frozen state is written"), (every, "every call")] {
            // In the order in which the parts begin.
            let mut parts: Vec<(&str, Vec<Row>)> = Vec::new();
            for row in rows {
                let at = parts.iter().position(|(part, _)| *part == row.scope.part).unwrap_or(parts.len());
                if at == parts.len() {
                    parts.push((row.scope.part, Vec::new()));
                }
                parts[at].1.push(row);
            }
            for (part, rows) in parts {
                self.section(&mut text, part, when, &rows);
            }
        }
        let _ = writeln!(
            text,
            "{} kernels a call, {}, {:.1} MiB of working memory",
            self.kernels.len(),
            amount(total),
            self.working_bytes() as f64 / 1048576.0
        );
        text
    }

    fn section(&self, text: &mut String, part: &str, when: &str, rows: &[Row]) {
        let total = rows.iter().map(|row| row.work).sum();
        let part = if part.is_empty() { "step" } else { part };
        let _ = writeln!(text, "-- {part}, {when}: {}, {}", kernels(rows.len()), amount(total));
        let mut above = None;
        for Row { number, kernel, scope, what, work } in rows {
            // The layer once, above all of its kernels.
            let mut written = kernel.writes().into_iter().map(|buffer| &self.buffers[buffer].scope.layer);
            let layer = match &scope.layer {
                Some(layer) => layer,
                None if written.any(Option::is_some) => "several layers",
                None => "",
            };
            let shown = if above == Some(layer) { "" } else { layer };
            above = Some(layer);
            let _ = writeln!(
                text,
                "{number:>NUMBER$}  {:<LAYER$} {:<LABEL$} {:<SHAPE$} {:>AMOUNT$.2} {:>AMOUNT$.1}",
                cut(shown, LAYER),
                cut(&kernel.label, LABEL),
                cut(what, SHAPE),
                work.flops as f64 / 1e6,
                work.bytes as f64 / 1024.0,
            );
        }
    }
}

struct Row<'a> {
    number: String,
    kernel: &'a Kernel,
    scope: Scope,
    what: String,
    work: Work,
}

/// "3 kernels".
pub fn kernels(count: usize) -> String {
    if count == 1 { "1 kernel".into() } else { format!("{count} kernels") }
}

fn amount(work: Work) -> String {
    format!("{:.2} GFLOP, {:.1} MiB moved", work.flops as f64 / 1e9, work.bytes as f64 / 1048576.0)
}

/// The scope of both: the first's part, and what the layers' paths begin with.
fn together(a: Scope, b: Scope) -> Scope {
    let layer = match (&a.layer, &b.layer) {
        (Some(x), Some(y)) if x == y => a.layer.clone(),
        (Some(x), Some(y)) => {
            let common = x.split('.').zip(y.split('.')).take_while(|(x, y)| x == y).map(|(x, _)| x);
            let common = common.collect::<Vec<_>>().join(".");
            (!common.is_empty()).then(|| common.into())
        }
        _ => None,
    };
    Scope { layer, ..a }
}

/// The text, or its beginning where it is longer than `width`.
pub fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 2).chain("..".chars()).collect(),
        false => text.into(),
    }
}

fn shape_text(kernel: &Kernel) -> String {
    let join = |dims: &[usize]| dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    match &kernel.body {
        Body::Map { parts } => match &parts[..] {
            [part] => join(&part.shape),
            _ => {
                let elements: usize = parts.iter().map(|p| p.shape.iter().product::<usize>()).sum();
                format!("{elements} in {} parts", parts.len())
            }
        },
        Body::Reduce { shape, outer, .. } => {
            format!("{} | {}", join(&shape[..*outer]), join(&shape[*outer..]))
        }
        Body::MatMul { batch, m, n, k, .. } => format!("{batch}x{m}x{n}x{k}"),
        Body::Convolution { geometry: g, .. } => {
            format!("{}x{}x{} {}->{}", g.batch, g.height, g.width, g.in_channels, g.out_channels)
        }
        Body::Pool { geometry: g, .. } => format!("{}x{}x{}x{}", g.batch, g.height, g.width, g.channels),
        Body::AllReduce { .. } => "all processes".into(),
    }
}
