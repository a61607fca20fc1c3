//! The WGSL of the tiles of products.

use std::fmt::Write;

use crate::element::{Element, SMALL_SCALE};
use crate::emit::{quotient, remainder};
use crate::operand::Rounding;
use crate::tile::{Core, GRADIENT_SCALE, MATRIX, PADDING, Tile};

/// A tile, and how its operands lie in workgroup memory.
#[derive(Clone, Copy)]
pub struct TileText {
    pub tile: Tile,
    /// Whether values of k lie side by side where operands come from, or rows and columns.
    pub is_along_k: bool,
}

/// One of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Side {
    /// What variables are named after.
    pub fn name(self) -> &'static str {
        match self {
            Side::Left => "left",
            Side::Right => "right",
        }
    }
}

/// How an operand lies in workgroup memory. A *line* is a row of the left one, a column of the right one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Elements: `[k][line]`.
    Elements,
    /// Vectors of four values of k: `[line][k / 4]`. The rows of a thread lie apart, so that neighbouring threads
    /// read neighbouring rows.
    AlongK,
    /// Vectors of four lines: `[k][line / 4]`.
    AlongLines,
}

impl TileText {
    /// Matrices are read along k: that is how the units want them, whatever the card. Threads read vectors of columns,
    /// and vectors of the left operand where it is staged in vectors. (Those of an operand that comes along k take
    /// room: they are for tiles that are loaded ahead.)
    fn layout(&self, side: Side) -> Layout {
        match (self.tile.core, side) {
            (Core::Matrices { .. }, _) => Layout::AlongK,
            (Core::Threads { .. }, Side::Right) => Layout::AlongLines,
            (Core::Threads { .. }, Side::Left) if !self.is_along_k => Layout::AlongLines,
            (Core::Threads { .. }, Side::Left) if self.tile.ahead => Layout::AlongK,
            (Core::Threads { .. }, Side::Left) => Layout::Elements,
        }
    }

    /// A line that a module with this tile begins with.
    pub fn enable(&self) -> &'static str {
        match self.tile.core {
            Core::Threads { .. } => "",
            Core::Matrices { .. } => "enable wgpu_cooperative_matrix;\n",
        }
    }

    /// Entry point parameters beyond those of every tile kernel.
    pub fn parameters(&self) -> &'static str {
        match self.tile.core {
            Core::Threads { .. } => "",
            Core::Matrices { .. } => {
                "    @builtin(subgroup_id) subgroup: u32,\n    @builtin(subgroup_invocation_id) lane: u32,\n"
            }
        }
    }

    /// Rows or columns of the tile.
    pub fn lines(&self, side: Side) -> usize {
        match side {
            Side::Left => self.tile.rows,
            Side::Right => self.tile.columns,
        }
    }

    /// Elements of a staged operand, and how many of them its array has in one.
    fn len(&self, side: Side) -> (usize, usize) {
        let len = if side == Side::Left { self.tile.left_len() } else { self.tile.right_len() };
        (len, if self.layout(side) == Layout::Elements { 1 } else { 4 })
    }

    /// The workgroup memory: both operands as [`Layout`] says, and for matrices
    /// `result_tile[subgroup][row][column / 4]` of some of their matrices.
    pub fn declarations(&self) -> String {
        let tile = &self.tile;
        let array = |side: Side| {
            let (len, width) = self.len(side);
            let element = tile.staged().wgsl(width == 4);
            format!(
                "var<workgroup> {}_tile: array<{element}, {}>;\n",
                side.name(),
                tile.halves() * len / width
            )
        };
        let staged = array(Side::Left) + &array(Side::Right);
        match tile.core {
            Core::Threads { .. } => staged,
            Core::Matrices { .. } => {
                format!("{staged}var<workgroup> result_tile: array<vec4<f32>, {}>;\n", tile.result_quads())
            }
        }
    }

    /// A staged operand at an index. Of two halves it is the one that was staged last, or is staged now.
    fn at(&self, side: Side, index: &str) -> String {
        let (len, width) = self.len(side);
        let half = if self.tile.ahead { format!("(step & 1) * {} + ", len / width) } else { String::new() };
        format!("{}_tile[{half}{index}]", side.name())
    }

    /// Statements that stage a vector of values of k, number `quad` of a line.
    pub fn stage_along_k(&self, side: Side, line: &str, quad: &str, value: &str) -> String {
        match self.layout(side) {
            Layout::AlongK => {
                let first = format!("{line} * {} + {quad}", self.tile.line_stride() / 4);
                match self.tile.element() {
                    Element::Pair => {
                        let [large, small] =
                            [0, self.tile.k / 4].map(|by| self.at(side, &format!("{first} + {by}")));
                        format!("    {large} = {value}[0];\n    {small} = {value}[1];\n")
                    }
                    _ => format!("    {} = {value};\n", self.at(side, &first)),
                }
            }
            _ => (0..4)
                .map(|c| {
                    let row = self.tile.rows + PADDING;
                    let at = self.at(side, &format!("({quad} * 4 + {c}) * {row} + {line}"));
                    format!("    {at} = {value}[{c}];\n")
                })
                .collect(),
        }
    }

    /// A statement that stages a vector of lines, number `quad`, of one value of k.
    pub fn stage_along_lines(&self, side: Side, k: &str, quad: &str, value: &str) -> String {
        format!("    {} = {value};\n", self.at(side, &format!("{k} * {} + {quad}", self.lines(side) / 4)))
    }

    /// The WGSL of a vector made of one component of each of some vectors.
    pub fn turned(&self, vectors: &[String], component: usize) -> String {
        let turned = |of: &str| {
            let values: Vec<_> = vectors.iter().map(|vector| format!("{vector}{of}[{component}]")).collect();
            format!("{}({})", self.tile.staged().wgsl(true), values.join(", "))
        };
        match self.tile.element() {
            Element::Pair => format!("mat2x4<f16>({}, {})", turned("[0]"), turned("[1]")),
            _ => turned(""),
        }
    }

    /// What is staged of an operand. Gradients are scaled by a power of two before they are rounded: those of a mean over
    /// a batch and its pixels would often be too small for 16 bits.
    pub fn rounding(&self, is_gradient: bool) -> Rounding {
        let element = self.tile.element();
        let scale = if is_gradient && element != Element::F32 { GRADIENT_SCALE } else { 1.0 };
        Rounding { element, scale }
    }

    /// A result without the scale of [`rounding`](TileText::rounding).
    pub fn unscaled(&self, value: &str, is_gradient: bool) -> String {
        match self.rounding(is_gradient).scale {
            1.0 => value.to_string(),
            scale => format!("({value}) * {:?}", 1.0 / scale),
        }
    }

    /// From the first row of a thread to that of the next, and from a row of a thread to its next.
    fn row_steps(&self, thread_rows: usize) -> [usize; 2] {
        match self.layout(Side::Left) {
            Layout::AlongK => [1, self.tile.rows / thread_rows],
            Layout::Elements | Layout::AlongLines => [thread_rows, 1],
        }
    }

    /// The accumulators and the place of their owner in the tile. For threads `sum{row}_{vector}`, with
    /// `thread_row`, the first row, and `thread_column`, the first vector; for matrices `sum{row}_{column}`
    /// with the first row and column of the subgroup.
    pub fn accumulators(&self) -> String {
        let mut text = String::new();
        match self.tile.core {
            Core::Threads { rows, vectors, .. } => {
                let tc = self.tile.thread_columns();
                let [to_thread, _] = self.row_steps(rows);
                let _ = writeln!(text, "    let thread_row = (thread / {tc}) * {to_thread};");
                let _ = writeln!(text, "    let thread_column = thread % {tc};");
                for r in 0..rows {
                    for v in 0..vectors {
                        let _ = writeln!(text, "    var sum{r}_{v} = vec4<f32>(0.0);");
                    }
                }
            }
            Core::Matrices { down, across, pairs, .. } => {
                let strips = self.tile.rows / (down * MATRIX);
                let row = remainder("i32(subgroup)", strips);
                let _ = writeln!(text, "    let strip_row = {row} * {};", down * MATRIX);
                let column = quotient("i32(subgroup)", strips);
                let _ = writeln!(text, "    let strip_column = {column} * {};", across * MATRIX);
                for r in 0..down {
                    for c in 0..across {
                        let _ = writeln!(text, "    var sum{r}_{c} = coop_mat16x16<f32, C>();");
                        if pairs {
                            let _ = writeln!(text, "    var small{r}_{c} = coop_mat16x16<f32, C>();");
                        }
                    }
                }
            }
        }
        text
    }

    /// Multiplies the staged tiles. The accumulators are named: an array with a loop's index would be
    /// spilled to memory.
    pub fn multiply(&self) -> String {
        match self.tile.core {
            Core::Threads { rows, vectors, half } => self.multiply_threads(rows, vectors, half),
            Core::Matrices { down, across, pairs, .. } => self.multiply_matrices([down, across], pairs),
        }
    }

    /// The same where a step has been staged before. For naga an `if` by a variable is no uniform control flow, which
    /// matrices need, but a loop is.
    pub fn multiply_staged(&self) -> String {
        let guard = match self.tile.core {
            Core::Threads { .. } => "if step > 0",
            Core::Matrices { .. } => "for (var once = min(step, 1); once > 0; once--)",
        };
        format!("    {guard} {{\n{}    }}\n", self.multiply())
    }

    /// The products of a few values of k are added up by themselves first: a running sum over all of k would be
    /// rounded as often.
    fn multiply_threads(&self, rows: usize, vectors: usize, half: bool) -> String {
        let tile = &self.tile;
        let wide =
            |value: String, wide_type: &str| if half { format!("{wide_type}({value})") } else { value };
        let (depth, left) = (tile.sum_depth(), self.layout(Side::Left));
        let span = depth.max(if left == Layout::AlongK { 4 } else { 1 });
        let [_, to_row] = self.row_steps(rows);
        let mut text = format!("    for (var kk = 0; kk < {}; kk += {span}) {{\n", tile.k);
        for d in 0..span {
            for v in 0..vectors {
                let quad = v * tile.thread_columns();
                let at = format!("(kk + {d}) * {} + thread_column + {quad}", tile.columns / 4);
                let value = self.at(Side::Right, &at);
                let _ = writeln!(text, "        let b{d}_{v} = {};", wide(value, "vec4<f32>"));
            }
        }
        for r in 0..rows {
            let mut read = |name: String, at: String, wide_type: &str| {
                let _ = writeln!(text, "        let {name} = {};", wide(self.at(Side::Left, &at), wide_type));
            };
            match left {
                Layout::Elements => (0..span).for_each(|d| {
                    let at = format!("(kk + {d}) * {} + thread_row + {r}", tile.rows + PADDING);
                    read(format!("a{r}_{d}"), at, "f32");
                }),
                Layout::AlongK => (0..span / 4).for_each(|q| {
                    let row = format!("(thread_row + {}) * {}", r * to_row, tile.line_stride() / 4);
                    read(format!("a{r}_{q}"), format!("{row} + kk / 4 + {q}"), "vec4<f32>");
                }),
                Layout::AlongLines if r % 4 == 0 => (0..span).for_each(|d| {
                    let at = format!("(kk + {d}) * {} + thread_row / 4 + {}", tile.rows / 4, r / 4);
                    read(format!("a{r}_{d}"), at, "vec4<f32>");
                }),
                Layout::AlongLines => {}
            }
            let value = |d: usize| match left {
                Layout::Elements => format!("a{r}_{d}"),
                Layout::AlongK => format!("a{r}_{}[{}]", d / 4, d % 4),
                Layout::AlongLines => format!("a{}_{d}[{}]", r - r % 4, r % 4),
            };
            for v in 0..vectors {
                for first in (0..span).step_by(depth) {
                    let product = |d: usize| format!("{} * b{d}_{v}", value(d));
                    let sum: Vec<String> = (first..first + depth).map(product).collect();
                    let _ = writeln!(text, "        sum{r}_{v} += {};", sum.join(" + "));
                }
            }
        }
        text + "    }\n"
    }

    /// `coopLoadT` takes its matrix row by row, `coopLoad` column by column; strides count vectors, as both point to
    /// these.
    ///
    /// Of pairs the products of large parts are added to the sums outside of the units, which cut off what does not fit
    /// where they add. Products with small parts have sums of their own; those of two small parts are left out.
    fn multiply_matrices(&self, [down, across]: [usize; 2], pairs: bool) -> String {
        let (stride, k, step) = (self.tile.line_stride() / 4, self.tile.k / 4, MATRIX / 4);
        // Products of matrices that the units add up by themselves.
        let depth = if pairs { self.tile.sum_depth() / MATRIX } else { 1 };
        let mut text = String::new();
        if pairs {
            text += "    let zeros = coop_mat16x16<f32, C>();\n";
        }
        let _ = writeln!(text, "    for (var kk = 0; kk < {k}; kk += {}) {{", depth * step);
        let parts = if pairs { &[("", 0), ("_small", k)][..] } else { &[("", 0)] };
        for ((part, by), d) in parts.iter().flat_map(|&part| (0..depth).map(move |d| (part, d))) {
            let at = |side: Side, line: String| {
                self.at(side, &format!("({line}) * {stride} + kk + {}", by + d * step))
            };
            for r in 0..down {
                let at = at(Side::Left, format!("strip_row + {}", r * MATRIX));
                let _ = writeln!(
                    text,
                    "        let a{r}_{d}{part} = coopLoadT<coop_mat16x16<f16, A>>(&{at}, {stride}u);"
                );
            }
            for c in 0..across {
                let at = at(Side::Right, format!("strip_column + {}", c * MATRIX));
                let _ = writeln!(
                    text,
                    "        let b{c}_{d}{part} = coopLoad<coop_mat16x16<f16, B>>(&{at}, {stride}u);"
                );
            }
        }
        for (r, c) in (0..down).flat_map(|r| (0..across).map(move |c| (r, c))) {
            if !pairs {
                let _ = writeln!(text, "        sum{r}_{c} = coopMultiplyAdd(a{r}_0, b{c}_0, sum{r}_{c});");
                continue;
            }
            let _ = writeln!(text, "        var large{r}_{c} = zeros;");
            for d in 0..depth {
                for (sum, a, b) in [("large", "", ""), ("small", "", "_small"), ("small", "_small", "")] {
                    let sum = format!("{sum}{r}_{c}");
                    let _ =
                        writeln!(text, "        {sum} = coopMultiplyAdd(a{r}_{d}{a}, b{c}_{d}{b}, {sum});");
                }
            }
            let _ = writeln!(text, "        sum{r}_{c} = sum{r}_{c} + large{r}_{c};");
        }
        text + "    }\n"
    }

    /// After all products: the sums of those with small parts join the others.
    pub fn finish_sums(&self) -> String {
        let Core::Matrices { down, across, pairs: true, .. } = self.tile.core else { return String::new() };
        let sums = (0..down).flat_map(|r| (0..across).map(move |c| format!("{r}_{c}")));
        let scale = 1.0 / SMALL_SCALE;
        sums.map(|of| format!("    sum{of} = sum{of} + small{of} * {scale:?};\n")).collect()
    }

    /// A statement for every result vector of the thread; `f` gets its row and its vector of columns within the tile, the
    /// number of the columns among those of the thread, and its value. Matrices go through workgroup memory, so that a
    /// thread gets whole vectors.
    pub fn results(&self, f: impl Fn(&str, &str, usize, &str) -> String) -> String {
        let mut text = String::new();
        match self.tile.core {
            Core::Threads { rows, vectors, .. } => {
                let [_, to_row] = self.row_steps(rows);
                for r in 0..rows {
                    for v in 0..vectors {
                        let row = format!("thread_row + {}", r * to_row);
                        let quad = format!("thread_column + {}", v * self.tile.thread_columns());
                        text += &f(&row, &quad, v, &format!("sum{r}_{v}"));
                    }
                }
            }
            Core::Matrices { lanes, down, across, at_once, .. } => {
                // Vectors of a row of the matrices that go at once.
                let quads = at_once * MATRIX / 4;
                let _ = writeln!(
                    text,
                    "    let results = i32(subgroup) * {};\n    \
                     let result = results + i32(lane);\n    \
                     let result_row = strip_row + i32(lane / {quads}u);\n    \
                     let result_quad = strip_column / 4 + i32(lane % {quads}u);",
                    quads * MATRIX
                );
                for (r, first) in (0..down).flat_map(|r| (0..across).step_by(at_once).map(move |c| (r, c))) {
                    text += "    workgroupBarrier();\n";
                    for c in 0..at_once {
                        let at = format!("results + {}", c * MATRIX / 4);
                        let sum = format!("sum{r}_{}", first + c);
                        let _ = writeln!(text, "    coopStoreT({sum}, &result_tile[{at}], {quads}u);");
                    }
                    text += "    workgroupBarrier();\n";
                    for quad in (0..quads * MATRIX).step_by(lanes) {
                        let row = format!("result_row + {}", r * MATRIX + quad / quads);
                        let column = format!("result_quad + {}", first * MATRIX / 4);
                        text += &f(&row, &column, first / at_once, &format!("result_tile[result + {quad}]"));
                    }
                }
            }
        }
        text
    }
}
