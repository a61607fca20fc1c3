//! The weight gradient as a tiled matrix product over pixels.

use std::fmt::Write;

use autograd::schedule::ir::{ConvGeometry, Epilogue, Operand};

use crate::bindings::{Access, Bindings, Storage};
use crate::convolution::{fill_geometry, sum_weight_chunks};
use crate::emit::PRELUDE;
use crate::gemm::{SubgroupTile, fixed_subgroup, image_loader, image_vectors};
use crate::{Assembled, Context, Launch};

const SUBGROUP: &str = include_str!("../wgsl/weight_grad_subgroup.wgsl");

/// Where the chunks' sums lie in scratch: `[chunk][z][tap][row][column]`, rows and columns padded.
struct Partials {
    chunks: usize,
    rows: usize,
    columns: usize,
    stride: usize,
}

/// Assembles the gradient, or `None` where no tile kernel fits.
pub fn assemble(
    context: Context,
    label: &str,
    g: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
    epilogue: &Epilogue,
) -> Option<Assembled> {
    let lanes = fixed_subgroup(context)?;
    let z = g.conv.groups;
    let (group_in, group_out) = (g.in_channels / z, g.out_channels / z);
    if z > 1 && (group_in < 4 || group_out < 8) {
        return None;
    }
    let tile = SubgroupTile::new(lanes, group_out);
    // Input channels of a workgroup, as vectors that a lane loads.
    let vectors = if group_in > 16 { 8 } else { group_in.div_ceil(4) };
    let (rows, columns) =
        (group_in.next_multiple_of(vectors * 4), group_out.next_multiple_of(tile.columns()));
    let blocks = (rows / (vectors * 4)) * (columns / tile.columns()) * g.kernel[0] * g.kernel[1] * z;

    let pixels = g.batch * g.out_height * g.out_width;
    let groups = lanes / tile.group;
    // Enough workgroups for all threads, and sums short enough to stay accurate.
    let wanted = 64usize.div_ceil(blocks).max(pixels.div_ceil(4096 * groups));
    let chunk_len = pixels.div_ceil(wanted * groups).next_multiple_of(tile.group);
    let chunks = pixels.div_ceil(chunk_len * groups) * groups;
    let stride = z * g.kernel[0] * g.kernel[1] * rows * columns;
    let partials = Partials { chunks, rows, columns, stride };

    let first = subgroup_launch(context, label, g, lhs, rhs, tile, vectors, chunk_len, &partials);
    let position = format!(
        "((co / {group_out}) * {taps} + r * {kw} + s) * {area} + ci * {columns} + co % {group_out}",
        taps = g.kernel[0] * g.kernel[1],
        kw = g.kernel[1],
        area = rows * columns,
    );
    let second = sum_weight_chunks(context, label, g, epilogue, chunks, stride, &position);
    Some(Assembled { launches: vec![first, second], scratch: vec![chunks * stride], ..Default::default() })
}

#[allow(clippy::too_many_arguments, reason = "the parts of one kernel")]
fn subgroup_launch(
    context: Context,
    label: &str,
    g: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
    tile: SubgroupTile,
    vectors: usize,
    chunk_len: usize,
    partials: &Partials,
) -> Launch {
    let z = g.conv.groups;
    let (group_in, group_out) = (g.in_channels / z, g.out_channels / z);
    let mut bindings = Bindings::new(context, []);
    image_loader(lhs, group_in).declare(&mut bindings);
    image_loader(rhs, group_out).declare(&mut bindings);
    let functions = image_vectors("lhs", lhs, group_in, &mut bindings)
        + &image_vectors("rhs", rhs, group_out, &mut bindings);
    let len = partials.chunks * partials.stride;
    let scratch = bindings.scratch(Storage::Scratch(0), Access::ReadWrite, len, true);

    let (mut accumulators, mut multiply, mut finish) = (String::new(), String::new(), String::new());
    let pixels = g.batch * g.out_height * g.out_width;
    for j in 0..vectors {
        let _ = writeln!(
            multiply,
            "        let a{j} = select(vec4<f32>(0.0), lhs4(sn, sy, sx, z, row + {}), inside);",
            j * 4
        );
    }
    for l in 0..tile.group {
        let _ = writeln!(
            multiply,
            "        let p{l} = min(first + {l}, {last});\n        \
             let n{l} = p{l} / {area};\n        \
             let oy{l} = (p{l} / {width}) % {height};\n        \
             let ox{l} = p{l} % {width};",
            last = pixels - 1,
            area = g.out_height * g.out_width,
            width = g.out_width,
            height = g.out_height,
        );
        for v in 0..tile.vectors {
            let _ =
                writeln!(multiply, "        let d{l}_{v} = rhs4(n{l}, oy{l}, ox{l}, z, column + {});", v * 4);
        }
        for j in 0..vectors {
            let _ = writeln!(multiply, "        let b{l}_{j} = {}(a{j}, {l}u);", tile.broadcast());
            for c in 0..4 {
                for v in 0..tile.vectors {
                    let row = j * 4 + c;
                    let _ = writeln!(multiply, "        sum{row}_{v} += b{l}_{j}[{c}] * d{l}_{v};");
                }
            }
        }
    }
    for row in 0..vectors * 4 {
        for v in 0..tile.vectors {
            let _ = writeln!(accumulators, "    var sum{row}_{v} = vec4<f32>(0.0);");
            let _ = writeln!(
                finish,
                "    {scratch}[(chunk * {} + ((z * {} + tap) * {} + row + {row}) * {} + column) / 4 + {v}] = sum{row}_{v};",
                partials.stride,
                g.kernel[0] * g.kernel[1],
                partials.rows,
                partials.columns,
            );
        }
    }
    let (declarations, bound) = bindings.finish();
    let column_blocks = partials.columns / tile.columns();
    let row_blocks = partials.rows / (vectors * 4);
    let blocks = column_blocks * row_blocks;
    let blocks_taps = blocks * g.kernel[0] * g.kernel[1];
    let groups = tile.lanes / tile.group;
    let source = fill_geometry(
        SUBGROUP,
        g,
        &[
            ("bindings", &declarations),
            ("functions", &functions),
            ("threads", &tile.lanes),
            ("group", &tile.group),
            ("columns_4", &(tile.vectors * 4)),
            ("rows", &(vectors * 4)),
            ("column_blocks", &column_blocks),
            ("row_blocks", &row_blocks),
            ("blocks", &blocks),
            ("blocks_taps", &blocks_taps),
            ("blocks_taps_z", &(blocks_taps * z)),
            ("z", &z),
            ("groups", &groups),
            ("chunk_len", &chunk_len),
            ("accumulators", &accumulators),
            ("multiply", &multiply),
            ("finish", &finish),
        ],
    );
    let count = blocks_taps * z * (partials.chunks / groups);
    Launch {
        label: label.to_string(),
        source: format!("{PRELUDE}\n{source}"),
        bindings: bound,
        params: vec![count as u32, 0, 0, 0],
        groups: context.target.fold_groups(count),
    }
}
