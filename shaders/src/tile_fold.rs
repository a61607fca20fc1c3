//! The fold of a tile's results over its rows: every thread folds what it has, a fixed tree merges what the threads
//! have, and the states go to scratch, as those of [`Fold`]'s chunks do.

use std::fmt::Write;

use schedule::ReduceKind;

use crate::element::Element;
use crate::fold::Fold;
use crate::tile::{Core, MATRIX, Tile};

/// Bytes of workgroup memory that a thread takes: a count, and a state of up to three vectors.
pub const THREAD_BYTES: usize = 52;

/// Folds of the columns of a tile.
#[derive(Clone, Copy)]
pub struct TileFold<'a> {
    pub tile: Tile,
    /// Sums and variances.
    pub kinds: &'a [ReduceKind],
}

/// Which columns a thread folds.
struct Columns {
    /// Vectors of columns that neighbouring threads fold, and the threads that share them: powers of two.
    across: usize,
    deep: usize,
    /// The number of a thread among these, and of its columns.
    lane: String,
    column: String,
    /// Strips of columns, which a thread folds one by one.
    strips: usize,
    /// The vector of the tile that `column` is in strip number 0, and how far the next strip is.
    quad: String,
    strip_quads: usize,
}

impl TileFold<'_> {
    /// One of the folds by itself.
    fn one(&self, k: usize) -> Fold<'_> {
        Fold { kinds: &self.kinds[k..=k], is_vector: true, is_outer_dense: true, outer: 1, len: 1 }
    }

    /// Values in the states of a column.
    pub fn width(&self) -> usize {
        (0..self.kinds.len()).map(|k| self.one(k).width()).sum()
    }

    fn columns(&self) -> Columns {
        match self.tile.core {
            Core::Threads { vectors, .. } => {
                let across = self.tile.thread_columns();
                Columns {
                    across,
                    deep: self.tile.threads() / across,
                    lane: format!("thread / {across}"),
                    column: format!("thread % {across}"),
                    strips: vectors,
                    quad: "column".to_string(),
                    strip_quads: across,
                }
            }
            Core::Matrices { lanes, down, across, at_once, .. } => {
                let (quads, block) = (at_once * MATRIX / 4, across * MATRIX / 4);
                let strips = self.tile.rows / (down * MATRIX);
                let beside = lanes / quads;
                Columns {
                    across: self.tile.columns / (across * MATRIX) * quads,
                    deep: strips * beside,
                    lane: format!("(i32(subgroup) % {strips}) * {beside} + i32(lane) / {quads}"),
                    column: format!("i32(subgroup) / {strips} * {quads} + i32(lane) % {quads}"),
                    strips: across / at_once,
                    quad: format!("column / {quads} * {block} + column % {quads}"),
                    strip_quads: quads,
                }
            }
        }
    }

    /// The workgroup memory.
    pub fn declarations(&self) -> String {
        // One after the other.
        let widest = (0..self.kinds.len()).map(|k| self.one(k)).max_by_key(Fold::width);
        widest.map_or_else(String::new, |fold| fold.memory(self.tile.threads()))
    }

    /// The running values. A variance is taken of what values are above the first; what a sum rounds off is kept, but
    /// where the values come from factors of 16 bits.
    pub fn begin(&self) -> String {
        let mut text = "    let zero = params.count >> 31u;\n".to_string();
        for strip in 0..self.columns().strips {
            let _ = writeln!(text, "    var seen{strip} = 0.0;");
            for (k, kind) in self.kinds.iter().enumerate() {
                for name in running(*kind) {
                    let _ = writeln!(text, "    var {name}{strip}_{k} = vec4<f32>();");
                }
            }
        }
        text
    }

    /// Adds the values of a vector of results, the array `values`.
    pub fn add(&self, strip: usize, values: &str) -> String {
        let mut text = String::new();
        for (k, kind) in self.kinds.iter().enumerate() {
            let (of, value) = (format!("{strip}_{k}"), format!("{values}[{k}]"));
            text += &match kind {
                ReduceKind::Variance => format!(
                    " origin{of} = select(origin{of}, {value}, seen{strip} == 0.0); \
                     above{of} += {value} - origin{of}; \
                     squares{of} += ({value} - origin{of}) * ({value} - origin{of});"
                ),
                _ if self.tile.element() == Element::F16 => format!(" total{of} += {value};"),
                _ => format!(" off{of} += rounded_off_4(total{of}, {value}, zero); total{of} += {value};"),
            };
        }
        text + &format!(" seen{strip} += 1.0;")
    }

    /// Merges the threads' states; `store` is a statement that stores value `s` of all states, by its name, for the
    /// columns of the tile's vector `quad`.
    pub fn finish(&self, store: impl Fn(usize, &str) -> String) -> String {
        let Columns { across, deep, lane, column, strips, quad, strip_quads } = self.columns();
        let mut text = String::new();
        for strip in 0..strips {
            let mut position = 0;
            for (k, kind) in self.kinds.iter().enumerate() {
                let (fold, of) = (self.one(k), format!("{strip}_{k}"));
                let names = fold.names();
                let values = match kind {
                    ReduceKind::Variance => vec![
                        format!("origin{of} + above{of} / max(count, 1.0)"),
                        format!("max(squares{of} - above{of} * above{of} / max(count, 1.0), vec4<f32>())"),
                        "vec4<f32>()".to_string(),
                    ],
                    _ => vec![format!("total{of}"), format!("off{of}")],
                };
                let mut declared = String::new();
                for (name, value) in names.iter().zip(values) {
                    let _ = writeln!(declared, "    var {name} = {value};");
                }
                let tree = fold.tree(across, deep);
                let stores: String =
                    names.iter().enumerate().map(|(s, name)| store(position + s, name)).collect();
                position += names.len();
                let _ = write!(
                    text,
                    "    {{\n    let column = {column};\n    let lane = {lane};\n    var count = seen{strip};\n\
                     {declared}{tree}    \
                     if lane == 0 {{\n    let quad = {quad} + {};\n{stores}    }}\n    \
                     workgroupBarrier();\n    }}\n",
                    strip * strip_quads
                );
            }
        }
        text
    }
}

/// Names of the running values.
fn running(kind: ReduceKind) -> &'static [&'static str] {
    if kind == ReduceKind::Variance { &["origin", "above", "squares"] } else { &["total", "off"] }
}
