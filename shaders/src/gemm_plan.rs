//! How an implicit matrix product is cut into tiles and chunks.

use crate::choice::Tiling;
use crate::gemm::Gemm;
use crate::launch::{Scratch, Storage};
use crate::tile::{Core, Tile};
use crate::tile_fold::TileFold;
use crate::tile_text::TileText;

/// How a product is cut into workgroups.
#[derive(Clone, Copy)]
pub struct Plan {
    pub tile: Tile,
    /// Rows that are folded apart, of which a tile has some of one group.
    pub groups: usize,
    pub group_rows: usize,
    /// Columns of whole tiles.
    pub columns: usize,
    /// Values of k in whole steps of the tile.
    pub depth: usize,
    /// Chunks of k, each summed by workgroups of its own.
    pub chunks: usize,
    /// Values of k in a chunk: whole steps.
    pub chunk_len: usize,
}

/// Most elements of the chunks' sums of a product that is cut for accuracy alone: 64 MiB.
const MOST_PARTIALS: usize = 1 << 24;

impl Plan {
    pub fn new(gemm: &Gemm, Tiling { tile, chunks }: Tiling) -> Plan {
        let columns = gemm.columns.next_multiple_of(tile.columns);
        let (epilogue, rows) = (gemm.epilogue, gemm.rows());
        let kept = epilogue.fold.as_ref().map_or(&[][..], |fold| &epilogue.shape[..fold.kept]);
        let groups: usize = kept.iter().product();
        let (values, depth) = (gemm.depth(), gemm.depth().next_multiple_of(tile.k));
        // Short enough for a running sum to stay accurate.
        let accurate = if gemm.is_weight_grad() {
            values.div_ceil(4096)
        } else {
            let most = MOST_PARTIALS / (gemm.slices() * gemm.rows() * columns).max(1);
            (gemm.most_taps() * values).div_ceil(tile.longest_sum()).min(most)
        };
        let wanted = chunks.max(accurate);
        let chunk_len = values.div_ceil(wanted.max(1)).next_multiple_of(tile.k);
        let chunks = values.div_ceil(chunk_len.max(1)).max(1);
        Plan { tile, groups, group_rows: rows / groups, columns, depth, chunks, chunk_len }
    }

    /// For adding up the chunks' sums, by threads.
    pub fn of_sums(self) -> Plan {
        let core = Core::Threads { rows: 4, vectors: 1, half: false };
        let tile = Tile { rows: 32, columns: self.tile.columns.min(64), core, ahead: false, ..self.tile };
        Plan { tile, ..self }
    }

    /// Tiles below each other of the rows that are folded together.
    pub fn group_tiles(&self) -> usize {
        self.group_rows.div_ceil(self.tile.rows)
    }

    /// Tiles below each other.
    pub fn row_tiles(&self) -> usize {
        self.groups * self.group_tiles()
    }

    /// Tiles beside each other.
    pub fn column_tiles(&self) -> usize {
        self.columns / self.tile.columns
    }

    /// Whether there are rows past the end in some tiles.
    pub fn has_part_tiles(&self) -> bool {
        !self.group_rows.is_multiple_of(self.tile.rows)
    }

    /// A tile's first row, and the end of its rows, of the number `row_tile`.
    pub fn rows(&self) -> [String; 2] {
        let (rows, of_group) = (self.tile.rows, self.group_tiles());
        let first = match self.groups == 1 || !self.has_part_tiles() {
            true => format!("row_tile * {rows}"),
            false => {
                format!("row_tile / {of_group} * {} + row_tile % {of_group} * {rows}", self.group_rows)
            }
        };
        [first, format!("(row_tile / {of_group} + 1) * {}", self.group_rows)]
    }

    /// The tile's WGSL.
    pub fn text(&self, gemm: &Gemm) -> TileText {
        TileText { tile: self.tile, is_along_k: !gemm.is_weight_grad() }
    }

    /// What `f` makes of every result, see [`TileText::results`]; rows and columns are those of the whole result.
    pub fn results(&self, gemm: &Gemm, f: impl Fn(&str, &str, usize, &str) -> String) -> String {
        let (text, scaled) = (self.text(gemm), gemm.gradients().contains(&true));
        text.results(|row, quad, strip, value| {
            let row = format!("first + {row}");
            let quad = format!("block * {} + {quad}", self.tile.columns / 4);
            let statement = f(&row, &quad, strip, &text.unscaled(value, scaled));
            let exists = if self.has_part_tiles() { format!("if {row} < end ") } else { String::new() };
            format!("    {exists}{{ {statement} }}\n")
        })
    }

    /// The states of all tiles: of each group those of one tile after the other.
    pub fn states(&self, gemm: &Gemm) -> Scratch {
        let width = TileFold { tile: self.tile, kinds: &gemm.folds() }.width();
        // The first scratch is that of the chunks' sums, where there are several.
        let storage = Storage::Scratch(usize::from(self.chunks > 1));
        Scratch { storage, ..Scratch::first(self.row_tiles() * width * gemm.columns) }
    }

    /// Where the sum of a chunk for a row and a vector of columns is among those of all chunks.
    pub fn partial(&self, gemm: &Gemm, chunk: &str, row: &str, quad: &str) -> String {
        let (slices, rows) = (gemm.slices(), gemm.rows());
        format!("(({chunk} * {slices} + slice) * {rows} + {row}) * {} + {quad}", self.columns / 4)
    }
}
