//! The tiles of products: both operands staged in workgroup memory, and the results in registers, of single
//! threads or of the matrix units. [`tile_text`](crate::tile_text) writes them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::element::Element;
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
    pub core: Core,
    /// Whether threads load what they stage next before they multiply what is staged: two halves of workgroup
    /// memory, of which one is staged while the other is multiplied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ahead: bool,
}

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Core {
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
        /// How many beside each other hand their results to the threads at once, through workgroup memory.
        at_once: usize,
        /// Whether they multiply pairs, see [`Operands::Split`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pairs: bool,
    },
}

/// Elements between rows of the staged operands beyond the tile's own, against bank conflicts.
pub const PADDING: usize = 4;
/// The same for matrices, whose rows must begin at multiples of 16 bytes.
pub const MATRIX_PADDING: usize = 8;
/// What gradients are multiplied by before they are rounded to 16 bits: what is below 64 does not
/// overflow, and what is above 6e-8 keeps at least ten bits.
pub const GRADIENT_SCALE: f32 = 1024.0;
/// Rows, columns and depth of a matrix.
pub const MATRIX: usize = 16;

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Tile { rows, columns, k, core, ahead } = self;
        write!(f, "tiles {rows}x{columns}x{k} of ")?;
        match core {
            Core::Threads { rows, vectors, .. } => write!(f, "{rows}x{}", 4 * vectors),
            Core::Matrices { down, across, .. } => write!(f, "{}x{}", down * MATRIX, across * MATRIX),
        }?;
        f.write_str(if *ahead { ", loaded ahead" } else { "" })
    }
}

impl Tile {
    /// The tiles for a product with this many columns and values of k: first the one that is taken without
    /// measuring, then others that fit the target. Smaller ones make more workgroups of a small product, larger
    /// blocks of a thread or a subgroup read less for each product.
    /// `thread_bytes` are needed beside the tile for each thread.
    pub fn candidates(target: &Target, columns: usize, k: usize, thread_bytes: usize) -> Vec<Tile> {
        let fits = |tile: &Tile| {
            tile.threads() <= target.limits.invocations as usize
                && tile.bytes() + tile.threads() * thread_bytes <= target.limits.workgroup_bytes as usize
        };
        let (fixed, others) = match target.operands {
            operands @ (Operands::Matrix | Operands::Split) => {
                let wanted =
                    [Tile::matrices(target, columns, k, 128), Tile::matrices(target, columns, k, 64)];
                // Beside the states of a variance, in 32 KiB.
                let narrow = if operands == Operands::Split { 32 } else { 64 };
                let least = Tile { k: MATRIX, ..Tile::matrices(target, columns, k, narrow) };
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
        let ahead =
            tiles.iter().filter(|tile| tile.has_large_blocks()).map(|&tile| Tile { ahead: true, ..tile });
        let ahead: Vec<Tile> = ahead.filter(fits).collect();
        tiles.extend(ahead);
        // What workgroup memory is left lets more results pass at once.
        tiles.into_iter().map(|tile| tile.handing_over().into_iter().find(fits).unwrap_or(tile)).collect()
    }

    /// The same tile with more and fewer matrices that hand over their results at once.
    fn handing_over(self) -> Vec<Tile> {
        let Core::Matrices { lanes, down, across, pairs, .. } = self.core else { return Vec::new() };
        let tile = |at_once| Tile { core: Core::Matrices { lanes, down, across, at_once, pairs }, ..self };
        // A thread always gets the same columns.
        let is_possible = |at_once: &usize| across.is_multiple_of(*at_once) && lanes >= 4 * at_once;
        [4, 2].into_iter().filter(is_possible).map(tile).collect()
    }

    /// Whether threads or subgroups have blocks so large that too few of them are at work to hide what loads take,
    /// and yet leave registers for what is loaded ahead.
    fn has_large_blocks(&self) -> bool {
        match self.core {
            Core::Threads { rows, vectors, .. } => rows == 8 && (vectors == 2 || self.columns <= 16),
            Core::Matrices { down, .. } => down >= 2,
        }
    }

    fn threads_only(columns: usize, k: usize, half: bool) -> Tile {
        let k = if k >= 16 { 16 } else { k.next_multiple_of(4) };
        let tile = |columns, k, vectors| {
            let core = Core::Threads { rows: 8, vectors, half };
            Tile { rows: 128, columns, k, core, ahead: false }
        };
        match columns {
            0..=16 => tile(16, k, 1),
            17..=32 => tile(32, k, 1),
            33..=64 => tile(64, k, 1),
            _ => tile(128, k.min(8), 2),
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
            ahead: false,
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

    /// A tile of at most so many columns. Four subgroups with 128 rows of 64 columns and 16 values of k fit the least that
    /// WebGPU guarantees, where they multiply no pairs.
    fn matrices(target: &Target, columns: usize, k: usize, most: usize) -> Tile {
        let lanes = target.lanes as usize;
        let width = columns.next_power_of_two().clamp(MATRIX, most);
        let deep = if k > MATRIX { 2 * MATRIX } else { MATRIX };
        // A subgroup has two rows of up to four matrices: 32 rows by 64 columns. Pairs take twice the registers.
        let pairs = target.operands == Operands::Split;
        let across = (width / MATRIX).min(if pairs { 2 } else { 4 });
        let core = Core::Matrices { lanes, down: 2, across, at_once: 1, pairs };
        Tile { rows: 128, columns: width, k: deep, core, ahead: false }
    }

    /// Rows and columns of a workgroup and the matrices of a subgroup, and another depth.
    fn other_matrices(self, k: usize) -> Vec<Tile> {
        let Core::Matrices { lanes, across, pairs, .. } = self.core else { return Vec::new() };
        let tile = |rows: usize, columns: usize, down: usize| {
            let across = across.min(columns / MATRIX);
            let core = Core::Matrices { lanes, down, across, at_once: 1, pairs };
            Tile { rows, columns, k: self.k, core, ahead: false }
        };
        let wide = self.columns;
        let mut tiles = vec![tile(64, wide, 2), tile(64, wide, 1), tile(32, wide, 1), tile(128, wide, 4)];
        if wide > MATRIX {
            tiles.extend([tile(128, wide / 2, 2), tile(64, wide / 2, 2), tile(32, wide / 2, 1)]);
        }
        if wide >= 4 * MATRIX {
            let deep = if wide > 4 * MATRIX { MATRIX } else { self.k };
            tiles.push(Tile { k: deep, ..tile(256, wide, 4) });
        }
        if k > 2 * MATRIX {
            tiles.push(Tile { k: 4 * MATRIX, ..self });
            tiles.push(Tile { k: 4 * MATRIX, ..tile(64, wide, 2) });
        }
        if pairs {
            // No block of 64 rows, for which there are not registers enough, but one of 64 columns.
            let across = 4.min(wide / MATRIX);
            tiles.retain(|tile| !matches!(tile.core, Core::Matrices { down: 4, .. }));
            tiles.push(Tile { core: Core::Matrices { lanes, down: 2, across, at_once: 1, pairs }, ..self });
        }
        tiles
    }

    /// Threads in a workgroup.
    pub fn threads(&self) -> usize {
        match self.core {
            Core::Threads { rows, .. } => (self.rows / rows) * self.thread_columns(),
            Core::Matrices { lanes, .. } => lanes * self.subgroups(),
        }
    }

    /// Subgroups in a workgroup of matrices.
    pub fn subgroups(&self) -> usize {
        match self.core {
            Core::Threads { .. } => 0,
            Core::Matrices { down, across, .. } => {
                (self.rows / (down * MATRIX)) * (self.columns / (across * MATRIX))
            }
        }
    }

    fn bytes(&self) -> usize {
        let staged = self.staged().bytes(self.halves() * (self.left_len() + self.right_len()));
        staged as usize + self.result_quads() * 16
    }

    /// Vectors of the results that pass through workgroup memory at once.
    pub fn result_quads(&self) -> usize {
        match self.core {
            Core::Threads { .. } => 0,
            Core::Matrices { at_once, .. } => self.subgroups() * at_once * MATRIX * MATRIX / 4,
        }
    }

    /// Copies of the staged operands.
    pub fn halves(&self) -> usize {
        1 + usize::from(self.ahead)
    }

    /// Numbers of the staged left operand, whether it lies row by row or by values of k.
    pub fn left_len(&self) -> usize {
        match self.core {
            Core::Threads { .. } if !self.ahead => self.k * (self.rows + PADDING),
            _ => self.rows * self.line_stride(),
        }
    }

    /// Numbers of the staged right operand: for threads by values of k, for matrices column by column.
    pub fn right_len(&self) -> usize {
        match self.core {
            Core::Threads { .. } => self.k * self.columns,
            Core::Matrices { .. } => self.columns * self.line_stride(),
        }
    }

    /// Numbers from a staged row, or column, to the next, where the values of k lie side by side: of pairs the small
    /// parts after the large.
    pub fn line_stride(&self) -> usize {
        match self.core {
            // An odd number of vectors, against bank conflicts.
            Core::Threads { .. } => ((self.k / 4) | 1) * 4,
            Core::Matrices { pairs, .. } => self.k * (1 + usize::from(pairs)) + MATRIX_PADDING,
        }
    }

    /// Threads beside each other.
    pub fn thread_columns(&self) -> usize {
        match self.core {
            Core::Threads { vectors, .. } => self.columns / (vectors * 4),
            Core::Matrices { .. } => 1,
        }
    }

    /// What operands are.
    pub fn element(&self) -> Element {
        match self.core {
            Core::Threads { half: false, .. } => Element::F32,
            Core::Matrices { pairs: true, .. } => Element::Pair,
            Core::Threads { half: true, .. } | Core::Matrices { .. } => Element::F16,
        }
    }

    /// What the numbers in workgroup memory are: the parts of pairs are apart.
    pub fn staged(&self) -> Element {
        if self.element() == Element::Pair { Element::F16 } else { self.element() }
    }

    /// Values of k whose products are added up before they are added to the running sums: as many as there are registers
    /// for, of pairs up to two matrices.
    pub fn sum_depth(&self) -> usize {
        match self.core {
            Core::Threads { vectors: 1, half: false, .. } if self.k.is_multiple_of(8) => 8,
            Core::Threads { half: false, .. } => 4,
            Core::Matrices { pairs: true, .. } => self.k.min(2 * MATRIX),
            // What 16 bits round off is far more.
            _ => 1,
        }
    }

    /// Values of k that a running sum stays accurate for. A sum of random products, `d` at a time
    /// ([`sum_depth`](Tile::sum_depth)), is off by about `sqrt(d / 2 + k / (2 d))` roundings: here by 7 or 8.
    pub fn longest_sum(&self) -> usize {
        if self.element() == Element::F16 { usize::MAX } else { 90 * self.sum_depth() }
    }
}
