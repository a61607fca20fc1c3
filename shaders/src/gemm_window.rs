//! Implicit matrix products on software drivers, for convolutions whose images fit into uniform bindings.
//!
//! A load from storage costs such a driver as much as a hundred multiply-adds, one from a uniform buffer
//! a tenth of that, and a value that is already in a register nothing. So every pixel is loaded once for
//! all taps of the window, and everything that is loaded in the loop comes from uniform bindings.

use std::fmt::Write;
use std::sync::Arc;

use crate::bindings::{Access, Scratch};
use crate::emit::module;
use crate::gemm::{Form, Gemm, Packed, TapAxis};
use crate::template::fill;
use crate::window::{Reader, Windows, moved};
use crate::{Context, Launch};

const TEMPLATE: &str = include_str!("../wgsl/gemm_window.wgsl");
/// Columns of a block, four a lane of a quad.
pub const COLUMNS: usize = 16;
/// Multiply-adds from which on a product is worth the driver's time to compile this kernel, a second.
pub const WORTH: usize = 5 << 20;
/// Multiply-adds from which on a launch is worth its own cost.
pub const LAUNCH_WORTH: usize = 1 << 18;
/// Vector multiply-adds of the unrolled loop's body, which bound that time.
const UNROLLED: usize = 4608;
/// Pixels around a tile that are held at once.
const HELD: usize = 160;

/// The pixels that a quad of lanes computes, and where they lie in the left operand.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    pub size: [usize; 2],
    /// Positions of the left operand around the tile.
    held: [usize; 2],
}

impl Tile {
    /// The largest tile whose loop the driver compiles in reasonable time.
    pub fn new(y: &TapAxis, x: &TapAxis) -> Option<Tile> {
        let width = if x.grid > 4 { 8 } else { 4 };
        let tiles =
            [4, 2, 1].map(|height| Tile { size: [height, width], held: [reach(y, height), reach(x, width)] });
        let taps = y.count * x.count;
        tiles.into_iter().find(|tile| {
            let pixels = tile.size[0] * tile.size[1];
            pixels * taps * COLUMNS <= UNROLLED && tile.held() <= HELD
        })
    }

    /// Pixels that are held at once.
    pub fn held(&self) -> usize {
        self.held[0] * self.held[1]
    }

    /// Their number in a row.
    pub fn held_width(&self) -> usize {
        self.held[1]
    }
}

/// Which of the held pixels a tile's pixel reads at a tap.
pub fn held_index(tile: &Tile, y: &TapAxis, x: &TapAxis, pixel: [usize; 2], tap: [usize; 2]) -> i64 {
    let at = |axis: &TapAxis, d: usize| {
        pixel[d] as i64 * axis.stride + tap[d] as i64 * axis.move_by + before(axis)
    };
    at(y, 0) * tile.held[1] as i64 + at(x, 1)
}

/// Positions between the first and the last that this many neighbours of a grid read.
fn reach(axis: &TapAxis, pixels: usize) -> usize {
    let taps = axis.count.max(1) - 1;
    (pixels - 1) * axis.stride as usize + taps * axis.move_by.unsigned_abs() as usize + 1
}

/// What tap 0 is to the first position that is held.
pub fn before(axis: &TapAxis) -> i64 {
    (axis.count as i64 - 1).max(0) * (-axis.move_by).max(0)
}

fn readers<'a>(gemm: &'a Gemm) -> [Reader<'a>; 2] {
    let (lhs, epilogue) = (gemm.lhs, gemm.epilogue);
    [
        Reader { shape: &lhs.shape, program: &lhs.program, roots: vec![lhs.value] },
        Reader {
            shape: &epilogue.shape,
            program: &epilogue.program,
            roots: epilogue.stores.iter().map(|s| s.value).collect(),
        },
    ]
}

fn windows(context: Context, gemm: &Gemm) -> Windows {
    // Uniforms of its own: the parameters and the packed operand.
    Windows::new(context, gemm.images, &gemm.epilogue.stores, &readers(gemm), 2)
}

/// Whether these products of one convolution are for this kernel.
pub fn suits(context: Context, gemms: &[Gemm]) -> bool {
    let Some(first) = gemms.first() else { return false };
    let work: usize = gemms.iter().map(|g| g.rows() * g.y.count * g.x.count).sum();
    let right_bytes = first.taps() * first.k.next_multiple_of(4) * COLUMNS * 4;
    matches!(first.form, Form::Image(_))
        && work * first.k * first.columns * first.z >= WORTH
        && (first.z == 1 || first.columns % COLUMNS == 0)
        && right_bytes as u64 <= context.target.limits.uniform_bytes
        && gemms.iter().all(|gemm| Tile::new(&gemm.y, &gemm.x).is_some())
        && {
            let windows = windows(context, first);
            let launches = gemms.len() * first.z * first.columns.div_ceil(COLUMNS);
            let launch_work = work * first.k * first.columns * first.z / launches;
            windows.hold(&readers(first)[0]) && launch_work * windows.images >= LAUNCH_WORTH * first.images
        }
}

/// The launches of one product.
pub fn launches(
    context: Context,
    label: &str,
    gemm: &Gemm,
    lanes: usize,
    packed: Packed,
) -> Option<Vec<Launch>> {
    let tile = Tile::new(&gemm.y, &gemm.x)?;
    let windows = windows(context, gemm);
    let (functions, mut bindings) = gemm.functions(context, packed.k_padded, Some(&windows));
    let block_len = gemm.taps() * packed.k_padded * COLUMNS;
    let right = bindings.scratch(Scratch { len: block_len, ..packed.scratch }, Access::Uniform, true);
    let [height, width] = tile.size;
    let held = tile.held();

    let (mut accumulators, mut positions) = (String::new(), String::new());
    let (mut multiply, mut finish) = (String::new(), String::new());
    for q in 0..held.div_ceil(4) {
        let _ = writeln!(
            positions,
            "    let held{q} = min({} + member, {});\n    \
             let y{q} = top * {} + ({}) + held{q} / {w};\n    \
             let x{q} = left * {} + ({}) + held{q} % {w};\n    \
             let inside{q} = u32(y{q}) < {}u && u32(x{q}) < {}u;\n    \
             let sy{q} = select(0, y{q}, inside{q});\n    \
             let sx{q} = select(0, x{q}, inside{q});",
            q * 4,
            held - 1,
            gemm.y.stride,
            gemm.y.offset - before(&gemm.y),
            gemm.x.stride,
            gemm.x.offset - before(&gemm.x),
            gemm.y.size,
            gemm.x.size,
            w = tile.held_width(),
        );
        let _ = writeln!(
            multiply,
            "        let v{q} = select(vec4<f32>(0.0), lhs4(n, sy{q}, sx{q}, z, k), inside{q});"
        );
    }
    for pixel in 0..held {
        let _ = writeln!(multiply, "        let a{pixel} = quadBroadcast(v{}, {}u);", pixel / 4, pixel % 4);
    }
    let taps: Vec<[usize; 2]> =
        (0..gemm.y.count).flat_map(|y| (0..gemm.x.count).map(move |x| [y, x])).collect();
    for (t, [y, x]) in taps.iter().enumerate() {
        let number = (y * gemm.y.step + gemm.y.first) * gemm.window[1] + x * gemm.x.step + gemm.x.first;
        let weight =
            |c: usize| format!("{right}[({} + k) * {} + member]", number * packed.k_padded + c, COLUMNS / 4);
        let weights = (0..4).map(weight).collect::<Vec<_>>().join(", ");
        let _ = writeln!(multiply, "        let w{t} = mat4x4<f32>({weights});");
    }
    for row in 0..height * width {
        let (y, x) = (row / width, row % width);
        let _ = writeln!(accumulators, "    var sum{row} = vec4<f32>(0.0);");
        for (t, tap) in taps.iter().enumerate() {
            let pixel = held_index(&tile, &gemm.y, &gemm.x, [y, x], *tap);
            let _ = writeln!(multiply, "        sum{row} += w{t} * a{pixel};");
        }
        let mut inside = Vec::new();
        if !gemm.y.grid.is_multiple_of(height) {
            inside.push(format!("top + {y} < {}", gemm.y.grid));
        }
        if !gemm.x.grid.is_multiple_of(width) {
            inside.push(format!("left + {x} < {}", gemm.x.grid));
        }
        let store = format!("finish_at4(n, top + {y}, left + {x}, z, column, sum{row});");
        let _ = match inside.is_empty() {
            true => writeln!(finish, "        {store}"),
            false => writeln!(finish, "        if {} {{ {store} }}", inside.join(" && ")),
        };
    }
    let (declarations, bound) = bindings.finish_windows();
    let (row_tiles, column_tiles) = (gemm.x.grid.div_ceil(width), gemm.y.grid.div_ceil(height));
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
            ("accumulators", &accumulators),
            ("positions", &positions),
            ("k_padded", &packed.k_padded),
            ("multiply", &multiply),
            ("finish", &finish),
        ],
    );
    let source: Arc<str> = module(&source).into();
    let blocks = packed.columns_padded / COLUMNS;
    let mut launches = Vec::new();
    for z in 0..gemm.z {
        for block in 0..blocks {
            for [image, images, window] in windows.launches(gemm.images) {
                let tiles = images * row_tiles * column_tiles;
                let count = tiles.div_ceil(quads);
                let mut bindings = moved(&bound, window);
                for bound in bindings.iter_mut().filter(|bound| bound.storage == packed.scratch.storage) {
                    bound.offset = (z * blocks + block) * block_len;
                }
                launches.push(Launch {
                    label: label.to_string(),
                    source: source.clone(),
                    bindings,
                    params: [count, tiles, image, window, z, block, 0, 0].map(|p| p as u32).to_vec(),
                    groups: context.target.fold_groups(count),
                });
            }
        }
    }
    Some(launches)
}
