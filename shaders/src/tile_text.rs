//! The WGSL of the tiles of products.

use std::fmt::Write;

use crate::tile::{Core, GRADIENT_SCALE, MATRIX, MATRIX_PADDING, PADDING, Tile};

/// A tile, and how the left operand lies in workgroup memory.
#[derive(Clone, Copy)]
pub struct TileText {
    pub tile: Tile,
    left: Left,
}

#[derive(Clone, Copy)]
enum Left {
    /// Elements: `[k][row]`.
    Elements,
    /// Vectors of four values of k: `[row][k / 4]`. The rows of a thread lie apart, so that neighbouring threads
    /// read neighbouring rows.
    AlongK,
    /// Vectors of four rows: `[k][row / 4]`.
    AlongRows,
}

impl TileText {
    /// Of a left operand that is loaded in vectors along its rows, or along k. For matrices, and where it is loaded
    /// ahead, it is staged in the same vectors, which takes a quarter of the writes, or of the reads. (In others it
    /// cannot be: threads that write elements of one vector may undo each other's.)
    pub fn new(tile: Tile, is_along_rows: bool) -> TileText {
        let left = match tile.core {
            Core::Threads { .. } if !tile.ahead => Left::Elements,
            _ if is_along_rows => Left::AlongRows,
            _ => Left::AlongK,
        };
        TileText { tile, left }
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

    /// Elements in what `left_tile` is an array of; `right_tile` and `result_tile` are of vectors.
    fn left_width(&self) -> usize {
        match self.left {
            Left::Elements => 1,
            Left::AlongK | Left::AlongRows => 4,
        }
    }

    /// Vectors from a row of `left_tile` to the next: a row of the operand, or where it lies along rows a value of k.
    fn left_quads(&self) -> usize {
        let padding = if self.tile.subgroups() > 0 { MATRIX_PADDING } else { 0 };
        match self.left {
            Left::AlongRows => (self.tile.rows + padding) / 4,
            Left::Elements | Left::AlongK => self.tile.left_stride() / 4,
        }
    }

    /// The workgroup memory: `left_tile` as [`Left`] says, `right_tile[k][column / 4]`, and for matrices
    /// `result_tile[subgroup][row][column / 4]` of some of their matrices.
    pub fn declarations(&self) -> String {
        let tile = &self.tile;
        let array = |name: &str, len: usize, width: usize| {
            let element = if tile.is_half() { "f16" } else { "f32" };
            let element = if width == 4 { format!("vec4<{element}>") } else { element.to_string() };
            format!("var<workgroup> {name}: array<{element}, {}>;\n", tile.halves() * len / width)
        };
        let staged = array("left_tile", tile.left_len(), self.left_width())
            + &array("right_tile", tile.right_len(), 4);
        match tile.core {
            Core::Threads { .. } => staged,
            Core::Matrices { .. } => {
                format!("{staged}var<workgroup> result_tile: array<vec4<f32>, {}>;\n", tile.result_quads())
            }
        }
    }

    /// `left_tile` at an index. Of two halves it is the one that was staged last, or is staged now.
    fn left_at(&self, index: &str) -> String {
        format!("left_tile[{}{index}]", self.half(self.tile.left_len() / self.left_width()))
    }

    /// The same of `right_tile`.
    fn right_at(&self, index: &str) -> String {
        format!("right_tile[{}{index}]", self.half(self.tile.right_len() / 4))
    }

    fn half(&self, len: usize) -> String {
        if self.tile.ahead { format!("(step & 1) * {len} + ") } else { String::new() }
    }

    /// `if` around a staging statement where some threads have nothing to stage.
    fn guarded(&self, i: usize, is_left: bool, statement: &str) -> String {
        let Tile { rows, columns, k, .. } = self.tile;
        let (total, first) = ((if is_left { rows } else { columns }) * k / 4, i * self.tile.threads());
        if first + self.tile.threads() > total {
            format!("    if thread + {first} < {total} {{\n{statement}    }}\n")
        } else {
            statement.to_string()
        }
    }

    /// Statements that stage the vector `left{i}`, load `i` of the thread. `position` gives the k and the
    /// row of each of its elements.
    pub fn stage_left(&self, i: usize, position: impl Fn(usize) -> (String, String)) -> String {
        let store = |at: String, value: String| format!("    {} = {value};\n", self.left_at(&at));
        let element = |c: usize| {
            let (k, row) = position(c);
            store(format!("({k}) * {} + {row}", self.tile.rows + PADDING), format!("left{i}[{c}]"))
        };
        let (k, row) = position(0);
        let quads = self.left_quads();
        let statements = match self.left {
            Left::Elements => (0..4).map(element).collect(),
            Left::AlongK => store(format!("({row}) * {quads} + ({k}) / 4"), format!("left{i}")),
            Left::AlongRows => store(format!("({k}) * {quads} + ({row}) / 4"), format!("left{i}")),
        };
        self.guarded(i, true, &statements)
    }

    /// Statements that stage the vector `right{i}`, which is number `at{i}` of the row-major tile.
    pub fn stage_right(&self, i: usize) -> String {
        let (quads, stride) = (self.tile.columns / 4, self.tile.right_stride() / 4);
        let at = match stride == quads {
            true => format!("at{i}"),
            false => format!("(at{i} / {quads}) * {stride} + at{i} % {quads}"),
        };
        self.guarded(i, false, &format!("    {} = right{i};\n", self.right_at(&at)))
    }

    /// A vector of an operand as it is staged. Gradients are scaled by a power of two before they are rounded: those
    /// of a mean over a batch and its pixels would often be too small for 16 bits.
    pub fn staged(&self, value: &str, is_gradient: bool) -> String {
        match (self.tile.is_half(), is_gradient) {
            (false, _) => value.to_string(),
            (true, false) => format!("vec4<f16>({value})"),
            (true, true) => format!("vec4<f16>(({value}) * {GRADIENT_SCALE:.1})"),
        }
    }

    /// The type of what [`staged`](TileText::staged) makes.
    pub fn staged_type(&self) -> &'static str {
        if self.tile.is_half() { "vec4<f16>" } else { "vec4<f32>" }
    }

    /// A result without the scale of [`staged`](TileText::staged).
    pub fn unscaled(&self, value: &str, is_gradient: bool) -> String {
        if is_gradient && self.tile.is_half() {
            format!("({value}) * {:?}", 1.0 / GRADIENT_SCALE)
        } else {
            value.to_string()
        }
    }

    /// From the first row of a thread to that of the next, and from a row of a thread to its next.
    fn row_steps(&self, thread_rows: usize) -> [usize; 2] {
        match self.left {
            Left::AlongK => [1, self.tile.rows / thread_rows],
            Left::Elements | Left::AlongRows => [thread_rows, 1],
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
            Core::Matrices { down, across, .. } => {
                let strips = self.tile.rows / (down * MATRIX);
                let _ = writeln!(text, "    let strip_row = (i32(subgroup) % {strips}) * {};", down * MATRIX);
                let _ = writeln!(
                    text,
                    "    let strip_column = (i32(subgroup) / {strips}) * {};",
                    across * MATRIX
                );
                for r in 0..down {
                    for c in 0..across {
                        let _ = writeln!(text, "    var sum{r}_{c} = coop_mat16x16<f32, C>();");
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
            Core::Matrices { down, across, .. } => self.multiply_matrices(down, across),
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
        let depth = tile.sum_depth();
        let span = depth.max(if let Left::AlongK = self.left { 4 } else { 1 });
        let [_, to_row] = self.row_steps(rows);
        let mut text = format!("    for (var kk = 0; kk < {}; kk += {span}) {{\n", tile.k);
        for d in 0..span {
            for v in 0..vectors {
                let quad = v * tile.thread_columns();
                let value =
                    self.right_at(&format!("(kk + {d}) * {} + thread_column + {quad}", tile.columns / 4));
                let _ = writeln!(text, "        let b{d}_{v} = {};", wide(value, "vec4<f32>"));
            }
        }
        for r in 0..rows {
            let mut read = |name: String, at: String, wide_type: &str| {
                let _ = writeln!(text, "        let {name} = {};", wide(self.left_at(&at), wide_type));
            };
            match self.left {
                Left::Elements => (0..span).for_each(|d| {
                    let at = format!("(kk + {d}) * {} + thread_row + {r}", tile.rows + PADDING);
                    read(format!("a{r}_{d}"), at, "f32");
                }),
                Left::AlongK => (0..span / 4).for_each(|q| {
                    let row = format!("(thread_row + {}) * {}", r * to_row, self.left_quads());
                    read(format!("a{r}_{q}"), format!("{row} + kk / 4 + {q}"), "vec4<f32>");
                }),
                Left::AlongRows if r % 4 == 0 => (0..span).for_each(|d| {
                    let at = format!("(kk + {d}) * {} + thread_row / 4 + {}", self.left_quads(), r / 4);
                    read(format!("a{r}_{d}"), at, "vec4<f32>");
                }),
                Left::AlongRows => {}
            }
            let left = |d: usize| match self.left {
                Left::Elements => format!("a{r}_{d}"),
                Left::AlongK => format!("a{r}_{}[{}]", d / 4, d % 4),
                Left::AlongRows => format!("a{}_{d}[{}]", r - r % 4, r % 4),
            };
            for v in 0..vectors {
                for first in (0..span).step_by(depth) {
                    let product = |d: usize| format!("{} * b{d}_{v}", left(d));
                    let sum: Vec<String> = (first..first + depth).map(product).collect();
                    let _ = writeln!(text, "        sum{r}_{v} += {};", sum.join(" + "));
                }
            }
        }
        text + "    }\n"
    }

    /// `coopLoadT` takes its matrix row by row, `coopLoad` column by column; strides count vectors, as both point to
    /// these.
    fn multiply_matrices(&self, down: usize, across: usize) -> String {
        let (left, right) = (self.left_quads(), self.tile.right_stride() / 4);
        let mut text = format!("    for (var kk = 0; kk < {}; kk += {MATRIX}) {{\n", self.tile.k);
        for r in 0..down {
            let row = format!("(strip_row + {})", r * MATRIX);
            let (load, at) = match self.left {
                Left::AlongRows => ("coopLoad", format!("kk * {left} + {row} / 4")),
                Left::Elements | Left::AlongK => ("coopLoadT", format!("{row} * {left} + kk / 4")),
            };
            let at = self.left_at(&at);
            let _ = writeln!(text, "        let a{r} = {load}<coop_mat16x16<f16, A>>(&{at}, {left}u);");
        }
        for c in 0..across {
            let at = self.right_at(&format!("kk * {right} + strip_column / 4 + {}", c * MATRIX / 4));
            let _ = writeln!(text, "        let b{c} = coopLoadT<coop_mat16x16<f16, B>>(&{at}, {right}u);");
        }
        for r in 0..down {
            for c in 0..across {
                let _ = writeln!(text, "        sum{r}_{c} = coopMultiplyAdd(a{r}, b{c}, sum{r}_{c});");
            }
        }
        text + "    }\n"
    }

    /// A statement for every result vector of the thread; `f` gets its row and column within the tile, the number of
    /// the columns among those of the thread, and its value. Matrices go through workgroup memory, so that a thread gets
    /// whole vectors.
    pub fn results(&self, f: impl Fn(&str, &str, usize, &str) -> String) -> String {
        let mut text = String::new();
        match self.tile.core {
            Core::Threads { rows, vectors, .. } => {
                let [_, to_row] = self.row_steps(rows);
                for r in 0..rows {
                    for v in 0..vectors {
                        let row = format!("thread_row + {}", r * to_row);
                        let column = format!("(thread_column + {}) * 4", v * self.tile.thread_columns());
                        text += &f(&row, &column, v, &format!("sum{r}_{v}"));
                    }
                }
            }
            Core::Matrices { lanes, down, across, at_once } => {
                // Vectors of a row of the matrices that go at once.
                let quads = at_once * MATRIX / 4;
                let _ = writeln!(text, "    let results = i32(subgroup) * {};", quads * MATRIX);
                for (r, first) in (0..down).flat_map(|r| (0..across).step_by(at_once).map(move |c| (r, c))) {
                    text += "    workgroupBarrier();\n";
                    for c in 0..at_once {
                        let at = format!("results + {}", c * MATRIX / 4);
                        let sum = format!("sum{r}_{}", first + c);
                        let _ = writeln!(text, "    coopStoreT({sum}, &result_tile[{at}], {quads}u);");
                    }
                    text += "    workgroupBarrier();\n";
                    for quad in (0..quads * MATRIX).step_by(lanes).map(|quad| format!("(lane + {quad}u)")) {
                        let row = format!("strip_row + {} + i32({quad} / {quads}u)", r * MATRIX);
                        let column =
                            format!("strip_column + {} + i32({quad} % {quads}u) * 4", first * MATRIX);
                        let value = format!("result_tile[results + i32{quad}]");
                        text += &f(&row, &column, first / at_once, &value);
                    }
                }
            }
        }
        text
    }
}
