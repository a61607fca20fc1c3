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

use schedule::{ConvGeometry, ConvKind, Epilogue, Operand, ReduceKind, Reg};

use crate::bindings::Bindings;
use crate::operand::{Finisher, LEFT, Loader, PIXELS, PRODUCT, WEIGHT};
use crate::taps::{Phase, TapAxis, signed};

/// How the operands are indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Convolution(ConvKind),
    /// Left `[z, m, k]`, right `[z, k, n]`, result `[z, m, n]`.
    Matrix,
}

/// An implicit matrix product.
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

    /// The launches of a convolution or a gradient: several only for an input gradient whose phases are of unlike sizes.
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
        if kind != ConvKind::InputGrad {
            return vec![gemm(TapAxis::forward(g, 0), TapAxis::forward(g, 1))];
        }
        let (ys, xs) = (TapAxis::input_grad(g, 0), TapAxis::input_grad(g, 1));
        ys.iter().flat_map(|y| xs.iter().map(|x| gemm(y.clone(), x.clone()))).collect()
    }

    /// Whether the result is a weight's gradient.
    pub fn is_weight_grad(&self) -> bool {
        self.form == Form::Convolution(ConvKind::WeightGrad)
    }

    /// Products side by side: for each phase all of `z`.
    pub fn slices(&self) -> usize {
        self.z * self.y.phases.len() * self.x.phases.len()
    }

    /// Statements that tell `z` and the phases of the number `slice`.
    pub fn of_slice(&self) -> String {
        match (self.z, self.x.phases.len()) {
            (z, _) if self.slices() == z => "    let z = slice;\n".to_string(),
            (z, phases) => format!(
                "    let z = slice % {z};\n    \
                 let phase_y = slice / {};\n    \
                 let phase_x = slice / {z} % {phases};\n",
                z * phases
            ),
        }
    }

    /// What `f` tells of the phases that [`of_slice`](Gemm::of_slice) names, along y and x.
    pub fn of_phases(&self, f: impl Fn(&Phase) -> i64) -> [String; 2] {
        [self.y.of_phase("phase_y", &f), self.x.of_phase("phase_x", &f)]
    }

    /// Positions of the grid, for each phase.
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

    /// What the epilogue folds.
    pub fn folds(&self) -> Vec<ReduceKind> {
        self.epilogue.fold.iter().flat_map(|fold| &fold.accumulators).map(|(kind, _)| *kind).collect()
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
        let [offset_y, offset_x] = self.of_phases(|phase| phase.offset);
        let axis = |at: String, axis: &TapAxis, offset: String| {
            if axis.stride == 1 && offset == "0" { at } else { format!("{at} * {} + {offset}", axis.stride) }
        };
        // By numbers without a sign: dividing those is quicker.
        let is_same = |axis: &TapAxis| axis.stride == 1 && axis.grid == axis.size;
        let number = match (&y.phases[..], &x.phases[..]) {
            ([of_y], [of_x]) if is_same(y) && is_same(x) => {
                format!("p{q} + {}", signed(of_y.offset * x.size as i64 + of_x.offset))
            }
            _ => format!("(i32(u32(p{q}) / {pixels}u) * {} + y{q}) * {} + x{q}", y.size, x.size),
        };
        format!(
            "    let x{q} = {};\n    let y{q} = {};\n    let pixel{q} = {number};\n",
            axis(format!("i32(u32(p{q}) % {}u)", x.grid), x, offset_x),
            axis(format!("i32(u32(p{q}) / {}u % {}u)", x.grid, y.grid), y, offset_y),
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
        let [y, x] = self.of_phases(|phase| phase.first as i64);
        format!("(tap_y * {} + {y}) * {} + tap_x * {} + {x}", self.y.step, self.window[1], self.x.step)
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

    /// `finish4(row, slice, column, value)`: stores four columns of a row, or those of `padded` that exist. Where the
    /// epilogue folds, it returns the array of what is folded.
    pub fn finish_function(&self, padded: usize, bindings: &mut Bindings) -> String {
        let folded = self.epilogue.fold.iter().flat_map(|fold| &fold.accumulators);
        let folded: Vec<Reg> = folded.map(|&(_, value)| value).collect();
        let function = self.finisher().write("finish", &folded, bindings);
        let columns = self.columns;
        let index = |column: &str| match self.form {
            Form::Matrix => format!("z, row, {column}"),
            Form::Convolution(ConvKind::WeightGrad) => {
                format!("z * {columns} + {column}, c, tap / {kw}, tap % {kw}", kw = self.window[1])
            }
            Form::Convolution(_) => format!("p, z * {columns} + {column}"),
        };
        let [offset_y, offset_x] = self.of_phases(|phase| phase.out_offset as i64);
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
                "    let x = (row % {w}) * {} + {offset_x};\n    \
                 let y = ((row / {w}) % {h}) * {} + {offset_y};\n    \
                 let p = (row / {hw} * {} + y) * {} + x;\n",
                self.x.out_stride,
                self.y.out_stride,
                self.y.out_size,
                self.x.out_size,
                w = self.x.grid,
                h = self.y.grid,
                hw = self.y.grid * self.x.grid,
            ),
        };
        let result = match folded.len() {
            0 => String::new(),
            count => format!(" -> array<vec4<f32>, {count}>"),
        };
        let store = if self.finish_vector().is_some() {
            let call = format!("finish({}, value);", index("column"));
            match (folded.is_empty(), padded > columns) {
                (true, false) => format!("    {call}\n"),
                (true, true) => format!("    if column < {columns} {{ {call} }}\n"),
                (false, false) => format!("    return {call}\n"),
                (false, true) => {
                    let none = format!("array<vec4<f32>, {}>()", folded.len());
                    format!("    if column >= {columns} {{ return {none}; }}\n    return {call}\n")
                }
            }
        } else {
            let lane = |j: usize| {
                let at = index(&format!("column + {j}"));
                format!("    if column + {j} < {columns} {{ finish({at}, value[{j}]); }}\n")
            };
            (0..4).map(lane).collect()
        };
        format!(
            "{function}\nfn finish4(row: i32, slice: i32, column: i32, value: vec4<f32>){result} {{\n\
             {}{rows}{store}}}\n",
            self.of_slice()
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
