//! The core of the tile kernels for real GPUs: both operands staged in workgroup memory, a block of
//! results in every thread's registers.

use std::fmt::Write;

use crate::Target;

/// Sizes of a workgroup's tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedTile {
    /// Rows of results.
    pub rows: usize,
    /// Columns of results.
    pub columns: usize,
    /// Values of k staged at a time; a multiple of 4.
    pub k: usize,
    /// Rows of a thread.
    pub thread_rows: usize,
    /// Vectors of columns of a thread. Its columns lie `columns / vectors` apart, so that neighbouring
    /// threads read neighbouring vectors.
    pub vectors: usize,
}

/// Elements between rows of the staged left operand beyond the tile's own, against bank conflicts.
const PADDING: usize = 4;

impl SharedTile {
    /// The tile for a product with this many columns and values of k.
    pub fn new(target: &Target, columns: usize, k: usize) -> SharedTile {
        let k = if k >= 16 { 16 } else { k.next_multiple_of(4) };
        let tile = match columns {
            0..=16 => SharedTile { rows: 128, columns: 16, k, thread_rows: 8, vectors: 1 },
            17..=32 => SharedTile { rows: 128, columns: 32, k, thread_rows: 8, vectors: 1 },
            33..=64 => SharedTile { rows: 128, columns: 64, k, thread_rows: 8, vectors: 1 },
            _ => SharedTile { rows: 128, columns: 128, k: k.min(8), thread_rows: 8, vectors: 2 },
        };
        debug_assert!(tile.threads() <= target.limits.invocations as usize);
        debug_assert!(tile.bytes() <= target.limits.workgroup_bytes as usize);
        tile
    }

    /// Threads in a workgroup.
    pub fn threads(&self) -> usize {
        (self.rows / self.thread_rows) * self.thread_columns()
    }

    fn bytes(&self) -> usize {
        self.k * (self.rows + PADDING + self.columns) * 4
    }

    fn thread_columns(&self) -> usize {
        self.columns / (self.vectors * 4)
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
    pub fn guarded(&self, i: usize, is_left: bool, statement: &str) -> String {
        let total = (if is_left { self.rows } else { self.columns }) * self.k / 4;
        match self.guard(i, total) {
            Some(condition) => format!("    if {condition} {{\n{statement}    }}\n"),
            None => statement.to_string(),
        }
    }

    /// The workgroup memory: `left_tile[k][row]`, `right_tile[k][column / 4]`.
    pub fn declarations(&self) -> String {
        format!(
            "var<workgroup> left_tile: array<f32, {}>;\nvar<workgroup> right_tile: array<vec4<f32>, {}>;\n",
            self.k * (self.rows + PADDING),
            self.k * self.columns / 4
        )
    }

    /// Where element `[k][row]` of the left tile lies.
    pub fn left_index(&self, k: &str, row: &str) -> String {
        format!("({k}) * {} + {row}", self.rows + PADDING)
    }

    /// Where vector `[k][quad]` of the right tile lies.
    pub fn right_index(&self, k: &str, quad: &str) -> String {
        format!("({k}) * {} + {quad}", self.columns / 4)
    }

    /// The accumulators `sum{row}_{vector}`, and the thread's place in the tile: `thread_row`, its first
    /// row, and `thread_column`, its first vector.
    pub fn accumulators(&self) -> String {
        let mut text = format!(
            "    let thread_row = (thread / {tc}) * {};\n    let thread_column = thread % {tc};\n",
            self.thread_rows,
            tc = self.thread_columns()
        );
        for r in 0..self.thread_rows {
            for v in 0..self.vectors {
                let _ = writeln!(text, "    var sum{r}_{v} = vec4<f32>(0.0);");
            }
        }
        text
    }

    /// Multiplies the staged tiles. The accumulators are named vectors: an array with a loop's index would
    /// be spilled to memory.
    pub fn multiply(&self) -> String {
        let mut text = format!("    for (var kk = 0; kk < {}; kk++) {{\n", self.k);
        for v in 0..self.vectors {
            let quad = format!("thread_column + {}", v * self.thread_columns());
            let _ = writeln!(text, "        let b{v} = right_tile[{}];", self.right_index("kk", &quad));
        }
        for r in 0..self.thread_rows {
            let row = format!("thread_row + {r}");
            let _ = writeln!(text, "        let a{r} = left_tile[{}];", self.left_index("kk", &row));
            for v in 0..self.vectors {
                let _ = writeln!(text, "        sum{r}_{v} += a{r} * b{v};");
            }
        }
        text + "    }\n"
    }

    /// A statement for every result vector of the thread; `f` gets its row and column within the tile and
    /// its value.
    pub fn results(&self, f: impl Fn(&str, &str, &str) -> String) -> String {
        let mut text = String::new();
        for r in 0..self.thread_rows {
            for v in 0..self.vectors {
                let column = format!("(thread_column + {}) * 4", v * self.thread_columns());
                text += &f(&format!("thread_row + {r}"), &column, &format!("sum{r}_{v}"));
            }
        }
        text
    }
}
