//! Implicit matrix products: what convolutions, their gradients and matrix products have in common.
//!
//! `result[z, row, column] = sum over k of left[z, row, k] * right[z, k, column]`. A convolution's `z` is its
//! group. It goes over the positions of a grid of pixels, and an element of the window, a *tap*, moves a
//! position to the pixel of the left image that meets it there:
//!
//! | form | rows | columns | k |
//! |---|---|---|---|
//! | forward, input gradient | positions of the result | its channels | for every tap the left image's channels |
//! | forward, up to 4 channels, matrix units | the same | the same | all taps, each with a vector of channels |
//! | weight gradient | taps, and for each the input's channels | the gradient's channels | positions of the gradient |
//! | matrix product | m | n | k |
//!
//! [`gemm_kernel`](crate::gemm_kernel) computes all of them.

use schedule::{Body, ConvGeometry, ConvKind, Epilogue, Operand, ReduceKind, Reg};

use crate::bindings::Bindings;
use crate::emit::{all_of, quotient, remainder, signed};
use crate::operand::{Finisher, LEFT, Loader, PIXELS, PRODUCT, Rounding, WEIGHT};
use crate::taps::{Phase, TapAxis};
use crate::target::Operands;

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
    /// Whether taps lie along `k`: for matrix units, whose steps for each tap would be mostly padding.
    pub taps_along_k: bool,
}

impl<'a> Gemm<'a> {
    /// The launches that compute a kernel's products: none where it has none, or nothing comes of them.
    pub fn of(body: &'a Body, operands: Operands) -> Vec<Gemm<'a>> {
        let is_something = |epilogue: &Epilogue| {
            epilogue.shape.iter().all(|&size| size > 0)
                && (epilogue.fold.is_some() || !epilogue.stores.is_empty())
        };
        match body {
            Body::MatMul { batch, m, n, k, lhs, rhs, epilogue } if is_something(epilogue) => {
                vec![Gemm::matrix([*batch, *m, *n, *k], lhs, rhs, epilogue)]
            }
            Body::Convolution { kind, geometry, lhs, rhs, epilogue } if is_something(epilogue) => {
                Gemm::convolution(*kind, geometry, lhs, rhs, epilogue, operands)
            }
            _ => Vec::new(),
        }
    }

    fn matrix(
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
            taps_along_k: false,
        }
    }

    /// Of a convolution or a gradient: several only for an input gradient whose phases are of unlike sizes.
    fn convolution(
        kind: ConvKind,
        g: &ConvGeometry,
        lhs: &'a Operand,
        rhs: &'a Operand,
        epilogue: &'a Epilogue,
        operands: Operands,
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
            taps_along_k: operands.are_matrices()
                && kind == ConvKind::Forward
                && group_in <= 4
                && g.kernel != [1, 1],
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

    /// Values of `k`, for each tap that is walked.
    pub fn depth(&self) -> usize {
        match self.form {
            Form::Convolution(ConvKind::WeightGrad) => self.positions(),
            _ if self.taps_along_k => 4 * self.taps(),
            _ => self.channels,
        }
    }

    /// Whether the sum goes over taps beside `k`.
    pub fn walks_taps(&self) -> bool {
        !self.is_weight_grad() && !self.taps_along_k
    }

    /// Taps that a packed right operand has values of `k` for.
    pub fn packed_taps(&self) -> usize {
        if self.taps_along_k { 1 } else { self.taps() }
    }

    /// Most taps that a sum walks.
    pub fn most_taps(&self) -> usize {
        if self.walks_taps() { self.y.most_taps() * self.x.most_taps() } else { 1 }
    }

    /// Elements of the window.
    pub fn taps(&self) -> usize {
        self.window[0] * self.window[1]
    }

    /// Which operand, left and right, is a gradient.
    pub fn gradients(&self) -> [bool; 2] {
        match self.form {
            Form::Convolution(kind) => kind.gradients(),
            Form::Matrix => [false, false],
        }
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

    /// `lhs4(p, z, quad)`: four neighbouring channels of pixel `p`, or of a row, for `quad` up to `padded` channels, zero
    /// past the operand's end.
    pub fn left_function(&self, padded: usize, rounding: Rounding, bindings: &mut Bindings) -> String {
        let function = self.left_loader().write("lhs", rounding, bindings);
        let call = |k: &str, of_group: &str| match self.form {
            Form::Convolution(_) => format!("lhs(p, z * {of_group} + {k})"),
            Form::Matrix => format!("lhs(z, p, {k})"),
        };
        function + &vectors("lhs", [self.channels, padded], rounding, call)
    }

    /// `rhs4(p, z, quad)`: the same of the gradient that a weight gradient reads.
    pub fn right_function(&self, padded: usize, rounding: Rounding, bindings: &mut Bindings) -> String {
        let function = image_loader(self.rhs, self.columns).write("rhs", rounding, bindings);
        let call = |k: &str, of_group: &str| format!("rhs(p, z * {of_group} + {k})");
        function + &vectors("rhs", [self.columns, padded], rounding, call)
    }

    /// Statements for rows of a weight gradient that lie side by side, vector `quad` of the tile: channels `c{i}` of the
    /// left operand, also a vector, at tap `(tap_y{i}, tap_x{i})`. Rows past the end repeat the last.
    pub fn row(&self, i: usize, quad: &str) -> String {
        let (of_tap, kw) = (self.row_channels() / 4, self.window[1]);
        format!(
            "    let row{i} = min({} + {quad}, {});\n    \
             let c{i} = {};\n    \
             let tap_y{i} = {};\n    \
             let tap_x{i} = {};\n",
            quotient("first", 4),
            self.rows() / 4 - 1,
            remainder(&format!("row{i}"), of_tap),
            quotient(&format!("row{i}"), of_tap * kw),
            remainder(&quotient(&format!("row{i}"), of_tap), kw),
        )
    }

    /// Statements that give position `p{q}` (already declared) its pixel in the left operand before a tap
    /// moves it: row `y{q}` and column `x{q}`, and its number `pixel{q}`.
    pub fn pixel(&self, q: &str) -> String {
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
            _ => {
                format!("({} * {} + y{q}) * {} + x{q}", quotient(&format!("p{q}"), pixels), y.size, x.size)
            }
        };
        format!(
            "    let x{q} = {};\n    let y{q} = {};\n    let pixel{q} = {number};\n",
            axis(remainder(&format!("p{q}"), x.grid), x, offset_x),
            axis(remainder(&quotient(&format!("p{q}"), x.grid), y.grid), y, offset_y),
        )
    }

    /// The same for a position that is `by` after position `of`, in the same row of the grid.
    pub fn next_pixel(&self, of: &str, q: &str, by: usize) -> String {
        let by = by as i64 * self.x.stride;
        format!("    let x{q} = x{of} + {by};\n    let y{q} = y{of};\n    let pixel{q} = pixel{of} + {by};\n")
    }

    /// Statements for position `of` at tap `(tap_y, tap_x)`: whether it is `inside{q}` the left operand, and the number
    /// `moved{q}` of its pixel there, or of a safe one: where it is inside, and so are others that may be beyond an end,
    /// each with its bound.
    pub fn moved_pixel(
        &self,
        [of, q]: [&str; 2],
        [tap_y, tap_x]: [&str; 2],
        others: &[(&str, usize)],
    ) -> String {
        let mut conditions: Vec<_> = others.iter().map(|(name, end)| format!("{name} < {end}")).collect();
        for (name, axis, tap) in [("y", &self.y, tap_y), ("x", &self.x, tap_x)] {
            if !axis.stays_inside() {
                let by = signed(axis.move_by);
                conditions.push(format!("u32({name}{of} + ({tap}) * {by}) < {}u", axis.size));
            }
        }
        let inside = if conditions.is_empty() { "true".to_string() } else { all_of(&conditions) };
        format!(
            "    let inside{q} = {inside};\n    \
             let moved{q} = select(0, pixel{of} + ({tap_y}) * {} + ({tap_x}) * {}, inside{q});\n",
            signed(self.y.move_by * self.x.size as i64),
            signed(self.x.move_by),
        )
    }

    /// The WGSL of a tap's number in the window.
    pub fn tap_number(&self) -> String {
        let [y, x] = self.of_phases(|phase| phase.first as i64);
        format!("(tap_y * {} + {y}) * {} + tap_x * {} + {x}", self.y.step, self.window[1], self.x.step)
    }

    /// Whether the left operand is stored as its function returns it.
    pub fn left_is_stored(&self, padded: usize, rounding: Rounding, bindings: &mut Bindings) -> bool {
        padded <= self.channels && self.left_loader().stored(rounding, bindings).is_some()
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

    /// `finish4(row, slice, quad, value)`: stores four columns of a row, or those of `padded` that exist. Where the
    /// epilogue folds, it returns the array of what is folded.
    pub fn finish_function(&self, padded: usize, bindings: &mut Bindings) -> String {
        let folded = self.epilogue.fold.iter().flat_map(|fold| &fold.accumulators);
        let folded: Vec<Reg> = folded.map(|&(_, value)| value).collect();
        let function = self.finisher().write("finish", &folded, bindings);
        let columns = self.columns;
        // With the columns of all of z: single ones or vectors.
        let index = |column: &str, columns: usize| match self.form {
            Form::Matrix => format!("z, row, {column}"),
            Form::Convolution(ConvKind::WeightGrad) => {
                let kw = self.window[1];
                format!("z * {columns} + {column}, c, {}, {}", quotient("tap", kw), remainder("tap", kw))
            }
            Form::Convolution(_) => format!("p, z * {columns} + {column}"),
        };
        let [offset_y, offset_x] = self.of_phases(|phase| phase.out_offset as i64);
        let rows = match self.form {
            Form::Matrix => String::new(),
            Form::Convolution(ConvKind::WeightGrad) => format!(
                "    let c = {};\n    let tap = {};\n    if c >= {} {{ return; }}\n",
                remainder("row", self.row_channels()),
                quotient("row", self.row_channels()),
                self.channels,
            ),
            Form::Convolution(_) if self.y.out_stride == 1 && self.x.out_stride == 1 => {
                "    let p = row;\n".into()
            }
            Form::Convolution(_) => format!(
                "    let x = {} * {} + {offset_x};\n    \
                 let y = {} * {} + {offset_y};\n    \
                 let p = ({} * {} + y) * {} + x;\n",
                remainder("row", self.x.grid),
                self.x.out_stride,
                remainder(&quotient("row", self.x.grid), self.y.grid),
                self.y.out_stride,
                quotient("row", self.y.grid * self.x.grid),
                self.y.out_size,
                self.x.out_size,
            ),
        };
        let result = match folded.len() {
            0 => String::new(),
            count => format!(" -> array<vec4<f32>, {count}>"),
        };
        let store = if self.finish_vector().is_some() {
            let call = format!("finish({}, value);", index("quad", columns / 4));
            match (folded.is_empty(), padded > columns) {
                (true, false) => format!("    {call}\n"),
                (true, true) => format!("    if quad < {} {{ {call} }}\n", columns / 4),
                (false, false) => format!("    return {call}\n"),
                (false, true) => {
                    let none = format!("array<vec4<f32>, {}>()", folded.len());
                    format!("    if quad >= {} {{ return {none}; }}\n    return {call}\n", columns / 4)
                }
            }
        } else {
            let lane = |j: usize| {
                let at = index(&format!("quad * 4 + {j}"), columns);
                format!("    if quad * 4 + {j} < {columns} {{ finish({at}, value[{j}]); }}\n")
            };
            (0..4).map(lane).collect()
        };
        format!(
            "{function}\nfn finish4(row: i32, slice: i32, quad: i32, value: vec4<f32>){result} {{\n\
             {}{rows}{store}}}\n",
            self.of_slice()
        )
    }
}

/// Of an image, whose channels are taken in fours where those of a group are fours.
fn image_loader(operand: &Operand, per_group: usize) -> Loader {
    Loader::new(operand, PIXELS, per_group.is_multiple_of(4).then_some(1))
}

/// `NAME4(p, z, quad)`: a vector of `len` values, zero for those from there to `padded`. `call` gives a value, or four
/// where `len` is fours, by its number and by how many a group has. The index is kept inside as well as the value:
/// nothing past the end may be read.
fn vectors(
    name: &str,
    [len, padded]: [usize; 2],
    rounding: Rounding,
    call: impl Fn(&str, &str) -> String,
) -> String {
    let element = rounding.element;
    let value = if !len.is_multiple_of(4) {
        let lane = |j: usize| {
            let (k, last) = (format!("quad * 4 + {j}"), len as i64 - 1);
            let inside = call(&format!("min({k}, {last})"), &len.to_string());
            format!("select({}(), {inside}, {k} < {len})", element.scalar().wgsl(false))
        };
        let lanes =
            format!("{}({}, {}, {}, {})", element.scalar().wgsl(true), lane(0), lane(1), lane(2), lane(3));
        element.narrowed(&lanes, true)
    } else {
        let quads = len / 4;
        let call = |quad: &str| call(quad, &quads.to_string());
        match padded > len {
            true => {
                let inside = call(&format!("min(quad, {})", quads - 1));
                element.only_if(&format!("quad < {quads}"), &inside)
            }
            false => call("quad"),
        }
    };
    format!("fn {name}4(p: i32, z: i32, quad: i32) -> {} {{\n    return {value};\n}}\n", element.wgsl(true))
}
