//! Implicit matrix products: what convolutions, their gradients and matrix products have in common.
//!
//! `result[z, row, column] = sum over k of left[z, row, k] * right[z, k, column]`. A convolution's `z` is its
//! group. It goes over the positions of a grid of pixels, and an element of the window, a *tap*, moves a
//! position to the pixel of the left image that meets it there:
//!
//! | form | rows | columns | k |
//! |---|---|---|---|
//! | forward, input gradient | positions of the result | its channels | for every tap the left image's channels |
//! | weight gradient | taps, and for each the input's channels | the gradient's channels | positions of the gradient |
//! | matrix product | m | n | k |
//!
//! [`gemm_kernel`](crate::gemm_kernel) computes all of them.

use schedule::{ConvGeometry, ConvKind, Epilogue, Operand};

use crate::bindings::Bindings;
use crate::operand::{Finisher, LEFT, Loader, PIXELS, PRODUCT, WEIGHT};

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
    /// Grid row `i` is row `i * out_stride + out_offset` of `out_size` of the result.
    pub out_stride: usize,
    pub out_offset: usize,
    pub out_size: usize,
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
            out_size: size,
        }
    }

    /// Whether every tap reads within the left operand.
    fn stays_inside(&self) -> bool {
        let farthest = (self.grid as i64 - 1) * self.stride + self.offset;
        let moved = farthest + (self.count as i64 - 1) * self.move_by;
        [self.offset, farthest, moved, self.offset + moved - farthest]
            .iter()
            .all(|at| (0..self.size as i64).contains(at))
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
            out_size: [g.out_height, g.out_width][d],
        }
    }
}

/// How the operands are indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Convolution(ConvKind),
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
    /// Channels of the left operand in a group; `k` of a matrix product.
    pub channels: usize,
    /// Columns of the result: channels in a group, of the gradient where the result is a weight's.
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
            channels: k,
            columns: n,
        }
    }

    /// The launches of a convolution or a gradient. The input gradient of a strided convolution is one
    /// dense product for every phase of the stride, each with its own part of the window.
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
            form: Form::Convolution(kind),
            lhs,
            rhs,
            epilogue,
            z: conv.groups,
            images: g.batch,
            y,
            x,
            window: g.kernel,
            channels: if kind == ConvKind::InputGrad { group_out } else { group_in },
            columns: if kind == ConvKind::InputGrad { group_in } else { group_out },
        };
        let sizes = [[g.height, g.out_height], [g.width, g.out_width]];
        if kind != ConvKind::InputGrad {
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
                        out_size: sizes[d][0],
                    }
                })
                .collect()
        };
        let (ys, xs) = (phases(0), phases(1));
        ys.iter().flat_map(|y| xs.iter().map(|x| gemm(*y, *x))).collect()
    }

    /// Whether the result is a weight's gradient.
    pub fn is_weight_grad(&self) -> bool {
        self.form == Form::Convolution(ConvKind::WeightGrad)
    }

    /// Positions of the grid.
    pub fn positions(&self) -> usize {
        self.images * self.y.grid * self.x.grid
    }

    /// Rows of the result. Those of a weight gradient have whole vectors of channels for every tap.
    pub fn rows(&self) -> usize {
        if self.is_weight_grad() { self.taps() * self.row_channels() } else { self.positions() }
    }

    /// Channels of the left operand in whole vectors.
    pub fn row_channels(&self) -> usize {
        self.channels.next_multiple_of(4)
    }

    /// Values of `k`, for each tap where the sum goes over taps as well.
    pub fn depth(&self) -> usize {
        if self.is_weight_grad() { self.positions() } else { self.channels }
    }

    /// Elements of the window.
    pub fn taps(&self) -> usize {
        self.window[0] * self.window[1]
    }

    /// Which operand, left and right, is a gradient.
    pub fn gradients(&self) -> [bool; 2] {
        [ConvKind::InputGrad, ConvKind::WeightGrad].map(|kind| self.form == Form::Convolution(kind))
    }

    /// Says what [`lhs4`](Gemm::left_function) and [`rhs4`](Gemm::right_function) read.
    pub fn declare_operands(&self, bindings: &mut Bindings) {
        self.left_loader().declare(bindings);
        if self.is_weight_grad() {
            image_loader(self.rhs, self.columns).declare(bindings);
        }
    }

    /// `lhs4(p, z, c)`: four neighbouring channels of pixel `p`, or of a row, for `c` up to `padded`, zero past the
    /// operand's end.
    pub fn left_function(&self, padded: usize, bindings: &mut Bindings) -> String {
        match self.form {
            Form::Convolution(_) => image_vectors("lhs", self.lhs, self.channels, padded, bindings),
            Form::Matrix => {
                let function = self.left_loader().write("lhs", bindings);
                function + &vectors("lhs", self.channels, padded, |k| format!("lhs(z, p, {k})"))
            }
        }
    }

    /// `rhs4(p, z, c)`: the same of the gradient that a weight gradient reads.
    pub fn right_function(&self, padded: usize, bindings: &mut Bindings) -> String {
        image_vectors("rhs", self.rhs, self.columns, padded, bindings)
    }

    /// Statements that give position `p{q}` (already declared) its pixel in the left operand before a tap
    /// moves it: row `y{q}` and column `x{q}`, and its number `pixel{q}`.
    pub fn pixel(&self, q: usize) -> String {
        let ([y, x], pixels) = ([&self.y, &self.x], self.y.grid * self.x.grid);
        let axis = |at: String, axis: &TapAxis| match (axis.stride, axis.offset) {
            (1, 0) => at,
            (stride, offset) => format!("{at} * {stride} + {}", signed(offset)),
        };
        // By numbers without a sign: dividing those is quicker.
        let number = if [y, x].iter().all(|axis| axis.stride == 1 && axis.grid == axis.size) {
            format!("p{q} + {}", signed(y.offset * x.size as i64 + x.offset))
        } else {
            format!("(i32(u32(p{q}) / {pixels}u) * {} + y{q}) * {} + x{q}", y.size, x.size)
        };
        format!(
            "    let x{q} = {};\n    let y{q} = {};\n    let pixel{q} = {number};\n",
            axis(format!("i32(u32(p{q}) % {}u)", x.grid), x),
            axis(format!("i32(u32(p{q}) / {}u % {}u)", x.grid, y.grid), y),
        )
    }

    /// Statements for position `q` at tap `(tap_y, tap_x)`: whether it is `inside{q}` the left operand, and the number
    /// `moved{q}` of its pixel there, or of a safe one. With `beyond` the position may be past the last.
    pub fn moved_pixel(&self, q: usize, tap_y: &str, tap_x: &str, beyond: bool) -> String {
        let mut conditions = Vec::new();
        if beyond {
            conditions.push(format!("p{q} < {}", self.positions()));
        }
        for (name, axis, tap) in [("y", &self.y, tap_y), ("x", &self.x, tap_x)] {
            if !axis.stays_inside() {
                let by = signed(axis.move_by);
                conditions.push(format!("u32({name}{q} + {tap} * {by}) < {}u", axis.size));
            }
        }
        let inside = if conditions.is_empty() { "true".to_string() } else { conditions.join(" && ") };
        format!(
            "    let inside{q} = {inside};\n    \
             let moved{q} = select(0, pixel{q} + {tap_y} * {} + {tap_x} * {}, inside{q});\n",
            signed(self.y.move_by * self.x.size as i64),
            signed(self.x.move_by),
        )
    }

    /// The WGSL of a tap's number in the window.
    pub fn tap_number(&self) -> String {
        format!(
            "(tap_y * {} + {}) * {} + tap_x * {} + {}",
            self.y.step, self.y.first, self.window[1], self.x.step, self.x.first
        )
    }

    fn left_loader(&self) -> Loader {
        match self.form {
            Form::Convolution(_) => image_loader(self.lhs, self.channels),
            Form::Matrix => Loader::new(self.lhs, LEFT, self.channels.is_multiple_of(4).then_some(2)),
        }
    }

    /// Along which dim of the result four columns lie side by side.
    fn finish_vector(&self) -> Option<usize> {
        let last = if self.form == Form::Matrix { 2 } else { 1 };
        (self.columns.is_multiple_of(4) && !self.is_weight_grad()).then_some(last)
    }

    pub fn finisher(&self) -> Finisher {
        let params = match self.form {
            Form::Matrix => PRODUCT,
            Form::Convolution(ConvKind::WeightGrad) => WEIGHT,
            Form::Convolution(_) => PIXELS,
        };
        Finisher::new(self.epilogue, params, self.finish_vector())
    }

    /// `finish4(row, z, column, value)`: stores four columns of a row, or those of `padded` that exist.
    pub fn finish_function(&self, padded: usize, bindings: &mut Bindings) -> String {
        let function = self.finisher().write("finish", &[], bindings);
        let columns = self.columns;
        let index = |column: &str| match self.form {
            Form::Matrix => format!("z, row, {column}"),
            Form::Convolution(ConvKind::WeightGrad) => {
                format!("z * {columns} + {column}, c, tap / {kw}, tap % {kw}", kw = self.window[1])
            }
            Form::Convolution(_) => format!("p, z * {columns} + {column}"),
        };
        let rows = match self.form {
            Form::Matrix => String::new(),
            Form::Convolution(ConvKind::WeightGrad) => format!(
                "    let c = row % {per_tap};\n    let tap = row / {per_tap};\n    \
                 if c >= {} {{ return; }}\n",
                self.channels,
                per_tap = self.row_channels(),
            ),
            Form::Convolution(_) if self.y.out_stride == 1 && self.x.out_stride == 1 => {
                "    let p = row;\n".into()
            }
            Form::Convolution(_) => format!(
                "    let x = (row % {w}) * {} + {};\n    let y = ((row / {w}) % {h}) * {} + {};\n    \
                 let p = (row / {hw} * {} + y) * {} + x;\n",
                self.x.out_stride,
                self.x.out_offset,
                self.y.out_stride,
                self.y.out_offset,
                self.y.out_size,
                self.x.out_size,
                w = self.x.grid,
                h = self.y.grid,
                hw = self.y.grid * self.x.grid,
            ),
        };
        let store = if self.finish_vector().is_some() {
            let exists = if padded > columns { format!("if column < {columns} ") } else { String::new() };
            format!("    {exists}{{ finish({}, value); }}\n", index("column"))
        } else {
            let lane = |j: usize| {
                let at = index(&format!("column + {j}"));
                format!("    if column + {j} < {columns} {{ finish({at}, value[{j}]); }}\n")
            };
            (0..4).map(lane).collect()
        };
        format!(
            "{function}\nfn finish4(row: i32, z: i32, column: i32, value: vec4<f32>) {{\n{rows}{store}}}\n"
        )
    }
}

/// `NAME4(p, z, k)` from an image operand: the values `k..k + 4` of group `z` of `per_group`
/// channels for `k` below `padded`, zero past the group's end.
fn image_vectors(
    name: &str,
    operand: &Operand,
    per_group: usize,
    padded: usize,
    bindings: &mut Bindings,
) -> String {
    let function = image_loader(operand, per_group).write(name, bindings);
    function + &vectors(name, per_group, padded, |k| format!("{name}(p, z * {per_group} + {k})"))
}

/// The loader behind [`image_vectors`].
fn image_loader(operand: &Operand, per_group: usize) -> Loader {
    Loader::new(operand, PIXELS, per_group.is_multiple_of(4).then_some(1))
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
    format!("fn {name}4(p: i32, z: i32, k: i32) -> vec4<f32> {{\n    return {value};\n}}\n")
}

fn signed(value: i64) -> String {
    if value < 0 { format!("({value})") } else { value.to_string() }
}
