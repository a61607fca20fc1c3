//! The core of the tile kernels: both operands staged in workgroup memory, and the results in registers, of
//! single threads or of the matrix units.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use crate::target::{Operands, Target};

/// Sizes of a workgroup's tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tile {
    /// Rows of results.
    pub rows: usize,
    /// Columns of results.
    pub columns: usize,
    /// Values of k staged at a time; a multiple of 4.
    pub k: usize,
    core: Core,
}

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Core {
    /// Every thread owns a block of results.
    Threads {
        /// Rows of a thread.
        rows: usize,
        /// Vectors of columns of a thread. Its columns lie `columns / vectors` apart, so that neighbouring
        /// threads read neighbouring vectors.
        vectors: usize,
        /// Whether operands are staged in 16 bits.
        half: bool,
    },
    /// Every subgroup owns a block of 16x16 matrices.
    Matrices {
        /// Threads of a subgroup.
        lanes: usize,
        /// Matrices below and beside each other.
        down: usize,
        across: usize,
    },
}

/// Elements between rows of the staged operands beyond the tile's own, against bank conflicts.
const PADDING: usize = 4;
/// The same for matrices, whose rows must begin at multiples of 16 bytes.
const MATRIX_PADDING: usize = 8;
/// What gradients are multiplied by before they are rounded to 16 bits: what is below 64 does not
/// overflow, and what is above 6e-8 keeps at least ten bits.
pub const GRADIENT_SCALE: f32 = 1024.0;
/// Rows, columns and depth of a matrix.
const MATRIX: usize = 16;

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Tile { rows, columns, k, core } = self;
        write!(f, "tiles {rows}x{columns}x{k} of ")?;
        match core {
            Core::Threads { rows, vectors, .. } => write!(f, "{rows}x{}", 4 * vectors),
            Core::Matrices { down, across, .. } => write!(f, "{}x{}", down * MATRIX, across * MATRIX),
        }
    }
}

impl Tile {
    /// The tiles for a product with this many columns and values of k: first the one that is taken without
    /// measuring, then others that fit the target. Smaller ones make more workgroups of a small product, larger
    /// blocks of a thread or a subgroup read less for each product.
    pub fn candidates(target: &Target, columns: usize, k: usize) -> Vec<Tile> {
        let fits = |tile: &Tile| {
            tile.threads() <= target.limits.invocations as usize
                && tile.bytes() <= target.limits.workgroup_bytes as usize
        };
        let (fixed, others) = match target.operands {
            Operands::Matrix => {
                let wanted =
                    [Tile::matrices(target, columns, k, 128), Tile::matrices(target, columns, k, 64)];
                let least = Tile { k: MATRIX, ..wanted[1] };
                let fixed = wanted.into_iter().find(fits).unwrap_or(least);
                (fixed, fixed.other_matrices(k))
            }
            operands => {
                let fixed = Tile::threads_only(columns, k, operands == Operands::F16);
                (fixed, fixed.other_threads())
            }
        };
        debug_assert!(fits(&fixed));
        let mut tiles = vec![fixed];
        for tile in others.into_iter().filter(fits) {
            if !tiles.contains(&tile) {
                tiles.push(tile);
            }
        }
        tiles
    }

    fn threads_only(columns: usize, k: usize, half: bool) -> Tile {
        let k = if k >= 16 { 16 } else { k.next_multiple_of(4) };
        let core = |vectors| Core::Threads { rows: 8, vectors, half };
        match columns {
            0..=16 => Tile { rows: 128, columns: 16, k, core: core(1) },
            17..=32 => Tile { rows: 128, columns: 32, k, core: core(1) },
            33..=64 => Tile { rows: 128, columns: 64, k, core: core(1) },
            _ => Tile { rows: 128, columns: 128, k: k.min(8), core: core(2) },
        }
    }

    /// Rows and columns of a workgroup, rows and vectors of a thread.
    fn other_threads(self) -> Vec<Tile> {
        let Core::Threads { half, .. } = self.core else { return Vec::new() };
        let tile = |rows: usize, columns: usize, thread_rows: usize, vectors: usize| Tile {
            rows,
            columns,
            k: self.k,
            core: Core::Threads { rows: thread_rows, vectors, half },
        };
        let wide = self.columns;
        let mut tiles =
            vec![tile(64, wide, 8, 1), tile(64, wide, 4, 1), tile(32, wide, 4, 1), tile(256, wide, 8, 1)];
        if wide >= 32 {
            // Eight by eight results for a thread.
            tiles.extend([tile(128, wide, 8, 2), tile(64, wide, 8, 2)]);
        }
        if wide >= 64 {
            tiles.extend([tile(128, wide / 2, 8, 2), tile(64, wide / 2, 8, 1), tile(64, wide / 2, 4, 1)]);
        }
        // Less than a subgroup of most cards, or more than keeps a multiprocessor's registers free.
        tiles.retain(|tile| (32..=256).contains(&tile.threads()));
        tiles
    }

    /// A tile of at most so many columns. Four subgroups with 128 rows of 64 columns and 16 values of k fit
    /// the least that WebGPU guarantees.
    fn matrices(target: &Target, columns: usize, k: usize, most: usize) -> Tile {
        let lanes = target.subgroups.map_or(32, |s| s.min as usize);
        let width = columns.next_power_of_two().clamp(MATRIX, most);
        let deep = if k > MATRIX { 2 * MATRIX } else { MATRIX };
        // A subgroup has two rows of up to four matrices: 32 rows by 64 columns.
        let across = (width / MATRIX).min(4);
        Tile { rows: 128, columns: width, k: deep, core: Core::Matrices { lanes, down: 2, across } }
    }

    /// Rows and columns of a workgroup and the matrices of a subgroup, and another depth.
    fn other_matrices(self, k: usize) -> Vec<Tile> {
        let Core::Matrices { lanes, across, .. } = self.core else { return Vec::new() };
        let tile = |rows: usize, columns: usize, down: usize| {
            let across = across.min(columns / MATRIX);
            Tile { rows, columns, k: self.k, core: Core::Matrices { lanes, down, across } }
        };
        let wide = self.columns;
        let mut tiles = vec![tile(64, wide, 2), tile(64, wide, 1), tile(32, wide, 1), tile(128, wide, 4)];
        if wide > MATRIX {
            tiles.extend([tile(128, wide / 2, 2), tile(64, wide / 2, 2), tile(32, wide / 2, 1)]);
        }
        if k > 2 * MATRIX {
            tiles.push(Tile { k: 4 * MATRIX, ..self });
            tiles.push(Tile { k: 4 * MATRIX, ..tile(64, wide, 2) });
        }
        tiles
    }

    /// A line that a module with this tile begins with.
    pub fn enable(&self) -> &'static str {
        match self.core {
            Core::Threads { .. } => "",
            Core::Matrices { .. } => "enable wgpu_cooperative_matrix;\n",
        }
    }

    /// Entry point parameters beyond those of every tile kernel.
    pub fn parameters(&self) -> &'static str {
        match self.core {
            Core::Threads { .. } => "",
            Core::Matrices { .. } => {
                "    @builtin(subgroup_id) subgroup: u32,\n    @builtin(subgroup_invocation_id) lane: u32,\n"
            }
        }
    }

    /// Threads in a workgroup.
    pub fn threads(&self) -> usize {
        match self.core {
            Core::Threads { rows, .. } => (self.rows / rows) * self.thread_columns(),
            Core::Matrices { lanes, .. } => lanes * self.subgroups(),
        }
    }

    /// Subgroups in a workgroup of matrices.
    fn subgroups(&self) -> usize {
        match self.core {
            Core::Threads { .. } => 0,
            Core::Matrices { down, across, .. } => {
                (self.rows / (down * MATRIX)) * (self.columns / (across * MATRIX))
            }
        }
    }

    fn bytes(&self) -> usize {
        let element = if self.is_half() { 2 } else { 4 };
        let staged = (self.left_len() + self.right_len()) * element;
        staged + self.subgroups() * MATRIX * MATRIX * 4
    }

    fn left_len(&self) -> usize {
        match self.core {
            Core::Threads { .. } => self.k * (self.rows + PADDING),
            Core::Matrices { .. } => self.rows * self.left_stride(),
        }
    }

    fn right_len(&self) -> usize {
        match self.core {
            Core::Threads { .. } => self.k * self.columns,
            Core::Matrices { .. } => self.k * self.right_stride(),
        }
    }

    /// Elements from a row of the staged left matrices to the next.
    fn left_stride(&self) -> usize {
        self.k + MATRIX_PADDING
    }

    /// Elements from a row of the staged right matrices to the next.
    fn right_stride(&self) -> usize {
        self.columns + MATRIX_PADDING
    }

    fn thread_columns(&self) -> usize {
        match self.core {
            Core::Threads { vectors, .. } => self.columns / (vectors * 4),
            Core::Matrices { .. } => 1,
        }
    }

    /// Vectors of the left operand that each thread stages.
    pub fn left_loads(&self) -> usize {
        (self.rows * self.k / 4).div_ceil(self.threads())
    }

    /// Vectors of the right operand that each thread stages.
    pub fn right_loads(&self) -> usize {
        (self.columns * self.k / 4).div_ceil(self.threads())
    }

    /// The condition that load `i` of `total` vectors exists, for threads past the end; `None` if all do.
    fn guard(&self, i: usize, total: usize) -> Option<String> {
        let first = i * self.threads();
        (first + self.threads() > total).then(|| format!("thread + {first} < {total}"))
    }

    /// `if` around a staging statement where some threads have nothing to stage.
    fn guarded(&self, i: usize, is_left: bool, statement: &str) -> String {
        let total = (if is_left { self.rows } else { self.columns }) * self.k / 4;
        match self.guard(i, total) {
            Some(condition) => format!("    if {condition} {{\n{statement}    }}\n"),
            None => statement.to_string(),
        }
    }

    /// Statements that stage the vector `left{i}`, load `i` of the thread. `position` gives the k and the
    /// row of each of its elements.
    pub fn stage_left(&self, i: usize, position: impl Fn(usize) -> (String, String)) -> String {
        let statement: String = (0..4)
            .map(|c| {
                let (k, row) = position(c);
                let at = match self.core {
                    Core::Threads { .. } => format!("({k}) * {} + {row}", self.rows + PADDING),
                    Core::Matrices { .. } => format!("({row}) * {} + {k}", self.left_stride()),
                };
                format!("    left_tile[{at}] = {};\n", self.rounded(&format!("left{i}[{c}]"), "f16"))
            })
            .collect();
        self.guarded(i, true, &statement)
    }

    /// Statements that stage the vector `right{i}`, which is number `at{i}` of the row-major tile.
    pub fn stage_right(&self, i: usize) -> String {
        let statement = match self.core {
            Core::Threads { .. } => {
                format!("    right_tile[at{i}] = {};\n", self.rounded(&format!("right{i}"), "vec4<f16>"))
            }
            Core::Matrices { .. } => {
                let quads = self.columns / 4;
                let row = format!("(at{i} / {quads}) * {}", self.right_stride());
                let element = |c: usize| {
                    format!("    right_tile[{row} + (at{i} % {quads}) * 4 + {c}] = f16(right{i}[{c}]);\n")
                };
                (0..4).map(element).collect()
            }
        };
        self.guarded(i, false, &statement)
    }

    /// The value of an operand before it is staged. Gradients are scaled by a power of two: those of a mean
    /// over a batch and its pixels would often be too small for 16 bits.
    pub fn scaled(&self, value: &str, is_gradient: bool) -> String {
        if is_gradient && self.is_half() {
            format!("({value}) * {GRADIENT_SCALE:.1}")
        } else {
            value.to_string()
        }
    }

    /// A result without the scale of [`scaled`](Tile::scaled).
    pub fn unscaled(&self, value: &str, is_gradient: bool) -> String {
        if is_gradient && self.is_half() {
            format!("({value}) * {:?}", 1.0 / GRADIENT_SCALE)
        } else {
            value.to_string()
        }
    }

    /// How operands are staged.
    fn is_half(&self) -> bool {
        !matches!(self.core, Core::Threads { half: false, .. })
    }

    /// A value as it is staged.
    fn rounded(&self, value: &str, half_type: &str) -> String {
        if self.is_half() { format!("{half_type}({value})") } else { value.to_string() }
    }

    /// The workgroup memory: for threads `left_tile[k][row]` and `right_tile[k][column / 4]`, for matrices
    /// `left_tile[row][k]`, `right_tile[k][column]` and `result_tile[subgroup][row][column]`.
    pub fn declarations(&self) -> String {
        let (left, right) = (self.left_len(), self.right_len());
        match self.core {
            Core::Threads { half, .. } => {
                let element = if half { "f16" } else { "f32" };
                format!(
                    "var<workgroup> left_tile: array<{element}, {left}>;\n\
                     var<workgroup> right_tile: array<vec4<{element}>, {}>;\n",
                    right / 4
                )
            }
            Core::Matrices { .. } => format!(
                "var<workgroup> left_tile: array<f16, {left}>;\n\
                 var<workgroup> right_tile: array<f16, {right}>;\n\
                 var<workgroup> result_tile: array<f32, {}>;\n",
                self.subgroups() * MATRIX * MATRIX
            ),
        }
    }

    /// The accumulators and the place of their owner in the tile. For threads `sum{row}_{vector}`, with
    /// `thread_row`, the first row, and `thread_column`, the first vector; for matrices `sum{row}_{column}`
    /// with the first row and column of the subgroup.
    pub fn accumulators(&self) -> String {
        let mut text = String::new();
        match self.core {
            Core::Threads { rows, vectors, .. } => {
                let tc = self.thread_columns();
                let _ = writeln!(text, "    let thread_row = (thread / {tc}) * {rows};");
                let _ = writeln!(text, "    let thread_column = thread % {tc};");
                for r in 0..rows {
                    for v in 0..vectors {
                        let _ = writeln!(text, "    var sum{r}_{v} = vec4<f32>(0.0);");
                    }
                }
            }
            Core::Matrices { down, across, .. } => {
                let strips = self.rows / (down * MATRIX);
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

    /// Values of k whose products a thread adds up before it adds them to its running sums: as many as there are
    /// registers for.
    fn sum_depth(&self) -> usize {
        match self.core {
            Core::Threads { vectors: 1, half: false, .. } if self.k.is_multiple_of(8) => 8,
            Core::Threads { half: false, .. } => 4,
            // What 16 bits round off is far more.
            _ => 1,
        }
    }

    /// Values of k that a running sum stays accurate for. A sum of random products, `d` at a time
    /// ([`sum_depth`](Tile::sum_depth)), is off by about `sqrt(d / 2 + k / (2 d))` roundings: here by 7.
    pub fn longest_sum(&self) -> usize {
        if self.is_half() { usize::MAX } else { 90 * self.sum_depth() }
    }

    /// Multiplies the staged tiles. The accumulators are named: an array with a loop's index would be
    /// spilled to memory.
    pub fn multiply(&self) -> String {
        let mut text = String::new();
        match self.core {
            Core::Threads { rows, vectors, half } => {
                let wide = |value: String, wide_type: &str| {
                    if half { format!("{wide_type}({value})") } else { value }
                };
                // The products of a few values of k are added up by themselves first: a running sum over all of
                // k would be rounded as often.
                let depth = self.sum_depth();
                let _ = writeln!(text, "    for (var kk = 0; kk < {}; kk += {depth}) {{", self.k);
                for d in 0..depth {
                    for v in 0..vectors {
                        let quad = v * self.thread_columns();
                        let value =
                            format!("right_tile[(kk + {d}) * {} + thread_column + {quad}]", self.columns / 4);
                        let _ = writeln!(text, "        let b{d}_{v} = {};", wide(value, "vec4<f32>"));
                    }
                }
                for r in 0..rows {
                    for d in 0..depth {
                        let value =
                            format!("left_tile[(kk + {d}) * {} + thread_row + {r}]", self.rows + PADDING);
                        let _ = writeln!(text, "        let a{r}_{d} = {};", wide(value, "f32"));
                    }
                    for v in 0..vectors {
                        let product = |d: usize| format!("a{r}_{d} * b{d}_{v}");
                        let sum: Vec<String> = (0..depth).map(product).collect();
                        let _ = writeln!(text, "        sum{r}_{v} += {};", sum.join(" + "));
                    }
                }
                text += "    }\n";
            }
            // `coopLoadT` takes its matrix row by row, `coopLoad` column by column.
            Core::Matrices { down, across, .. } => {
                let (left, right) = (self.left_stride(), self.right_stride());
                let _ = writeln!(text, "    for (var kk = 0; kk < {}; kk += {MATRIX}) {{", self.k);
                for r in 0..down {
                    let at = format!("(strip_row + {}) * {left} + kk", r * MATRIX);
                    let _ = writeln!(
                        text,
                        "        let a{r} = coopLoadT<coop_mat16x16<f16, A>>(&left_tile[{at}], {left}u);"
                    );
                }
                for c in 0..across {
                    let at = format!("kk * {right} + strip_column + {}", c * MATRIX);
                    let _ = writeln!(
                        text,
                        "        let b{c} = coopLoadT<coop_mat16x16<f16, B>>(&right_tile[{at}], {right}u);"
                    );
                }
                for r in 0..down {
                    for c in 0..across {
                        let _ =
                            writeln!(text, "        sum{r}_{c} = coopMultiplyAdd(a{r}, b{c}, sum{r}_{c});");
                    }
                }
                text += "    }\n";
            }
        }
        text
    }

    /// A statement for every result vector of the thread; `f` gets its row and column within the tile and
    /// its value. Matrices go through workgroup memory, one of each subgroup at a time.
    pub fn results(&self, f: impl Fn(&str, &str, &str) -> String) -> String {
        let mut text = String::new();
        match self.core {
            Core::Threads { rows, vectors, .. } => {
                for r in 0..rows {
                    for v in 0..vectors {
                        let column = format!("(thread_column + {}) * 4", v * self.thread_columns());
                        text += &f(&format!("thread_row + {r}"), &column, &format!("sum{r}_{v}"));
                    }
                }
            }
            Core::Matrices { lanes, down, across } => {
                let (size, quads) = (MATRIX * MATRIX, MATRIX * MATRIX / 4);
                for r in 0..down {
                    for c in 0..across {
                        let _ = write!(
                            text,
                            "    workgroupBarrier();\n    \
                             coopStoreT(sum{r}_{c}, &result_tile[i32(subgroup) * {size}], {MATRIX}u);\n    \
                             workgroupBarrier();\n    \
                             for (var quad = i32(lane); quad < {quads}; quad += {lanes}) {{\n    \
                             let at = i32(subgroup) * {size} + quad * 4;\n    \
                             let value = vec4<f32>(result_tile[at], result_tile[at + 1], \
                             result_tile[at + 2], result_tile[at + 3]);\n"
                        );
                        let row = format!("strip_row + {} + quad / 4", r * MATRIX);
                        let column = format!("strip_column + {} + (quad % 4) * 4", c * MATRIX);
                        text += &f(&row, &column, "value");
                        text += "    }\n";
                    }
                }
            }
        }
        text
    }
}
