//! The weight gradient as a tiled matrix product over pixels.

use std::fmt::Write;

use schedule::ir::{ConvGeometry, Epilogue, Operand};

use crate::bindings::{Access, Bindings, Scratch};
use crate::convolution::{fill_geometry, sum_weight_chunks};
use crate::emit::module;
use crate::gemm::{image_loader, image_vectors};
use crate::gemm_subgroup::{SubgroupTile, fixed_subgroup};
use crate::tile_shared::SharedTile;
use crate::window::Windows;
use crate::{Assembled, Context, Launch, weight_grad_window};

const SUBGROUP: &str = include_str!("../wgsl/weight_grad_subgroup.wgsl");
const SHARED: &str = include_str!("../wgsl/weight_grad_shared.wgsl");

/// Where the chunks' sums lie in scratch: `[chunk][z][tap][row][column]`, rows and columns padded.
pub struct Partials {
    pub chunks: usize,
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
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
    let z = g.conv.groups;
    let (group_in, group_out) = (g.in_channels / z, g.out_channels / z);
    if z > 1 && (group_in < 4 || group_out < 8) {
        return None;
    }
    let lanes = fixed_subgroup(context);
    let windows = lanes.and_then(|l| weight_grad_window::launches(context, label, g, lhs, rhs, l));
    let one = |(launch, partials)| (vec![launch], partials);
    let (mut launches, partials) = match (windows, lanes) {
        (Some(found), _) => found,
        (None, Some(lanes)) => one(subgroup(context, label, g, lhs, rhs, lanes)),
        (None, None) => one(shared(context, label, g, lhs, rhs)),
    };
    let Partials { chunks, rows, columns, stride } = partials;
    let position = format!(
        "((co / {group_out}) * {taps} + r * {kw} + s) * {area} + ci * {columns} + co % {group_out}",
        taps = g.kernel[0] * g.kernel[1],
        kw = g.kernel[1],
        area = rows * columns,
    );
    launches.push(sum_weight_chunks(context, label, g, epilogue, chunks, stride, &position));
    let scratch = vec![Scratch::first(chunks * stride).bytes()];
    Some(Assembled { launches, scratch, ..Default::default() })
}

/// The bindings and the functions `lhs4` and `rhs4` of a kernel.
pub fn functions<'c>(
    context: Context<'c>,
    g: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
    partials: &Partials,
    windows: Option<&Windows>,
) -> (String, Bindings<'c>, String) {
    let z = g.conv.groups;
    let (group_in, group_out) = (g.in_channels / z, g.out_channels / z);
    let mut bindings = Bindings::new(context, []);
    windows.iter().for_each(|windows| windows.declare(&mut bindings));
    image_loader(lhs, group_in).declare(&mut bindings);
    image_loader(rhs, group_out).declare(&mut bindings);
    let text = image_vectors("lhs", lhs, group_in, partials.rows, &mut bindings)
        + &image_vectors("rhs", rhs, group_out, partials.columns, &mut bindings);
    let len = partials.chunks * partials.stride;
    let scratch = bindings.scratch(Scratch::first(len), Access::ReadWrite, true);
    (text, bindings, scratch)
}

fn subgroup(
    context: Context,
    label: &str,
    g: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
    lanes: usize,
) -> (Launch, Partials) {
    let z = g.conv.groups;
    let (group_in, group_out) = (g.in_channels / z, g.out_channels / z);
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
    (subgroup_launch(context, label, g, lhs, rhs, tile, vectors, chunk_len, &partials), partials)
}

fn shared(
    context: Context,
    label: &str,
    g: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
) -> (Launch, Partials) {
    let (z, taps) = (g.conv.groups, g.kernel[0] * g.kernel[1]);
    let (group_in, group_out) = (g.in_channels / z, g.out_channels / z);
    let pixels = g.batch * g.out_height * g.out_width;
    let tile = SharedTile::new(context.target, group_out, pixels.max(16));
    let (rows, columns) = (group_in.next_multiple_of(4), group_out.next_multiple_of(tile.columns));
    let (row_tiles, column_blocks) = ((taps * rows).div_ceil(tile.rows), columns / tile.columns);
    let blocks = row_tiles * column_blocks;
    // Enough workgroups to fill a large GPU, chunks long enough to be worth a sum of their own.
    let wanted = 512usize.div_ceil(blocks * z).min(pixels.div_ceil(256)).max(pixels.div_ceil(4096));
    let chunk_len = pixels.div_ceil(wanted.max(1)).next_multiple_of(tile.k);
    let chunks = pixels.div_ceil(chunk_len);
    let partials = Partials { chunks, rows, columns, stride: z * taps * rows * columns };
    let (functions, bindings, scratch) = functions(context, g, lhs, rhs, &partials, None);

    let threads = tile.threads();
    let (mut row_positions, mut load, mut stage) = (String::new(), String::new(), String::new());
    for i in 0..tile.left_loads() {
        let quads = tile.rows / 4;
        // Neighbouring threads load neighbouring channels of a pixel. Rows past the end repeat the last.
        let _ = writeln!(
            row_positions,
            "    let slot{i} = ((thread + {offset}) % {quads}) * 4;\n    \
             let k{i} = (thread + {offset}) / {quads};\n    \
             let row{i} = min(first + slot{i}, {last});\n    \
             let ci{i} = row{i} % {rows};\n    \
             let move_y{i} = (row{i} / {area}) * {dy} - {py};\n    \
             let move_x{i} = ((row{i} / {rows}) % {kw}) * {dx} - {px};",
            offset = i * threads,
            last = taps * rows - 4,
            area = rows * g.kernel[1],
            kw = g.kernel[1],
            dy = g.conv.dilation[0],
            dx = g.conv.dilation[1],
            py = g.conv.padding[0],
            px = g.conv.padding[1],
        );
        let _ = writeln!(
            load,
            "    let p{i} = pixel0 + k{i};\n    \
             let y{i} = ((p{i} / {w}) % {h}) * {sy} + move_y{i};\n    \
             let x{i} = (p{i} % {w}) * {sx} + move_x{i};\n    \
             let inside{i} = p{i} < end && u32(y{i}) < {height}u && u32(x{i}) < {width}u;\n    \
             let left{i} = select(vec4<f32>(0.0), lhs4(select(0, p{i} / {wh}, inside{i}), \
             select(0, y{i}, inside{i}), select(0, x{i}, inside{i}), z, ci{i}), inside{i});",
            w = g.out_width,
            h = g.out_height,
            wh = g.out_width * g.out_height,
            sy = g.conv.stride[0],
            sx = g.conv.stride[1],
            height = g.height,
            width = g.width,
        );
        stage += &tile.stage_left(i, |c| (format!("k{i}"), format!("slot{i} + {c}")));
    }
    for i in 0..tile.right_loads() {
        let quads = tile.columns / 4;
        let gradient = format!(
            "rhs4(q{i} / {wh}, (q{i} / {w}) % {h}, q{i} % {w}, z, block * {} + (at{i} % {quads}) * 4)",
            tile.columns,
            w = g.out_width,
            h = g.out_height,
            wh = g.out_width * g.out_height,
        );
        let _ = writeln!(
            load,
            "    let at{i} = min(thread + {}, {});\n    \
             let q{i} = min(pixel0 + at{i} / {quads}, {});\n    \
             let right{i} = {};",
            i * threads,
            tile.k * quads - 1,
            pixels - 1,
            tile.scaled(&gradient, true),
        );
        stage += &tile.stage_right(i);
    }
    let finish = tile.results(|row, column, value| {
        format!(
            "    if first + {row} < {height} {{\n        \
             {scratch}[(chunk * {stride} + (z * {height} + first + {row}) * {columns} + block * {} + {column}) / 4] = {};\n    }}\n",
            tile.columns,
            tile.unscaled(value, true),
            height = taps * rows,
            stride = partials.stride,
        )
    });
    let (declarations, bound) = bindings.finish();
    let source = fill_geometry(
        SHARED,
        g,
        &[
            ("bindings", &declarations),
            ("tiles", &tile.declarations()),
            ("parameters", &tile.parameters()),
            ("functions", &functions),
            ("threads", &threads),
            ("column_blocks", &column_blocks),
            ("row_tiles", &row_tiles),
            ("rows", &tile.rows),
            ("blocks", &blocks),
            ("z", &z),
            ("blocks_z", &(blocks * z)),
            ("chunk_len", &chunk_len),
            ("accumulators", &tile.accumulators()),
            ("row_positions", &row_positions),
            ("k", &tile.k),
            ("load", &load),
            ("stage", &stage),
            ("multiply", &tile.multiply()),
            ("finish", &finish),
        ],
    );
    let count = blocks * z * chunks;
    let launch = Launch {
        label: label.to_string(),
        source: (tile.enable().to_string() + &module(&source)).into(),
        bindings: bound,
        params: vec![count as u32, 0, 0, 0],
        groups: context.target.fold_groups(count),
    };
    (launch, partials)
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
    let (functions, bindings, scratch) = functions(context, g, lhs, rhs, partials, None);
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
        source: module(&source).into(),
        bindings: bound,
        params: vec![count as u32, 0, 0, 0],
        groups: context.target.fold_groups(count),
    }
}
