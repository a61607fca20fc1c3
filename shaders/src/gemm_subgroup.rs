//! Implicit matrix products on software drivers: subgroups as vectors, no workgroup memory.

use std::fmt::Write;

use crate::bindings::Access;
use crate::emit::module;
use crate::gemm::{Gemm, Packed};
use crate::template::fill;
use crate::{Context, Launch};

const TEMPLATE: &str = include_str!("../wgsl/gemm_subgroup.wgsl");

/// Sizes of the subgroup kernel's tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubgroupTile {
    /// Lanes of a subgroup.
    pub lanes: usize,
    /// Lanes that share rows: 4 (a quad) or all.
    pub group: usize,
    /// Vectors of columns a lane owns.
    pub vectors: usize,
    /// Rows of a group; a multiple of its lanes.
    pub rows: usize,
}

impl SubgroupTile {
    /// The tile for this many columns.
    pub fn new(lanes: usize, columns: usize) -> SubgroupTile {
        if columns.next_multiple_of(16) >= lanes * 4 {
            return SubgroupTile { lanes, group: lanes, vectors: 1, rows: 32.max(lanes) };
        }
        // 32 accumulators a lane: a load costs as much as ten to a hundred multiply-adds.
        let (vectors, rows) = if columns > 16 { (2, 16) } else { (1, 32) };
        SubgroupTile { lanes, group: 4, vectors, rows }
    }

    /// Columns of a workgroup.
    pub fn columns(&self) -> usize {
        self.group * self.vectors * 4
    }

    /// The function that hands a lane's value to the rest of its group.
    pub fn broadcast(&self) -> &'static str {
        if self.group == self.lanes { "subgroupBroadcast" } else { "quadBroadcast" }
    }
}

/// The lanes of a subgroup, if it is always the same number and the kernel suits the target.
pub fn fixed_subgroup(context: Context) -> Option<usize> {
    let target = context.target;
    // Rounding operands would only cost time here: other kernels do it where it is asked for.
    if target.operands != crate::Operands::F32 {
        return None;
    }
    let subgroups = target.subgroups.filter(|s| s.min == s.max && s.min.is_power_of_two() && s.min >= 4)?;
    (target.software && subgroups.min <= 32).then_some(subgroups.min as usize)
}

/// The launch of one product.
pub fn launch(context: Context, label: &str, gemm: &Gemm, tile: SubgroupTile, packed: Packed) -> Launch {
    let (functions, mut bindings) = gemm.functions(context, packed.k_padded, None);
    let right = bindings.scratch(packed.scratch, Access::Read, true);
    let tile_rows = tile.rows * (tile.lanes / tile.group);
    let row_tiles = gemm.rows().div_ceil(tile_rows);
    let column_blocks = packed.columns_padded / tile.columns();

    let (mut accumulators, mut row_positions) = (String::new(), String::new());
    let (mut tap_positions, mut multiply, mut finish) = (String::new(), String::new(), String::new());
    for k in 0..4 {
        for v in 0..tile.vectors {
            let _ = writeln!(
                multiply,
                "    let w{k}_{v} = {right}[(right + (k + {k}) * {}) / 4 + {v}];",
                packed.columns_padded
            );
        }
    }
    for q in 0..tile.rows / tile.group {
        let _ = writeln!(row_positions, "    let row{q} = first + {} + member;", q * tile.group);
        row_positions += &gemm.row_position(q);
        tap_positions += &gemm.tap_position(q);
        let _ = writeln!(
            multiply,
            "    let v{q} = select(vec4<f32>(0.0), lhs4(sn{q}, sy{q}, sx{q}, z, k), inside{q});"
        );
        for l in 0..tile.group {
            let r = q * tile.group + l;
            let _ = writeln!(multiply, "    let a{r} = {}(v{q}, {l}u);", tile.broadcast());
            for k in 0..4 {
                for v in 0..tile.vectors {
                    let _ = writeln!(multiply, "    sum{r}_{v} += a{r}[{k}] * w{k}_{v};");
                }
            }
        }
    }
    for r in 0..tile.rows {
        let _ = writeln!(finish, "    if first + {r} < {} {{", gemm.rows());
        for v in 0..tile.vectors {
            let _ = writeln!(accumulators, "    var sum{r}_{v} = vec4<f32>(0.0);");
            let _ = writeln!(finish, "    finish4(first + {r}, z, column + {}, sum{r}_{v});", v * 4);
        }
        finish.push_str("    }\n");
    }
    let (declarations, bound) = bindings.finish();
    let blocks_and_tiles = column_blocks * row_tiles;
    let source = fill(
        TEMPLATE,
        &[
            ("bindings", &declarations),
            ("functions", &functions),
            ("threads", &tile.lanes),
            ("group", &tile.group),
            ("columns", &(tile.vectors * 4)),
            ("grid_n", &gemm.images),
            ("grid_h", &gemm.y.grid),
            ("grid_w", &gemm.x.grid),
            ("column_blocks", &column_blocks),
            ("row_tiles", &row_tiles),
            ("blocks_and_tiles", &blocks_and_tiles),
            ("tile_rows", &tile_rows),
            ("rows", &tile.rows),
            ("accumulators", &accumulators),
            ("row_positions", &row_positions),
            ("taps_y", &gemm.y.count),
            ("taps_x", &gemm.x.count),
            ("tap_number", &gemm.tap_number()),
            ("taps", &gemm.taps()),
            ("k_padded", &packed.k_padded),
            ("right_row", &packed.columns_padded),
            ("tap_positions", &tap_positions),
            ("multiply", &multiply),
            ("finish", &finish),
        ],
    );
    let count = blocks_and_tiles * gemm.z;
    Launch {
        label: label.to_string(),
        source: module(&source).into(),
        bindings: bound,
        params: vec![count as u32, 0, 0, 0],
        groups: context.target.fold_groups(count),
    }
}
