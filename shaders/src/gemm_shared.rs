//! Implicit matrix products on GPUs.

use std::fmt::Write;

use schedule::ir::ConvKind;

use crate::bindings::Access;
use crate::emit::module;
use crate::gemm::{Form, Gemm, Packed};
use crate::template::fill;
use crate::tile_shared::SharedTile;
use crate::{Context, Launch};

const TEMPLATE: &str = include_str!("../wgsl/gemm_shared.wgsl");

/// The launch of one product.
pub fn launch(context: Context, label: &str, gemm: &Gemm, tile: SharedTile, packed: Packed) -> Launch {
    let (functions, mut bindings) = gemm.functions(context, packed.k_padded);
    let right = bindings.scratch(packed.scratch, Access::Read, true);
    let row_tiles = gemm.rows().div_ceil(tile.rows);
    let column_blocks = packed.columns_padded / tile.columns;

    let (mut row_positions, mut tap_positions) = (String::new(), String::new());
    let (mut load, mut stage) = (String::new(), String::new());
    let threads = tile.threads();
    let is_gradient = gemm.form == Form::Image(ConvKind::InputGrad);
    for i in 0..tile.left_loads() {
        let quads = tile.k / 4;
        // Neighbouring threads load neighbouring values of k of a row.
        let _ = writeln!(
            row_positions,
            "    let k{i} = ((thread + {offset}) % {quads}) * 4;\n    \
             let slot{i} = (thread + {offset}) / {quads};\n    \
             let row{i} = first + slot{i};",
            offset = i * threads
        );
        row_positions += &gemm.row_position(i);
        tap_positions += &gemm.tap_position(i);
        let _ = writeln!(
            load,
            "    let left{i} = select(vec4<f32>(0.0), {}, inside{i});",
            tile.scaled(&format!("lhs4(sn{i}, sy{i}, sx{i}, z, base + k{i})"), is_gradient)
        );
        stage += &tile.stage_left(i, |c| (format!("k{i} + {c}"), format!("slot{i}")));
    }
    for i in 0..tile.right_loads() {
        let quads = tile.columns / 4;
        let offset = i * threads;
        // Threads past the tile's end load its last vector.
        let last = tile.k * quads - 1;
        let _ = writeln!(
            load,
            "    let at{i} = min(thread + {offset}, {last});\n    \
             let right{i} = {right}[right + (base + at{i} / {quads}) * {} + at{i} % {quads}];",
            packed.columns_padded / 4
        );
        stage += &tile.stage_right(i);
    }
    let finish = tile.results(|row, column, value| {
        format!(
            "    if first + {row} < {} {{ finish4(first + {row}, z, block * {} + {column}, {}); }}\n",
            gemm.rows(),
            tile.columns,
            tile.unscaled(value, is_gradient)
        )
    });
    let (declarations, bound) = bindings.finish();
    let blocks_and_tiles = column_blocks * row_tiles;
    let source = fill(
        TEMPLATE,
        &[
            ("bindings", &declarations),
            ("tiles", &tile.declarations()),
            ("parameters", &tile.parameters()),
            ("functions", &functions),
            ("threads", &threads),
            ("column_blocks", &column_blocks),
            ("row_tiles", &row_tiles),
            ("blocks_and_tiles", &blocks_and_tiles),
            ("rows", &tile.rows),
            ("columns", &tile.columns),
            ("accumulators", &tile.accumulators()),
            ("row_positions", &row_positions),
            ("taps_y", &gemm.y.count),
            ("taps_x", &gemm.x.count),
            ("tap_number", &gemm.tap_number()),
            ("taps", &gemm.taps()),
            ("k_padded", &packed.k_padded),
            ("k", &tile.k),
            ("right_row", &packed.columns_padded),
            ("tap_positions", &tap_positions),
            ("load", &load),
            ("stage", &stage),
            ("multiply", &tile.multiply()),
            ("finish", &finish),
        ],
    );
    let count = blocks_and_tiles * gemm.z;
    Launch {
        label: label.to_string(),
        source: (tile.enable().to_string() + &module(&source)).into(),
        bindings: bound,
        count: count as u32,
        groups: context.target.fold_groups(count),
    }
}
