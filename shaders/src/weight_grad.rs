//! The weight gradient as a tiled matrix product over pixels.

use std::fmt::Write;

use schedule::ir::{ConvGeometry, Epilogue, Operand};

use crate::bindings::{Access, Bindings, Scratch};
use crate::convolution::{fill_geometry, sum_weight_chunks};
use crate::emit::module;
use crate::gemm::{image_loader, image_vectors};
use crate::tile_shared::SharedTile;
use crate::{Assembled, Context, Launch};

const SHARED: &str = include_str!("../wgsl/weight_grad_shared.wgsl");

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
    let z = g.conv.groups;
    let (group_in, group_out) = (g.in_channels / z, g.out_channels / z);
    if z > 1 && (group_in < 4 || group_out < 8) {
        return None;
    }
    let (launch, partials) = shared(context, label, g, lhs, rhs);
    let Partials { chunks, rows, columns, stride } = partials;
    let position = format!(
        "((co / {group_out}) * {taps} + r * {kw} + s) * {area} + ci * {columns} + co % {group_out}",
        taps = g.kernel[0] * g.kernel[1],
        kw = g.kernel[1],
        area = rows * columns,
    );
    let sum = sum_weight_chunks(context, label, g, epilogue, chunks, stride, &position);
    let scratch = vec![Scratch::first(chunks * stride).bytes()];
    Some(Assembled { launches: vec![launch, sum], scratch, ..Default::default() })
}

/// The bindings and the functions `lhs4` and `rhs4` of a kernel.
fn functions<'c>(
    context: Context<'c>,
    g: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
    partials: &Partials,
) -> (String, Bindings<'c>, String) {
    let z = g.conv.groups;
    let (group_in, group_out) = (g.in_channels / z, g.out_channels / z);
    let mut bindings = Bindings::new(context, []);
    image_loader(lhs, group_in).declare(&mut bindings);
    image_loader(rhs, group_out).declare(&mut bindings);
    let text = image_vectors("lhs", lhs, group_in, partials.rows, &mut bindings)
        + &image_vectors("rhs", rhs, group_out, partials.columns, &mut bindings);
    let len = partials.chunks * partials.stride;
    let scratch = bindings.scratch(Scratch::first(len), Access::ReadWrite, true);
    (text, bindings, scratch)
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
    let (functions, bindings, scratch) = functions(context, g, lhs, rhs, &partials);

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
        count: count as u32,
        groups: context.target.fold_groups(count),
    };
    (launch, partials)
}
