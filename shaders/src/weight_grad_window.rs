//! The weight gradient on software drivers, for images that fit into uniform bindings: as
//! `gemm_window.rs`, with the pixels as what is summed over and all taps in registers.

use std::fmt::Write;
use std::sync::Arc;

use schedule::ir::{ConvGeometry, Operand};

use crate::emit::module;
use crate::gemm::TapAxis;
use crate::gemm_window::{COLUMNS, LAUNCH_WORTH, Tile, WORTH, before, held_index};
use crate::template::fill;
use crate::weight_grad::{Partials, functions};
use crate::window::{Reader, Windows, moved};
use crate::{Context, Launch};

const TEMPLATE: &str = include_str!("../wgsl/weight_grad_window.wgsl");
/// Quads of a launch, where one chunk of it has fewer: a workgroup for each of two threads. Every chunk is
/// one more sum to load at the end.
const QUADS: usize = 4;

/// The launches before the chunks are summed, or `None` where the operands do not fit.
pub fn launches(
    context: Context,
    label: &str,
    g: &ConvGeometry,
    lhs: &Operand,
    rhs: &Operand,
    lanes: usize,
) -> Option<(Vec<Launch>, Partials)> {
    let z = g.conv.groups;
    let (group_in, group_out) = (g.in_channels / z, g.out_channels / z);
    let (y, x) = (TapAxis::forward(g, 0), TapAxis::forward(g, 1));
    let tile = Tile::new(&y, &x)?;
    let taps: Vec<[usize; 2]> =
        (0..g.kernel[0]).flat_map(|y| (0..g.kernel[1]).map(move |x| [y, x])).collect();
    let pixels = g.batch * g.out_height * g.out_width;
    let work = pixels * taps.len() * group_in * g.out_channels;
    if work < WORTH {
        return None;
    }
    let readers = [lhs, rhs].map(|operand| Reader {
        shape: &operand.shape,
        program: &operand.program,
        roots: vec![operand.value],
    });
    // The parameters are a uniform, too.
    let windows = Windows::new(context, g.batch, &[], &readers, 1);
    let launch_work = work / (z * group_out.div_ceil(COLUMNS)) * windows.images;
    if launch_work < LAUNCH_WORTH * g.batch || !readers.iter().all(|reader| windows.hold(reader)) {
        return None;
    }

    let [height, width] = tile.size;
    let (row_tiles, column_tiles) = (x.grid.div_ceil(width), y.grid.div_ceil(height));
    let (rows, columns) = (group_in.next_multiple_of(4), group_out.next_multiple_of(COLUMNS));
    let row_blocks = rows / 4;
    // Chunks of a launch: enough to share the work, and sums short enough to stay accurate.
    let tiles = windows.images * row_tiles * column_tiles;
    let chunks = QUADS.div_ceil(row_blocks).max(tiles.div_ceil(4096 / (height * width))).min(tiles);
    let parts: Vec<[usize; 3]> = windows.launches(g.batch).collect();
    let stride = z * taps.len() * rows * columns;
    let partials = Partials { chunks: parts.len() * chunks, rows, columns, stride };
    let (functions, bindings, scratch) = functions(context, g, lhs, rhs, &partials, Some(&windows));

    let (mut accumulators, mut positions) = (String::new(), String::new());
    let (mut multiply, mut finish) = (String::new(), String::new());
    for q in 0..tile.held().div_ceil(4) {
        let _ = writeln!(
            positions,
            "    let held{q} = min({} + member, {});\n    \
             let down{q} = held{q} / {w} + ({});\n    \
             let right{q} = held{q} % {w} + ({});",
            q * 4,
            tile.held() - 1,
            y.offset - before(&y),
            x.offset - before(&x),
            w = tile.held_width(),
        );
        let _ = writeln!(
            multiply,
            "        let y{q} = top * {} + down{q};\n        \
             let x{q} = left * {} + right{q};\n        \
             let inside{q} = here && u32(y{q}) < {}u && u32(x{q}) < {}u;\n        \
             let v{q} = select(vec4<f32>(0.0), lhs4(n, select(0, y{q}, inside{q}), \
             select(0, x{q}, inside{q}), z, row), inside{q});",
            y.stride, x.stride, y.size, x.size,
        );
    }
    for pixel in 0..tile.held() {
        let _ = writeln!(multiply, "        let a{pixel} = quadBroadcast(v{}, {}u);", pixel / 4, pixel % 4);
    }
    for pixel in 0..height * width {
        let (down, right) = (pixel / width, pixel % width);
        let (mut y_at, mut x_at) = (format!("top + {down}"), format!("left + {right}"));
        let mut exists = "here".to_string();
        // Pixels past the edge: another in their place, times zero.
        if y.grid % height != 0 {
            let _ = write!(exists, " && {y_at} < {}", y.grid);
            y_at = format!("min({y_at}, {})", y.grid - 1);
        }
        if x.grid % width != 0 {
            let _ = write!(exists, " && {x_at} < {}", x.grid);
            x_at = format!("min({x_at}, {})", x.grid - 1);
        }
        let _ = writeln!(
            multiply,
            "        let d{pixel} = select(vec4<f32>(0.0), rhs4(n, {y_at}, {x_at}, z, column), {exists});"
        );
    }
    for four in 0..height * width / 4 {
        let pixels: Vec<String> = (0..4).map(|p| format!("d{}", four * 4 + p)).collect();
        let _ = writeln!(multiply, "        let four{four} = mat4x4<f32>({});", pixels.join(", "));
    }
    for (t, tap) in taps.iter().enumerate() {
        for c in 0..4 {
            let _ = writeln!(accumulators, "    var sum{t}_{c} = vec4<f32>(0.0);");
            let _ = writeln!(
                finish,
                "        {scratch}[((i32(params.chunk) + chunk) * {stride} + ((z * {} + {t}) * {rows} + row + {c}) * {columns} + column) / 4] = sum{t}_{c};",
                taps.len(),
            );
            // Four neighbours of a row at once.
            for four in 0..height * width / 4 {
                let held = |p: usize| {
                    let pixel = four * 4 + p;
                    held_index(&tile, &y, &x, [pixel / width, pixel % width], *tap)
                };
                let values: Vec<String> = (0..4).map(|p| format!("a{}[{c}]", held(p))).collect();
                let _ = writeln!(
                    multiply,
                    "        sum{t}_{c} += four{four} * vec4<f32>({});",
                    values.join(", ")
                );
            }
        }
    }
    let (declarations, bound) = bindings.finish_windows();
    let quads = lanes / 4;
    let source = fill(
        TEMPLATE,
        &[
            ("bindings", &declarations),
            ("functions", &functions),
            ("threads", &lanes),
            ("quads", &quads),
            ("tile_h", &height),
            ("tile_w", &width),
            ("image_tiles", &(row_tiles * column_tiles)),
            ("row_tiles", &row_tiles),
            ("column_tiles", &column_tiles),
            ("row_blocks", &row_blocks),
            ("chunks", &chunks),
            ("accumulators", &accumulators),
            ("positions", &positions),
            ("multiply", &multiply),
            ("finish", &finish),
        ],
    );
    let source: Arc<str> = module(&source).into();
    let mut launches = Vec::new();
    for group in 0..z {
        for block in 0..columns / COLUMNS {
            for (number, [image, images, window]) in parts.iter().enumerate() {
                let tiles = images * row_tiles * column_tiles;
                let count = (row_blocks * chunks).div_ceil(quads);
                let params =
                    [count, tiles, *image, *window, group, block, number * chunks, tiles.div_ceil(chunks)];
                launches.push(Launch {
                    label: label.to_string(),
                    source: source.clone(),
                    bindings: moved(&bound, *window),
                    params: params.map(|p| p as u32).to_vec(),
                    groups: context.target.fold_groups(count),
                });
            }
        }
    }
    Some((launches, partials))
}
