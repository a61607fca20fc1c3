//! The tile kernels that compute implicit matrix products.
//!
//! A workgroup computes a [`Tile`] of the result, for all of k or for one chunk of it. Where k is cut into
//! chunks their sums go to scratch, and a second launch folds them.

use schedule::ReduceKind;

use crate::assembled::Assembled;
use crate::bindings::Bindings;
use crate::choice::{Choice, Tiling};
use crate::element::Element;
use crate::emit::{module, quotient, remainder};
use crate::fold::Fold;
use crate::gemm::{Form, Gemm};
use crate::gemm_ending::Ending;
use crate::gemm_plan::Plan;
use crate::gemm_staging::{Left, Staging};
use crate::launch::{Access, Context, Launch, Scratch};
use crate::pack::Pack;
use crate::reduce;
use crate::template::fill;
use crate::tile::Tile;
use crate::tile_fold::THREAD_BYTES;

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
    let Some(first) = gemms.first().filter(|_| is_tiled(gemms)) else { return Vec::new() };
    let mut tilings = Vec::new();
    let beside = if first.epilogue.fold.is_some() { THREAD_BYTES } else { 0 };
    for tile in Tile::candidates(context.target, first.columns, first.depth().max(1), beside) {
        let groups = first.slices() * first.rows().div_ceil(tile.rows) * first.columns.div_ceil(tile.columns);
        let steps = first.depth().div_ceil(tile.k);
        let counts = if first.is_weight_grad() {
            // Few rows and columns, and a long k: workgroups of their own for chunks long enough to be worth a sum.
            let most = first.depth().div_ceil(128);
            [FILLING, FILLING / 2, 2 * FILLING].map(|wanted| wanted.div_ceil(groups.max(1)).min(most))
        } else {
            [1, 2, 4].map(|chunks| if groups * chunks / 2 < PLENTY { chunks.min(steps) } else { 1 })
        };
        // Loading ahead hides what more workgroups would hide, and there is nothing to load in a single step.
        let counts = match tile.ahead {
            true if first.most_taps() * steps < 2 => &[],
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

/// Whether enough is in a group to fill a tile.
pub fn is_tiled(gemms: &[Gemm]) -> bool {
    let fills =
        |gemm: &Gemm| gemm.z == 1 || (gemm.columns >= 8 && gemm.channels >= 4) || gemm.form == Form::Matrix;
    gemms.first().is_some_and(fills)
}

/// Assembles the products of one kernel, which share a right operand; `None` where too little is in a group to fill a
/// tile.
pub fn assemble(context: Context, label: &str, gemms: &[Gemm]) -> Option<Assembled> {
    let Some(first) = gemms.first() else { return Some(Assembled::default()) };
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
        let len = plan.chunks * gemm.slices() * gemm.rows() * plan.columns;
        let partials = (plan.chunks > 1).then(|| Scratch::first(len));
        assembled.launches.push(product(context, label, gemm, &plan, packed, partials));
        if let Some(partials) = partials {
            assembled.scratch.resize(1, 0);
            assembled.scratch[0] = assembled.scratch[0].max(partials.bytes());
        }
        let Some(fold) = &gemm.epilogue.fold else {
            assembled.launches.extend(partials.map(|partials| sum(context, label, gemm, &plan, partials)));
            continue;
        };
        let last = if partials.is_some() { plan.of_sums() } else { plan };
        assembled.launches.extend(partials.map(|partials| folded_sum(context, label, gemm, &last, partials)));
        let (space, states) = (fold.space(&gemm.epilogue.shape), last.states(gemm));
        assembled.scratch.push(states.bytes());
        let rows = [last.tile.rows, last.group_rows];
        assembled.launches.push(reduce::finish_states(context, label, (fold, space), states, rows));
    }
    assembled.pack.take_if(|_| assembled.launches.is_empty());
    Some(assembled)
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
    let tile = plan.tile;
    let text = plan.text(gemm);
    let stores = gemm.epilogue.stores.iter().map(|s| s.buffer).filter(|_| partials.is_none());
    let mut bindings = Bindings::new(context, stores);
    gemm.declare_operands(&mut bindings);
    if partials.is_none() {
        gemm.finisher().declare(&mut bindings);
    }
    let channels = if gemm.walks_taps() { plan.depth } else { gemm.row_channels() };
    let [mut left, right] = gemm.gradients().map(|is_gradient| text.rounding(is_gradient));
    let is_stored = gemm.left_is_stored(channels, left, &mut bindings);
    // A select of an `f32` is less work than one of both parts of a pair.
    if !is_stored && left.element == Element::Pair {
        left.element = Element::F32;
    }
    let mut functions = gemm.left_function(channels, left, &mut bindings);
    let packed = packed.map(|packed| bindings.scratch(packed, Access::Read, true));
    if packed.is_none() {
        functions += &gemm.right_function(plan.columns, right, &mut bindings);
    }
    let ending = match partials {
        None => Ending::new(gemm, plan, &mut bindings),
        Some(partials) => {
            let partials = bindings.scratch(partials, Access::ReadWrite, true);
            let store = |row: &str, quad: &str, _, value: &str| {
                format!("{partials}[{}] = {value};", plan.partial(gemm, "chunk", row, quad))
            };
            Ending { statements: plan.results(gemm, store), ..Ending::default() }
        }
    };

    let staging = Staging::new(gemm, plan, Left { element: left.element, is_stored }, packed.as_deref());
    // Positions, or vectors of channels. A plain product's bounds are known beforehand.
    let unit = if gemm.is_weight_grad() { 1 } else { 4 };
    let [depth, len, step] = [plan.depth, plan.chunk_len, tile.k].map(|values| values / unit);
    let (start, end) = match plan.chunks {
        1 => ("0".to_string(), depth.to_string()),
        _ => (format!("chunk * {len}"), format!("min((chunk + 1) * {len}, {depth})")),
    };
    let [taps_y, taps_x] = gemm.of_phases(|phase| if gemm.walks_taps() { phase.count as i64 } else { 1 });
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
            ("step", &step),
            ("load", &staging.load),
            ("stage", &staging.stage),
            ("multiply", &multiply),
        ],
    ) + &text.finish_sums();
    let (chunks, memory) = (plan.chunks, text.declarations());
    let parts = Parts { chunks, memory, functions, once: staging.once, steps, ending };
    launch(context, label, gemm, plan, bindings, parts)
}

/// The text of a launch around its tile.
#[derive(Default)]
struct Parts {
    /// Chunks of k that have workgroups of their own.
    chunks: usize,
    /// Workgroup memory and functions that the operands need.
    memory: String,
    functions: String,
    /// Statements: before the sums, and those that make them.
    once: String,
    steps: String,
    ending: Ending,
}

/// A launch with a workgroup for each tile, and for each of so many chunks.
fn launch(
    context: Context,
    label: &str,
    gemm: &Gemm,
    plan: &Plan,
    bindings: Bindings,
    parts: Parts,
) -> Launch {
    let (tile, row_tiles, column_tiles) = (plan.tile, plan.row_tiles(), plan.column_tiles());
    let text = plan.text(gemm);
    let (declarations, bound) = bindings.finish();
    let tiles = row_tiles * column_tiles;
    let [first, end] = plan.rows();
    let source = fill(
        TEMPLATE,
        &[
            ("bindings", &declarations),
            ("memory", &(parts.memory + &parts.ending.memory)),
            ("parameters", &text.parameters()),
            ("functions", &(parts.functions + &parts.ending.functions)),
            ("threads", &tile.threads()),
            ("column_tiles", &column_tiles),
            ("row_tiles", &row_tiles),
            ("first", &first),
            ("end", &end),
            ("workgroups", &tiles),
            ("slices", &gemm.slices()),
            ("of_slice", &gemm.of_slice()),
            ("workgroups_slices", &(tiles * gemm.slices())),
            ("accumulators", &text.accumulators()),
            ("once", &parts.once),
            ("steps", &parts.steps),
            ("ending", &parts.ending.statements),
        ],
    );
    let count = tiles * gemm.slices() * parts.chunks;
    Launch {
        label: label.to_string(),
        source: (text.enable().to_string() + &module(&source)).into(),
        bindings: bound,
        count: count as u32,
        groups: context.target.fold_groups(count),
    }
}

/// The launch that adds up the chunks of a product whose epilogue folds: with workgroups for the tiles of a plan
/// [of sums](Plan::of_sums).
fn folded_sum(context: Context, label: &str, gemm: &Gemm, plan: &Plan, partials: Scratch) -> Launch {
    let mut bindings = Bindings::new(context, gemm.epilogue.stores.iter().map(|s| s.buffer));
    gemm.finisher().declare(&mut bindings);
    let partials = bindings.scratch(partials, Access::Read, true);
    let ending = Ending::new(gemm, plan, &mut bindings);
    let added = plan.results(gemm, |row, quad, _, sum| {
        format!("{sum} += {partials}[{}];", plan.partial(gemm, "j", row, quad))
    });
    let steps = format!("    for (var j = 0; j < {}; j++) {{\n{added}    }}\n", plan.chunks);
    let parts = Parts { chunks: 1, steps, ending, ..Parts::default() };
    launch(context, label, gemm, plan, bindings, parts)
}

/// The launch that adds up the chunks of a product.
fn sum(context: Context, label: &str, gemm: &Gemm, plan: &Plan, partials: Scratch) -> Launch {
    let mut bindings = Bindings::new(context, gemm.epilogue.stores.iter().map(|s| s.buffer));
    gemm.finisher().declare(&mut bindings);
    let functions = gemm.finish_function(plan.columns, &mut bindings);
    let (rows, quads) = (gemm.rows(), plan.columns / 4);
    let outer = gemm.slices() * rows * quads;
    let fold =
        Fold { kinds: &[ReduceKind::Sum], is_vector: true, is_outer_dense: true, outer, len: plan.chunks };
    fold.add_chunks(context, label, (bindings, functions), partials, |total| {
        format!(
            "    finish4({}, {}, {}, {total});\n",
            remainder(&quotient("o", quads), rows),
            quotient("o", rows * quads),
            remainder("o", quads),
        )
    })
}
