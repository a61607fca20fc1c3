//! What becomes of the results of an implicit matrix product: the epilogue, and its fold over their rows.

use crate::bindings::Bindings;
use crate::gemm::Gemm;
use crate::gemm_plan::Plan;
use crate::launch::Access;
use crate::tile_fold::TileFold;

/// What becomes of a tile's results.
#[derive(Default)]
pub struct Ending {
    /// Workgroup memory.
    pub memory: String,
    pub functions: String,
    pub statements: String,
}

impl Ending {
    /// The epilogue, and its fold.
    pub fn new(gemm: &Gemm, plan: &Plan, bindings: &mut Bindings) -> Ending {
        let functions = gemm.finish_function(plan.columns, bindings);
        let call = |row: &str, quad: &str, value: &str| format!("finish4({row}, slice, {quad}, {value});");
        let kinds = gemm.folds();
        if kinds.is_empty() {
            let store = |row: &str, quad: &str, _, value: &str| call(row, quad, value);
            return Ending { functions, statements: plan.results(gemm, store), ..Ending::default() };
        }
        let states = bindings.scratch(plan.states(gemm), Access::ReadWrite, true);
        let fold = TileFold { tile: plan.tile, kinds: &kinds };
        let results = plan.results(gemm, |row, quad, strip, value| {
            format!("let folded = {}{}", call(row, quad, value), fold.add(strip, "folded"))
        });
        let (tiles, quads) = (plan.group_tiles(), gemm.columns / 4);
        let (outer, width) = (plan.groups * quads, fold.width());
        let stored = fold.finish(|s, name| {
            let state =
                format!("(row_tile % {tiles} * {width} + {s}) * {outer} + row_tile / {tiles} * {quads}");
            let quad = format!("block * {} + quad", plan.tile.columns / 4);
            format!("    if {quad} < {quads} {{ {states}[{state} + {quad}] = {name}; }}\n")
        });
        Ending { memory: fold.declarations(), functions, statements: fold.begin() + &results + &stored }
    }
}
