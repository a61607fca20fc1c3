//! Implicit matrix products: what convolutions (forward and input gradient) and matrix products have in
//! common, and the tile kernels that compute it.
//!
//! `result[z, row, column] = sum over taps and k of left(z, row moved by tap, k) * right[z, tap, k, column]`.
//! For a convolution `z` is the group, a row is a position of the result's pixel grid, a tap an element of
//! the kernel window; a plain matrix product has a grid of one row of pixels and one tap.

use schedule::ir::{ConvGeometry, ConvKind, Epilogue, Instr, Operand};

use crate::bindings::{Access, Bindings, Scratch, Storage};
use crate::operand::{Finisher, IMAGE, LEFT, Loader, PRODUCT, RIGHT, WEIGHT};
use crate::template::fill;
use crate::thread::{self, Functions};
use crate::tile_shared::SharedTile;
use crate::{Assembled, Context, Element, Launch, Operands, gemm_shared};

const PACK: &str = include_str!("../wgsl/pack.wgsl");

/// One axis of the taps: tap `t` of `count` is element `first + t * step` of the window, and reads the
/// left operand at `row * stride + offset + t * move_by`, if that is within `0..size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapAxis {
    pub count: usize,
    pub first: usize,
    pub step: usize,
    pub stride: i64,
    pub offset: i64,
    pub move_by: i64,
    /// Size of the left operand along this axis.
    pub size: usize,
    /// Grid rows along this axis.
    pub grid: usize,
    /// Grid row `i` is row `i * out_stride + out_offset` of the result.
    pub out_stride: usize,
    pub out_offset: usize,
}

impl TapAxis {
    /// A grid that is the result, one tap, no movement.
    fn identity(size: usize) -> TapAxis {
        TapAxis {
            count: 1,
            first: 0,
            step: 1,
            stride: 1,
            offset: 0,
            move_by: 1,
            size,
            grid: size,
            out_stride: 1,
            out_offset: 0,
        }
    }

    /// Axis `d` of a convolution's forward pass.
    pub fn forward(g: &ConvGeometry, d: usize) -> TapAxis {
        TapAxis {
            count: g.kernel[d],
            first: 0,
            step: 1,
            stride: g.conv.stride[d] as i64,
            offset: -(g.conv.padding[d] as i64),
            move_by: g.conv.dilation[d] as i64,
            size: [g.height, g.width][d],
            grid: [g.out_height, g.out_width][d],
            out_stride: 1,
            out_offset: 0,
        }
    }
}

/// How the operands are indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Left and result are images, right a convolution's weight.
    Image(ConvKind),
    /// Left `[z, m, k]`, right `[z, k, n]`, result `[z, m, n]`.
    Matrix,
}

/// An implicit matrix product (one launch of it; strided input gradients need several).
#[derive(Clone, Debug)]
pub struct Gemm<'a> {
    pub form: Form,
    pub lhs: &'a Operand,
    pub rhs: &'a Operand,
    pub epilogue: &'a Epilogue,
    /// Groups of a convolution, batch of a matrix product.
    pub z: usize,
    /// Images of a convolution; 1 for a matrix product.
    pub images: usize,
    pub y: TapAxis,
    pub x: TapAxis,
    /// The window's size.
    pub window: [usize; 2],
    /// Values of `k` (a group's channels of the left operand).
    pub k: usize,
    /// Columns of the result (a group's channels).
    pub columns: usize,
}

impl<'a> Gemm<'a> {
    /// A matrix product.
    pub fn matrix(
        [batch, m, n, k]: [usize; 4],
        lhs: &'a Operand,
        rhs: &'a Operand,
        epilogue: &'a Epilogue,
    ) -> Gemm<'a> {
        Gemm {
            form: Form::Matrix,
            lhs,
            rhs,
            epilogue,
            z: batch,
            images: 1,
            y: TapAxis::identity(1),
            x: TapAxis::identity(m),
            window: [1, 1],
            k,
            columns: n,
        }
    }

    /// The launches of a convolution or its input gradient. The gradient of a strided convolution is
    /// one dense product for every phase of the stride, each with its own part of the window.
    pub fn convolution(
        kind: ConvKind,
        g: &ConvGeometry,
        lhs: &'a Operand,
        rhs: &'a Operand,
        epilogue: &'a Epilogue,
    ) -> Vec<Gemm<'a>> {
        let conv = &g.conv;
        let (group_in, group_out) = (g.in_channels / conv.groups, g.out_channels / conv.groups);
        let gemm = |y: TapAxis, x: TapAxis| Gemm {
            form: Form::Image(kind),
            lhs,
            rhs,
            epilogue,
            z: conv.groups,
            images: g.batch,
            y,
            x,
            window: g.kernel,
            k: if kind == ConvKind::Forward { group_in } else { group_out },
            columns: if kind == ConvKind::Forward { group_out } else { group_in },
        };
        let sizes = [[g.height, g.out_height], [g.width, g.out_width]];
        if kind == ConvKind::Forward {
            return vec![gemm(TapAxis::forward(g, 0), TapAxis::forward(g, 1))];
        }
        let phases = |d: usize| -> Vec<TapAxis> {
            (0..conv.stride[d].min(sizes[d][0]))
                .map(|phase| {
                    let (stride, dilation) = (conv.stride[d], conv.dilation[d]);
                    let at = |r: usize| (phase + conv.padding[d]) as i64 - (r * dilation) as i64;
                    let hits: Vec<usize> = (0..g.kernel[d]).filter(|&r| at(r) % stride as i64 == 0).collect();
                    let first = hits.first().copied().unwrap_or(0);
                    let step = hits.get(1).map_or(1, |second| second - first);
                    TapAxis {
                        count: hits.len(),
                        first,
                        step,
                        stride: 1,
                        offset: if hits.is_empty() { 0 } else { at(first) / stride as i64 },
                        move_by: -((step * dilation / stride) as i64),
                        size: sizes[d][1],
                        grid: (sizes[d][0] - phase).div_ceil(stride),
                        out_stride: stride,
                        out_offset: phase,
                    }
                })
                .collect()
        };
        let (ys, xs) = (phases(0), phases(1));
        ys.iter().flat_map(|y| xs.iter().map(|x| gemm(*y, *x))).collect()
    }

    /// Rows of the grid.
    pub fn rows(&self) -> usize {
        self.images * self.y.grid * self.x.grid
    }

    /// Elements of the window.
    pub fn taps(&self) -> usize {
        self.window[0] * self.window[1]
    }

    /// `lhs4(n, y, x, z, k)`: four neighbours along k for `k` up to `k_padded`, zero past the operand's end.
    fn left_function(&self, k_padded: usize, bindings: &mut Bindings) -> String {
        match self.form {
            Form::Image(_) => image_vectors("lhs", self.lhs, self.k, k_padded, bindings),
            Form::Matrix => {
                let function = Loader::new(self.lhs, LEFT, self.left_vector()).write("lhs", bindings);
                function + &vectors("lhs", self.k, k_padded, |k| format!("lhs(z, x, {k})"))
            }
        }
    }

    /// The kernel's functions `lhs4`, `finish4` and `finish_at4`, and its bindings so far.
    pub fn functions<'c>(&self, context: Context<'c>, k_padded: usize) -> (String, Bindings<'c>) {
        let stores = self.epilogue.stores.iter().map(|s| s.buffer);
        let mut bindings = Bindings::new(context, stores);
        let params = if self.form == Form::Matrix { LEFT } else { IMAGE };
        Loader::new(self.lhs, params, self.left_vector()).declare(&mut bindings);
        self.finisher().declare(&mut bindings);
        let left = self.left_function(k_padded, &mut bindings);
        (left + &self.finish_function(&mut bindings), bindings)
    }

    /// Statements that give row `row{q}` (already declared) its position in the left operand before a tap
    /// moves it: `n{q}`, `y{q}`, `x{q}`.
    pub fn row_position(&self, q: usize) -> String {
        let (w, h) = (self.x.grid, self.y.grid);
        format!(
            "    let x{q} = (row{q} % {w}) * {} + {};\n    \
             let y{q} = ((row{q} / {w}) % {h}) * {} + {};\n    \
             let n{q} = row{q} / {};\n",
            self.x.stride,
            signed(self.x.offset),
            self.y.stride,
            signed(self.y.offset),
            w * h,
        )
    }

    /// Statements for row `q` at tap `(tap_y, tap_x)`: whether it is `inside{q}` the left operand, and its
    /// position there, or a safe one: `sn{q}`, `sy{q}`, `sx{q}`.
    pub fn tap_position(&self, q: usize) -> String {
        format!(
            "    let ty{q} = y{q} + tap_y * {};\n    \
             let tx{q} = x{q} + tap_x * {};\n    \
             let inside{q} = row{q} < {} && u32(ty{q}) < {}u && u32(tx{q}) < {}u;\n    \
             let sn{q} = select(0, n{q}, inside{q});\n    \
             let sy{q} = select(0, ty{q}, inside{q});\n    \
             let sx{q} = select(0, tx{q}, inside{q});\n",
            signed(self.y.move_by),
            signed(self.x.move_by),
            self.rows(),
            self.y.size,
            self.x.size,
        )
    }

    /// The WGSL of a tap's number in the packed right operand.
    pub fn tap_number(&self) -> String {
        format!(
            "(tap_y * {} + {}) * {} + tap_x * {} + {}",
            self.y.step, self.y.first, self.window[1], self.x.step, self.x.first
        )
    }

    fn left_vector(&self) -> Option<usize> {
        let last = if self.form == Form::Matrix { 2 } else { 3 };
        self.k.is_multiple_of(4).then_some(last)
    }

    fn finish_vector(&self) -> Option<usize> {
        let last = if self.form == Form::Matrix { 2 } else { 3 };
        self.columns.is_multiple_of(4).then_some(last)
    }

    fn finisher(&self) -> Finisher {
        let params = if self.form == Form::Matrix { PRODUCT } else { IMAGE };
        Finisher::new(self.epilogue, params, self.finish_vector())
    }

    /// `finish4(row, z, column, value)`: stores four columns of a row, or those that exist;
    /// `finish_at4(n, y, x, z, column, value)`: the same by the row's position in the grid.
    fn finish_function(&self, bindings: &mut Bindings) -> String {
        let function = self.finisher().write("finish", &[], bindings);
        let call = |offset: usize, value: &str| match self.form {
            Form::Image(_) => format!("finish(n, y, x, z * {} + column + {offset}, {value})", self.columns),
            Form::Matrix => format!("finish(z, x, column + {offset}, {value})"),
        };
        let body = if self.finish_vector().is_some() {
            format!("    if column < {} {{ {}; }}\n", self.columns, call(0, "value"))
        } else {
            let lane = |j: usize| {
                format!("    if column + {j} < {} {{ {}; }}\n", self.columns, call(j, &format!("value[{j}]")))
            };
            (0..4).map(lane).collect()
        };
        format!(
            "{function}\nfn finish_at4(n: i32, gy: i32, gx: i32, z: i32, column: i32, value: vec4<f32>) {{\n    \
             let x = gx * {xs} + {xo};\n    let y = gy * {ys} + {yo};\n{body}}}\n\
             fn finish4(row: i32, z: i32, column: i32, value: vec4<f32>) {{\n    \
             finish_at4(row / {hw}, (row / {w}) % {h}, row % {w}, z, column, value);\n}}\n",
            w = self.x.grid,
            h = self.y.grid,
            hw = self.y.grid * self.x.grid,
            xs = self.x.out_stride,
            xo = self.x.out_offset,
            ys = self.y.out_stride,
            yo = self.y.out_offset,
        )
    }

    /// Whether the packed right operand can be kept between calls.
    fn is_frozen(&self, context: Context) -> bool {
        self.rhs.program.instrs.iter().all(|instr| match instr {
            Instr::Load { buffer, .. } => context.frozen[*buffer],
            _ => true,
        })
    }

    /// The launch that packs the right operand.
    fn pack(&self, context: Context, label: &str, packed: Packed) -> Launch {
        let Packed { scratch, k_padded, columns_padded } = packed;
        let (params, load) = match self.form {
            Form::Matrix => (RIGHT, "rhs(z, k, column)".to_string()),
            Form::Image(kind) => {
                let tap = format!("tap / {kw}, tap % {kw}", kw = self.window[1]);
                let load = match kind {
                    ConvKind::Forward => format!("rhs(z * {} + column, k, {tap})", self.columns),
                    _ => format!("rhs(z * {} + k, column, {tap})", self.k),
                };
                (WEIGHT, load)
            }
        };
        let functions = Functions {
            lhs: None,
            rhs: Some((self.rhs, params)),
            finish: None,
            scratch: Some((scratch, Access::ReadWrite)),
        };
        let value = scratch.element.narrowed("value".to_string(), false);
        thread::launch(context, &format!("{label}, packing"), scratch.len, functions, |packed| {
            fill(
                PACK,
                &[
                    ("columns_padded", &columns_padded),
                    ("k_padded", &k_padded),
                    ("tap_len", &(k_padded * columns_padded)),
                    ("taps", &self.taps()),
                    ("z_len", &(k_padded * columns_padded * self.taps())),
                    ("columns", &self.columns),
                    ("k", &self.k),
                    ("load", &load),
                    ("packed", &packed),
                    ("value", &value),
                ],
            )
        })
    }
}

/// `NAME4(n, y, x, z, k)` from an image operand: the values `k..k + 4` of group `z` of `per_group`
/// channels for `k` below `padded`, zero past the group's end.
pub fn image_vectors(
    name: &str,
    operand: &Operand,
    per_group: usize,
    padded: usize,
    bindings: &mut Bindings,
) -> String {
    let function = image_loader(operand, per_group).write(name, bindings);
    function + &vectors(name, per_group, padded, |k| format!("{name}(n, y, x, z * {per_group} + {k})"))
}

/// The loader behind [`image_vectors`].
pub fn image_loader(operand: &Operand, per_group: usize) -> Loader {
    Loader::new(operand, IMAGE, per_group.is_multiple_of(4).then_some(3))
}

/// The index is kept inside as well as the value: nothing past the end may be read.
fn vectors(name: &str, len: usize, padded: usize, call: impl Fn(&str) -> String) -> String {
    let value = if !len.is_multiple_of(4) {
        let lane = |j: usize| {
            let inside = call(&format!("min(k + {j}, {})", len as i64 - 1));
            format!("select(0.0, {inside}, k + {j} < {len})")
        };
        format!("vec4<f32>({}, {}, {}, {})", lane(0), lane(1), lane(2), lane(3))
    } else if padded > len {
        let inside = call(&format!("min(k, {})", len - 4));
        format!("select(vec4<f32>(0.0), {inside}, k < {len})")
    } else {
        call("k")
    };
    format!("fn {name}4(n: i32, y: i32, x: i32, z: i32, k: i32) -> vec4<f32> {{\n    return {value};\n}}\n")
}

/// Assembles products of one kernel that share a right operand, or `None` where no tile kernel fits.
pub fn assemble(context: Context, label: &str, gemms: &[Gemm]) -> Option<Assembled> {
    let first = gemms.first()?;
    // Too little in a group to fill a tile.
    if first.z > 1 && (first.columns < 8 || first.k < 4) && first.form != Form::Matrix {
        return None;
    }
    let tile = SharedTile::new(context.target, first.columns, first.k);
    let columns_padded = first.columns.next_multiple_of(tile.columns);
    let k_padded = first.k.next_multiple_of(tile.k);
    let frozen = first.is_frozen(context);
    let storage = if frozen { Storage::Kept(0) } else { Storage::Scratch(0) };
    let element = if context.target.operands == Operands::F32 { Element::F32 } else { Element::F16 };
    let len = first.z * first.taps() * k_padded * columns_padded;
    let scratch = Scratch { storage, element, len };
    let packed = Packed { scratch, k_padded, columns_padded };
    let pack = first.pack(context, label, packed);
    let mut assembled = Assembled::default();
    if frozen {
        assembled.prepare.push(pack);
        assembled.kept.push(scratch.bytes());
    } else {
        assembled.launches.push(pack);
        assembled.scratch.push(scratch.bytes());
    }
    for gemm in gemms.iter().filter(|gemm| gemm.rows() > 0) {
        assembled.launches.push(gemm_shared::launch(context, label, gemm, tile, packed));
    }
    Some(assembled)
}

/// The right operand as the tile kernels read it, padded with zeros: `[z][tap][k_padded][columns_padded]`.
#[derive(Clone, Copy)]
pub struct Packed {
    pub scratch: Scratch,
    pub k_padded: usize,
    pub columns_padded: usize,
}

fn signed(value: i64) -> String {
    if value < 0 { format!("({value})") } else { value.to_string() }
}
