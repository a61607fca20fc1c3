//! What happens to a convolution's result, tile by tile while it is in cache: the epilogue's program
//! and stores, and the per-channel statistics that a batch norm needs.

use std::ops::Range;

use schedule::{BufferId, Epilogue, Instr, ReduceKind, Reg, Store};

use crate::block::Block;
use crate::fold::{Columns, states_len};
use crate::launch::{Compile, Runtime};
use crate::map::Map;
use crate::operand;
use crate::program::{BlockProgram, Output, Spec};

/// An epilogue over images `[N, H, W, C]` that come in tiles of a few rows.
///
/// Each tile has its own statistics in the scratch area; they are merged in the order of the tiles, so
/// that the outcome does not depend on which thread made which tile.
pub struct TileEpilogue {
    /// Where the bare result goes.
    target: Option<BufferId>,
    /// Everything else that is computed and stored; the tile is its external number 0.
    program: Option<BlockProgram>,
    /// What the program reads and stores in order.
    streams: Vec<BufferId>,
    statistics: Vec<Statistic>,
    /// What each accumulator of the fold is, and what is made of them.
    folded: Vec<Folded>,
    finish: Option<Map>,
    height: usize,
    row_len: usize,
    channels: usize,
    tile_rows: usize,
    /// Tiles of an image.
    tiles: usize,
    images: usize,
    /// Groups of images that are folded apart.
    groups: usize,
}

/// A fold of each channel of a tile.
struct Statistic {
    kind: ReduceKind,
    value: Reg,
    /// Number of the program's result; none for the bare result.
    result: Option<usize>,
}

struct Folded {
    kind: ReduceKind,
    statistic: usize,
}

impl TileEpilogue {
    /// For results of so many images `[height, width, channels]`.
    pub fn new(
        compile: &Compile,
        epilogue: &Epilogue,
        images: usize,
        [height, width, channels]: [usize; 3],
        tile_rows: usize,
    ) -> TileEpilogue {
        let row_len = width * channels;
        // Storing the bare result first would change what the program loads from the same memory.
        let region = |buffer: BufferId| compile.regions[buffer];
        let target = operand::plain_store(epilogue)
            .filter(|&(_, buffer)| epilogue.program.buffers().all(|loaded| region(loaded) != region(buffer)));
        let stores = epilogue.stores.iter().enumerate();
        let outputs: Vec<Output> = stores
            .filter(|(number, _)| target.is_none_or(|(plain, _)| plain != *number))
            .map(|(_, store)| Output::from(store))
            .collect();
        let mut results: Vec<Reg> = Vec::new();
        let mut statistics: Vec<Statistic> = Vec::new();
        let mut folded = Vec::new();
        let accumulators = epilogue.fold.as_ref().map_or(&[][..], |fold| &fold.accumulators);
        for &(wanted, value) in accumulators {
            // A variance's state holds the mean, and so the sum.
            let has_variance = accumulators.contains(&(ReduceKind::Variance, value));
            let kind = if has_variance { ReduceKind::Variance } else { wanted };
            let known = statistics.iter().position(|s| (s.kind, s.value) == (kind, value));
            let statistic = known.unwrap_or_else(|| {
                let bare = epilogue.program.instrs[value] == Instr::Accumulator(0);
                let result = (!bare).then(|| {
                    results.push(value);
                    results.len() - 1
                });
                statistics.push(Statistic { kind, value, result });
                statistics.len() - 1
            });
            folded.push(Folded { kind: wanted, statistic });
        }
        let mut classes = vec![0; epilogue.shape.len()];
        if let (Some(last), false) = (classes.last_mut(), results.is_empty()) {
            // Blocks of whole pixels.
            *last = 1;
        }
        let program = (!outputs.is_empty() || !results.is_empty()).then(|| {
            BlockProgram::new(&Spec {
                classes: &classes,
                outputs: &outputs,
                results: &results,
                granularity: row_len,
                ..Spec::new(compile, &epilogue.shape, &epilogue.program)
            })
        });
        let others: Vec<Store> =
            epilogue.stores.iter().filter(|s| target.is_none_or(|(_, b)| s.buffer != b)).cloned().collect();
        TileEpilogue {
            target: target.map(|(_, buffer)| buffer),
            program,
            streams: operand::streams(&epilogue.shape, &epilogue.program, &others),
            statistics,
            folded,
            finish: epilogue
                .fold
                .as_ref()
                .map(|fold| Map::new(compile, &fold.space(&epilogue.shape), &fold.finish, &fold.stores)),
            height,
            row_len,
            channels,
            tile_rows,
            tiles: height.div_ceil(tile_rows),
            images,
            groups: epilogue.fold.as_ref().map_or(1, |fold| epilogue.shape[..fold.kept].iter().product()),
        }
    }

    /// The buffer that tiles may be made in.
    pub fn target(&self) -> Option<BufferId> {
        self.target
    }

    /// What a tile's program reads and stores in order, at [`TileEpilogue::elements`].
    pub fn streams(&self) -> &[BufferId] {
        &self.streams
    }

    /// The elements of rows of an image.
    pub fn elements(&self, image: usize, rows: Range<usize>) -> Range<usize> {
        let [start, end] = [rows.start, rows.end].map(|row| (image * self.height + row) * self.row_len);
        start..end
    }

    /// Floats of scratch memory.
    pub fn area_len(&self) -> usize {
        self.states_len() + self.folded.len() * self.groups * self.channels
    }

    /// Floats of all tiles' statistics.
    fn states_len(&self) -> usize {
        self.images * self.tiles * self.state_len()
    }

    fn state_len(&self) -> usize {
        states_len(self.statistics.len(), self.channels)
    }

    /// A statistic of a tile.
    ///
    /// # Safety
    /// No two users of one tile's statistics at a time.
    unsafe fn state<'a>(&self, runtime: &Runtime<'a>, tile: usize, statistic: usize) -> Columns<'a> {
        // SAFETY: the caller's promise.
        unsafe { Columns::in_area(runtime.area, tile * self.state_len(), statistic, self.channels) }
    }

    /// Takes rows `rows` of image `image`, which start at a multiple of the tile's rows.
    ///
    /// # Safety
    /// As for [`operand::evaluate`]; once for each tile.
    pub unsafe fn finish(&self, runtime: &Runtime, image: usize, rows: Range<usize>, tile: &mut [f32]) {
        let number = image * self.tiles + rows.start / self.tile_rows;
        for (index, statistic) in self.statistics.iter().enumerate() {
            // SAFETY: this tile's statistics are this call's.
            let mut state = unsafe { self.state(runtime, number, index) };
            state.reset(statistic.kind);
            if statistic.result.is_none() {
                state.add(runtime.isa, statistic.kind, tile, 0, 0);
            }
        }
        let Some(program) = &self.program else { return };
        let start = self.elements(image, rows).start;
        let mut at = 0;
        let visit = |block: &Block| {
            for (index, statistic) in self.statistics.iter().enumerate() {
                if let Some(result) = statistic.result {
                    // SAFETY: as above.
                    let mut state = unsafe { self.state(runtime, number, index) };
                    state.add_at(runtime.isa, statistic.kind, block.result(result), at, 0);
                }
            }
            at += block.len;
        };
        // SAFETY: the caller's promise.
        unsafe { operand::evaluate(runtime, program, start, tile, visit) };
    }

    /// Merges the tiles' statistics, and finishes what is folded.
    ///
    /// # Safety
    /// All tiles are finished; the outputs' buffers are nobody else's.
    pub unsafe fn merge(&self, runtime: &Runtime) {
        let Some(finish) = &self.finish else { return };
        let per_group = self.images / self.groups.max(1) * self.tiles;
        let width = self.row_len / self.channels;
        let rows = |tile: usize| {
            let first = tile % self.tiles * self.tile_rows;
            self.tile_rows.min(self.height - first) * width
        };
        let results = |number: usize| self.states_len() + number * self.groups * self.channels;
        for group in 0..self.groups {
            let tiles = group * per_group..(group + 1) * per_group;
            let mut counts = 0;
            for (index, statistic) in self.statistics.iter().enumerate() {
                // SAFETY (both): the caller's promise; different tiles are disjoint.
                let mut all = unsafe { self.state(runtime, tiles.start, index) };
                counts = rows(tiles.start);
                for tile in tiles.clone().skip(1) {
                    let other = unsafe { self.state(runtime, tile, index) };
                    all.merge(runtime.isa, statistic.kind, &other, counts, rows(tile));
                    counts += rows(tile);
                }
            }
            for (number, folded) in self.folded.iter().enumerate() {
                let start = results(number) + group * self.channels;
                // SAFETY (both): as above; the results have scratch memory of their own.
                let all = unsafe { self.state(runtime, tiles.start, folded.statistic) };
                let out = unsafe { runtime.area.range(start..start + self.channels) };
                let kind = self.statistics[folded.statistic].kind;
                if kind == folded.kind {
                    all.finish(kind, counts, out);
                } else {
                    let sums = all.first.iter().map(|mean| (mean * counts as f64) as f32);
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum);
                }
            }
        }
        let pointers: Vec<_> =
            (0..self.folded.len()).map(|number| runtime.area.pointer(results(number))).collect();
        // SAFETY: the caller's promise.
        unsafe { finish.evaluate(runtime, &pointers) };
    }
}
