//! The tile kernels that compute implicit matrix products.
//!
//! A workgroup computes a [`Tile`] of the result, for all of k or for one chunk of it. Where k is cut into
//! chunks their sums go to scratch, and a second launch folds them.

use std::fmt::Write;

use schedule::ReduceKind;

use crate::assembled::Assembled;
use crate::bindings::Bindings;
use crate::choice::{Choice, Tiling};
use crate::emit::module;
use crate::fold::{Fold, Text};
use crate::gemm::{Form, Gemm};
use crate::launch::{Access, Context, Launch, Scratch};
use crate::pack::Pack;
use crate::template::fill;
use crate::tile::Tile;
use crate::tile_text::TileText;

const TEMPLATE: &str = include_str!("../wgsl/gemm.wgsl");
const STEPS: &str = include_str!("../wgsl/gemm_steps.wgsl");
const STEPS_AHEAD: &str = include_str!("../wgsl/gemm_steps_ahead.wgsl");

/// Workgroups that fill a large GPU, where k is long enough to be cut for that.
const FILLING: usize = 512;
/// Workgroups from which on nothing is gained by cutting k further: two for each of 132 multiprocessors.
const PLENTY: usize = 264;

/// The ways to compute the products of one kernel: first the one that is taken without measuring. None where
/// too little is in a group to fill a tile.
pub fn candidates(context: Context, gemms: &[Gemm]) -> Vec<Tiling> {
    let Some(first) = gemms.first().filter(|first| fills_tiles(first)) else { return Vec::new() };
    let mut tilings = Vec::new();
    for tile in Tile::candidates(context.target, first.columns, first.depth().max(1)) {
        let groups = first.z * first.rows().div_ceil(tile.rows) * first.columns.div_ceil(tile.columns);
        let steps = first.depth().div_ceil(tile.k);
        let counts = if first.is_weight_grad() {
            // Few rows and columns, and a long k: workgroups of their own for chunks long enough to be worth a sum.
            let most = first.depth().div_ceil(128);
            [FILLING, FILLING / 2, 2 * FILLING].map(|wanted| wanted.div_ceil(groups.max(1)).min(most))
        } else {
            [1, 2, 4].map(|chunks| if groups * chunks / 2 < PLENTY { chunks.min(steps) } else { 1 })
        };
        // Loading ahead hides what more workgroups would hide, and there is nothing to load in a single step.
        let taps = if first.is_weight_grad() { 1 } else { first.y.count * first.x.count };
        let counts = match tile.ahead {
            true if taps * steps < 2 => &[],
            true => &counts[..1],
            false => &counts[..],
        };
        for &chunks in counts {
            let tiling = Tiling { tile, chunks: chunks.max(1) };
            if !tilings.contains(&tiling) {
                tilings.push(tiling);
            }
        }
    }
    tilings
}

fn fills_tiles(gemm: &Gemm) -> bool {
    gemm.z == 1 || (gemm.columns >= 8 && gemm.channels >= 4) || gemm.form == Form::Matrix
}

/// Assembles the products of one kernel, which share a right operand, or `None` where too little is in a
/// group to fill a tile.
pub fn assemble(context: Context, label: &str, gemms: &[Gemm]) -> Option<Assembled> {
    let first = gemms.first()?;
    let tiling = match context.choice {
        Some(Choice::Product(tiling)) => tiling,
        _ => *candidates(context, gemms).first()?,
    };
    let mut assembled = Assembled::default();
    // A weight gradient's right operand is an image, which is read once and needs no packing.
    let packed = (!first.is_weight_grad()).then(|| {
        let Plan { depth, columns, .. } = Plan::new(first, tiling);
        assembled.pack.insert(Pack::new(context, label, first, [depth, columns])).packed()
    });
    for gemm in gemms.iter().filter(|gemm| gemm.rows() > 0) {
        let plan = Plan::new(gemm, tiling);
        if plan.chunks == 1 {
            assembled.launches.push(product(context, label, gemm, &plan, packed, None));
            continue;
        }
        let len = plan.chunks * gemm.z * gemm.rows() * plan.columns;
        let partials = Scratch::first(len);
        assembled.launches.push(product(context, label, gemm, &plan, packed, Some(partials)));
        assembled.launches.push(sum(context, label, gemm, &plan, partials));
        assembled.scratch.resize(1, 0);
        assembled.scratch[0] = assembled.scratch[0].max(partials.bytes());
    }
    assembled.pack.take_if(|_| assembled.launches.is_empty());
    Some(assembled)
}

/// How a product is cut into workgroups.
struct Plan {
    tile: Tile,
    row_tiles: usize,
    column_tiles: usize,
    /// Columns of whole tiles.
    columns: usize,
    /// Values of k in whole steps of the tile.
    depth: usize,
    /// Chunks of k, each summed by workgroups of its own.
    chunks: usize,
    /// Values of k in a chunk: whole steps.
    chunk_len: usize,
}

/// Most elements of the chunks' sums of a product that is cut for accuracy alone: 64 MiB.
const MOST_PARTIALS: usize = 1 << 24;

impl Plan {
    fn new(gemm: &Gemm, Tiling { tile, chunks }: Tiling) -> Plan {
        let columns = gemm.columns.next_multiple_of(tile.columns);
        let (row_tiles, column_tiles) = (gemm.rows().div_ceil(tile.rows), columns / tile.columns);
        let (values, depth) = (gemm.depth(), gemm.depth().next_multiple_of(tile.k));
        // Short enough for a running sum to stay accurate.
        let accurate = if gemm.is_weight_grad() {
            values.div_ceil(4096)
        } else {
            let most = MOST_PARTIALS / (gemm.z * gemm.rows() * columns).max(1);
            (gemm.y.count * gemm.x.count * values).div_ceil(tile.longest_sum()).min(most)
        };
        let wanted = chunks.max(accurate);
        let chunk_len = values.div_ceil(wanted.max(1)).next_multiple_of(tile.k);
        let chunks = values.div_ceil(chunk_len.max(1)).max(1);
        Plan { tile, row_tiles, column_tiles, columns, depth, chunks, chunk_len }
    }
}

/// The launch of one product. `packed` is the right operand, if it is packed; `partials` is where sums of
/// chunks go, if there are several.
fn product(
    context: Context,
    label: &str,
    gemm: &Gemm,
    plan: &Plan,
    packed: Option<Scratch>,
    partials: Option<Scratch>,
) -> Launch {
    let Plan { tile, row_tiles, column_tiles, .. } = *plan;
    let text = TileText::new(tile, gemm.is_weight_grad());
    let stores = gemm.epilogue.stores.iter().map(|s| s.buffer).filter(|_| partials.is_none());
    let mut bindings = Bindings::new(context, stores);
    gemm.declare_operands(&mut bindings);
    if partials.is_none() {
        gemm.finisher().declare(&mut bindings);
    }
    let channels = if gemm.is_weight_grad() { gemm.row_channels() } else { plan.depth };
    let mut functions = gemm.left_function(channels, &mut bindings);
    let right = packed.map(|packed| bindings.scratch(packed, Access::Read, true));
    if right.is_none() {
        functions += &gemm.right_function(plan.columns, &mut bindings);
    }
    let partials = match partials {
        Some(partials) => Some(bindings.scratch(partials, Access::ReadWrite, true)),
        None => {
            functions += &gemm.finish_function(plan.columns, &mut bindings);
            None
        }
    };

    let mut staging = Staging::new(text);
    (0..tile.left_loads()).for_each(|i| staging.left(gemm, plan, i));
    (0..tile.right_loads()).for_each(|i| staging.right(gemm, plan, i, right.as_deref()));
    let scaled = gemm.gradients().contains(&true);
    let finish = text.results(|row, column, value| {
        let value = text.unscaled(value, scaled);
        let column = format!("block * {} + {column}", tile.columns);
        let store = match &partials {
            None => format!("finish4(first + {row}, z, {column}, {value});"),
            Some(partials) => format!(
                "{partials}[(((chunk * {} + z) * {} + first + {row}) * {} + {column}) / 4] = {value};",
                gemm.z,
                gemm.rows(),
                plan.columns
            ),
        };
        let exists = match gemm.rows().is_multiple_of(tile.rows) {
            true => String::new(),
            false => format!("if first + {row} < {} ", gemm.rows()),
        };
        format!("    {exists}{{ {store} }}\n")
    });
    // A plain product's bounds are known beforehand.
    let (start, end) = match plan.chunks {
        1 => ("0".to_string(), plan.depth.to_string()),
        _ => {
            let len = plan.chunk_len;
            (format!("chunk * {len}"), format!("min((chunk + 1) * {len}, {})", plan.depth))
        }
    };
    let (taps_y, taps_x) = if gemm.is_weight_grad() { (1, 1) } else { (gemm.y.count, gemm.x.count) };
    let (steps, multiply) =
        if tile.ahead { (STEPS_AHEAD, text.multiply_staged()) } else { (STEPS, text.multiply()) };
    let steps = fill(
        steps,
        &[
            ("taps_y", &taps_y),
            ("taps_x", &taps_x),
            ("tap", &staging.tap),
            ("start", &start),
            ("end", &end),
            ("k", &tile.k),
            ("load", &staging.load),
            ("stage", &staging.stage),
            ("multiply", &multiply),
        ],
    );
    let (declarations, bound) = bindings.finish();
    let tiles = row_tiles * column_tiles;
    let source = fill(
        TEMPLATE,
        &[
            ("bindings", &declarations),
            ("tiles", &text.declarations()),
            ("parameters", &text.parameters()),
            ("functions", &functions),
            ("threads", &tile.threads()),
            ("column_tiles", &column_tiles),
            ("row_tiles", &row_tiles),
            ("workgroups", &tiles),
            ("z", &gemm.z),
            ("workgroups_z", &(tiles * gemm.z)),
            ("rows", &tile.rows),
            ("accumulators", &text.accumulators()),
            ("once", &staging.once),
            ("steps", &steps),
            ("finish", &finish),
        ],
    );
    let count = tiles * gemm.z * plan.chunks;
    Launch {
        label: label.to_string(),
        source: (text.enable().to_string() + &module(&source)).into(),
        bindings: bound,
        count: count as u32,
        groups: context.target.fold_groups(count),
    }
}

/// The statements that bring operands into workgroup memory.
struct Staging {
    text: TileText,
    /// Before the loops.
    once: String,
    /// For every tap.
    tap: String,
    /// For every step along k: loads, then, between barriers, stores to workgroup memory.
    load: String,
    stage: String,
}

impl Staging {
    fn new(text: TileText) -> Staging {
        let [once, tap, load, stage] = Default::default();
        Staging { text, once, tap, load, stage }
    }

    /// Loads a value, and makes of it what is staged as `name`. Where threads load ahead they make it only when they
    /// stage it: before that they would wait for the value.
    fn load(&mut self, name: &str, value: &str, made: impl Fn(&str) -> String) {
        if self.text.tile.ahead {
            let _ = writeln!(self.load, "    let next_{name} = {value};");
            let _ = writeln!(self.stage, "    let {name} = {};", made(&format!("next_{name}")));
        } else {
            let _ = writeln!(self.load, "    let {name} = {};", made(value));
        }
    }

    /// Load `i` of every thread from the left operand.
    fn left(&mut self, gemm: &Gemm, plan: &Plan, i: usize) {
        let Plan { tile, .. } = plan;
        let at = format!("(thread + {})", i * tile.threads());
        let text = self.text;
        let name = format!("left{i}");
        let value = |channel: &str| format!("lhs4(moved{i}, z, {channel})");
        let made = |value: &str| {
            // Rounded first: what is stored in 16 bits is then never widened.
            let staged = text.staged(value, gemm.gradients()[0]);
            format!("select({}(), {staged}, inside{i})", text.staged_type())
        };
        if gemm.is_weight_grad() {
            // Neighbouring threads load neighbouring channels of a pixel. Rows past the end repeat the last.
            let quads = tile.rows / 4;
            let (per_tap, kw) = (gemm.row_channels(), gemm.window[1]);
            let _ = writeln!(
                self.once,
                "    let slot{i} = ({at} % {quads}) * 4;\n    \
                 let k{i} = {at} / {quads};\n    \
                 let row{i} = min(first + slot{i}, {});\n    \
                 let c{i} = row{i} % {per_tap};\n    \
                 let tap_y{i} = row{i} / {};\n    \
                 let tap_x{i} = (row{i} / {per_tap}) % {kw};",
                gemm.rows() - 4,
                per_tap * kw,
            );
            let _ = writeln!(self.load, "    let p{i} = base + k{i};");
            self.load += &gemm.pixel(i);
            let beyond = gemm.positions() < plan.depth;
            self.load += &gemm.moved_pixel(i, &format!("tap_y{i}"), &format!("tap_x{i}"), beyond);
            self.load(&name, &value(&format!("c{i}")), made);
            self.stage += &text.stage_left(i, |c| (format!("k{i}"), format!("slot{i} + {c}")));
        } else {
            // Neighbouring threads load neighbouring channels of a row.
            let quads = tile.k / 4;
            let _ = writeln!(
                self.once,
                "    let k{i} = ({at} % {quads}) * 4;\n    \
                 let slot{i} = {at} / {quads};\n    \
                 let p{i} = first + slot{i};"
            );
            self.once += &gemm.pixel(i);
            let beyond = !gemm.rows().is_multiple_of(tile.rows);
            self.tap += &gemm.moved_pixel(i, "tap_y", "tap_x", beyond);
            self.load(&name, &value(&format!("base + k{i}")), made);
            self.stage += &text.stage_left(i, |c| (format!("k{i} + {c}"), format!("slot{i}")));
        }
    }

    /// Load `i` of every thread from the right operand, which is packed in the binding `packed` or an image.
    fn right(&mut self, gemm: &Gemm, plan: &Plan, i: usize, packed: Option<&str>) {
        let Plan { tile, columns, depth, .. } = plan;
        let quads = tile.columns / 4;
        // Threads past the tile's end load its last vector.
        let _ = writeln!(
            self.once,
            "    let at{i} = min(thread + {}, {});",
            i * tile.threads(),
            tile.k * quads - 1
        );
        let column = format!("block * {} + (at{i} % {quads}) * 4", tile.columns);
        let value = match packed {
            Some(packed) => {
                let _ = writeln!(
                    self.tap,
                    "    let from{i} = (((z * {} + {}) * {depth} + at{i} / {quads}) * {columns} + {column}) / 4;",
                    gemm.taps(),
                    gemm.tap_number(),
                );
                format!("{packed}[from{i} + base * {}]", columns / 4)
            }
            None => {
                let position = format!("base + at{i} / {quads}");
                let position = match gemm.positions() < *depth {
                    true => format!("min({position}, {})", gemm.positions() - 1),
                    false => position,
                };
                format!("rhs4({position}, z, {column})")
            }
        };
        let text = self.text;
        self.load(&format!("right{i}"), &value, |value| text.staged(value, gemm.gradients()[1]));
        self.stage += &text.stage_right(i);
    }
}

/// The launch that adds up the chunks of a product.
fn sum(context: Context, label: &str, gemm: &Gemm, plan: &Plan, partials: Scratch) -> Launch {
    let mut bindings = Bindings::new(context, gemm.epilogue.stores.iter().map(|s| s.buffer));
    gemm.finisher().declare(&mut bindings);
    let functions = gemm.finish_function(plan.columns, &mut bindings);
    let partials = bindings.scratch(partials, Access::Read, true);
    let (declarations, bindings) = bindings.finish();
    let (rows, quads) = (gemm.rows(), plan.columns / 4);
    let outer = gemm.z * rows * quads;
    let fold =
        Fold { kinds: &[ReduceKind::Sum], is_vector: true, is_outer_dense: true, outer, len: plan.chunks };
    let text = Text {
        declarations,
        bindings,
        functions,
        outer_indices: String::new(),
        update: fold.add_chunk(&partials),
        finish: format!(
            "    finish4((o / {quads}) % {rows}, o / {}, (o % {quads}) * 4, {});\n",
            rows * quads,
            fold.results(plan.depth).concat()
        ),
    };
    fold.launch(context, label, fold.cut_in_one(context), text)
}
