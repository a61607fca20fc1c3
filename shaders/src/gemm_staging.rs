//! How the operands of an implicit matrix product come into workgroup memory.
//!
//! An operand is shared out among the threads in pieces: of a *line* (a row of the left one, a column of the right one)
//! a few values of k side by side, or of one value of k a few lines. Matrix units want values of k side by side; where
//! lines are what lies side by side in memory, a thread loads four values of k of four lines, and turns them.

use std::fmt::Write;

use crate::element::Element;
use crate::emit::{quotient, remainder};
use crate::gemm::Gemm;
use crate::gemm_plan::Plan;
use crate::tile::Core;
use crate::tile_text::{Side, TileText};

/// The statements that bring operands into workgroup memory.
pub struct Staging<'a> {
    gemm: &'a Gemm<'a>,
    plan: &'a Plan,
    text: TileText,
    left: Left,
    /// Before the loops.
    pub once: String,
    /// For every tap.
    pub tap: String,
    /// For every step along k: loads, then, between barriers, stores to workgroup memory.
    pub load: String,
    pub stage: String,
}

/// What the function `lhs4` returns.
#[derive(Clone, Copy)]
pub struct Left {
    /// Its type, of which what is staged is made.
    pub element: Element,
    /// Whether the left operand is stored as it is staged. Its loads then are in branches, which cost a driver less than
    /// selects of what is loaded; whatever is computed of a load would be waited for in the branch.
    pub is_stored: bool,
}

/// The pieces of an operand. Neighbouring threads take those beside each other; a thread takes every piece whose number
/// is its own after as many as there are threads.
struct Pieces {
    side: Side,
    beside: usize,
    count: usize,
}

impl Pieces {
    /// Rounds in which so many threads take them all.
    fn rounds(&self, threads: usize) -> std::ops::Range<usize> {
        0..self.count.div_ceil(threads)
    }
}

impl<'a> Staging<'a> {
    /// Of both operands; the right one is packed in the binding `packed`, or an image.
    pub fn new(gemm: &'a Gemm<'a>, plan: &'a Plan, left: Left, packed: Option<&str>) -> Staging<'a> {
        let [once, tap, load, stage] = Default::default();
        let mut staging = Staging { gemm, plan, text: plan.text(gemm), left, once, tap, load, stage };
        match packed {
            Some(packed) => {
                staging.pixels();
                staging.packed(packed);
            }
            None => {
                staging.images(Side::Left);
                staging.images(Side::Right);
            }
        }
        staging
    }

    fn is_matrices(&self) -> bool {
        matches!(self.plan.tile.core, Core::Matrices { .. })
    }

    /// Vectors along k in a piece: for matrices 16 bytes are loaded and stored at once.
    fn wide(&self) -> usize {
        if self.is_matrices() { 2 } else { 1 }
    }

    /// The channels of pixels, or the k of rows: the left operand, but of a weight's gradient.
    fn pixels(&mut self) {
        let Plan { tile, .. } = *self.plan;
        let beside = tile.k / 4 / self.wide();
        let pieces = Pieces { side: Side::Left, beside, count: tile.rows * beside };
        for i in pieces.rounds(tile.threads()) {
            self.place(&pieces, i);
            let _ = writeln!(self.once, "    let p{i} = first + left_down{i};");
            let position = i.to_string();
            self.once += &self.gemm.pixel(&position);
            if self.gemm.taps_along_k {
                self.taps(&pieces, i);
                continue;
            }
            let end = [(&format!("p{i}")[..], self.gemm.positions())];
            let beyond = if self.plan.has_part_tiles() { &end[..] } else { &[] };
            self.tap += &self.gemm.moved_pixel([&position; 2], ["tap_y", "tap_x"], beyond);
            let inside = format!("inside{i}");
            self.along_k(&pieces, i, Some(&inside), |quad| format!("lhs4(moved{i}, z, base + {quad})"));
        }
    }

    /// Piece `i` of pixels where each vector along k is a tap.
    fn taps(&mut self, pieces: &Pieces, i: usize) {
        let (gemm, wide) = (self.gemm, self.wide());
        for w in 0..wide {
            let (of, tap) = (format!("{i}_{w}"), format!("tap{i}_{w}"));
            let _ = writeln!(self.load, "    let {tap} = base + left_across{i} * {wide} + {w};");
            let [y, x] = [quotient(&tap, gemm.window[1]), remainder(&tap, gemm.window[1])];
            let ends = [(&format!("p{i}")[..], gemm.positions()), (&tap, gemm.taps())];
            self.load += &gemm.moved_pixel([&i.to_string(), &of], [&y, &x], &ends);
            let (value, inside) = (format!("lhs4(moved{of}, z, 0)"), format!("inside{of}"));
            self.load(&format!("left{of}"), &value, Some(&inside));
            let line = format!("left_down{i}");
            let quad = format!("(left_across{i} * {wide} + {w})");
            let staged = self.text.stage_along_k(pieces.side, &line, &quad, &format!("left{of}"));
            self.stage(pieces, i, &staged);
        }
    }

    /// The right operand as it is packed: for matrices `[z][tap][column][k]`, for threads `[z][tap][k][column]`.
    fn packed(&mut self, packed: &str) {
        let Plan { tile, columns, depth, .. } = *self.plan;
        let tap = format!("z * {} + {}", self.gemm.packed_taps(), self.gemm.tap_number());
        let beside = if self.is_matrices() { tile.k / 4 / self.wide() } else { tile.columns / 4 };
        let pieces = Pieces { side: Side::Right, beside, count: tile.columns * tile.k / 4 / self.wide() };
        for i in pieces.rounds(tile.threads()) {
            self.place(&pieces, i);
            if self.is_matrices() {
                let column = format!("block * {} + right_down{i}", tile.columns);
                let _ =
                    writeln!(self.tap, "    let from{i} = (({tap}) * {columns} + {column}) * {};", depth / 4);
                self.along_k(&pieces, i, None, |quad| format!("{packed}[from{i} + base + {quad}]"));
            } else {
                let column = format!("block * {} + right_across{i}", tile.columns / 4);
                let _ = writeln!(
                    self.tap,
                    "    let from{i} = (({tap}) * {depth} + right_down{i}) * {} + {column};",
                    columns / 4
                );
                let value = format!("{packed}[from{i} + base * {columns}]");
                self.load(&format!("right{i}"), &value, None);
                let (k, quad) = (format!("right_down{i}"), format!("right_across{i}"));
                let staged = self.text.stage_along_lines(pieces.side, &k, &quad, &format!("right{i}"));
                self.stage(&pieces, i, &staged);
            }
        }
    }

    /// An operand of a weight's gradient: its k are pixels, and its lines channels, of the left one for every tap.
    fn images(&mut self, side: Side) {
        let Plan { tile, .. } = *self.plan;
        let lines = self.text.lines(side);
        let (pieces, at_once) = match self.is_matrices() {
            true => (Pieces { side, beside: tile.k / 4, count: lines / 4 * (tile.k / 4) }, 4),
            false => (Pieces { side, beside: lines / 4, count: lines / 4 * tile.k }, 1),
        };
        for i in pieces.rounds(tile.threads()) {
            self.place(&pieces, i);
            let name = side.name();
            let (across, down) = (format!("{name}_across{i}"), format!("{name}_down{i}"));
            let (k, quad) = if self.is_matrices() { (across, down) } else { (down, across) };
            if side == Side::Left {
                self.once += &self.gemm.row(i, &quad);
            }
            for e in 0..at_once {
                let position = format!("base + {k} * {at_once} + {e}");
                let vector = format!("{name}{i}_{e}");
                match side {
                    Side::Left => self.left_pixel(i, e, &position, &vector),
                    Side::Right => self.right_pixel(&position, &quad, &vector),
                }
            }
            let staged = if self.is_matrices() {
                let loaded: Vec<_> = (0..at_once).map(|e| format!("{name}{i}_{e}")).collect();
                let of = |c: usize| {
                    let line = format!("({quad} * 4 + {c})");
                    self.text.stage_along_k(side, &line, &k, &self.text.turned(&loaded, c))
                };
                (0..4).map(of).collect()
            } else {
                self.text.stage_along_lines(side, &k, &quad, &format!("{name}{i}_0"))
            };
            self.stage(&pieces, i, &staged);
        }
    }

    /// Loads the channels of piece `i` of the left operand's pixel at a position, number `e` of neighbours.
    fn left_pixel(&mut self, i: usize, e: usize, position: &str, vector: &str) {
        let (gemm, pixel) = (self.gemm, format!("{i}_{e}"));
        let _ = writeln!(self.load, "    let p{pixel} = {position};");
        self.load += &match e > 0 && gemm.x.grid.is_multiple_of(4) {
            true => gemm.next_pixel(&format!("{i}_0"), &pixel, e),
            false => gemm.pixel(&pixel),
        };
        let end = [(&format!("p{pixel}")[..], gemm.positions())];
        let beyond = if gemm.positions() < self.plan.depth { &end[..] } else { &[] };
        let tap = [format!("tap_y{i}"), format!("tap_x{i}")];
        self.load += &gemm.moved_pixel([&pixel; 2], [&tap[0], &tap[1]], beyond);
        let (value, inside) = (format!("lhs4(moved{pixel}, z, c{i})"), format!("inside{pixel}"));
        match self.left.is_stored {
            true => self.load_in_branch(&[[vector, &value]], &inside),
            false => self.load(vector, &value, Some(&inside)),
        }
    }

    /// Loads four channels of the gradient at a position.
    fn right_pixel(&mut self, position: &str, quad: &str, vector: &str) {
        let (positions, columns) = (self.gemm.positions(), self.plan.tile.columns / 4);
        let position = match positions < self.plan.depth {
            true => format!("min({position}, {})", positions - 1),
            false => position.to_string(),
        };
        self.load(vector, &format!("rhs4({position}, z, block * {columns} + {quad})"), None);
    }

    /// Loads and stages piece `i` of lines whose values of k lie side by side, from the vectors that `value` gives by their
    /// number.
    fn along_k(&mut self, pieces: &Pieces, i: usize, inside: Option<&str>, value: impl Fn(&str) -> String) {
        let (name, wide) = (pieces.side.name(), self.wide());
        let vectors: Vec<[String; 2]> = (0..wide)
            .map(|w| [format!("{name}{i}_{w}"), format!("{name}_across{i} * {wide} + {w}")])
            .collect();
        let values: Vec<String> = vectors.iter().map(|[_, quad]| value(quad)).collect();
        let loads: Vec<[&str; 2]> =
            vectors.iter().zip(&values).map(|([vector, _], value)| [&vector[..], value]).collect();
        match inside.filter(|_| self.left.is_stored) {
            Some(inside) => self.load_in_branch(&loads, inside),
            None => loads.iter().for_each(|[vector, value]| self.load(vector, value, inside)),
        }
        let stage = |[vector, quad]: &[String; 2]| {
            let line = format!("{name}_down{i}");
            self.text.stage_along_k(pieces.side, &line, &format!("({quad})"), vector)
        };
        let staged: String = vectors.iter().map(stage).collect();
        self.stage(pieces, i, &staged);
    }

    /// Declares the place of piece `i` of every thread: number `NAME_across{i}` of those beside each other, and
    /// `NAME_down{i}`. Threads past the end repeat the last piece.
    fn place(&mut self, pieces: &Pieces, i: usize) {
        let (name, threads) = (pieces.side.name(), self.plan.tile.threads());
        let first = i * threads;
        let is_whole = first + threads <= pieces.count;
        let (across, down) = if i > 0 && is_whole && threads.is_multiple_of(pieces.beside) {
            (format!("{name}_across0"), format!("{name}_down0 + {}", first / pieces.beside))
        } else {
            let at = match is_whole {
                true => format!("thread + {first}"),
                false => format!("min(thread + {first}, {})", pieces.count - 1),
            };
            (remainder(&at, pieces.beside), quotient(&at, pieces.beside))
        };
        let _ = writeln!(self.once, "    let {name}_across{i} = {across};\n    let {name}_down{i} = {down};");
    }

    /// Loads a vector, of the left operand zero where `inside` is not so. Where threads load ahead they look at it only
    /// when they stage it: before that they would wait for it.
    fn load(&mut self, name: &str, value: &str, inside: Option<&str>) {
        let element = self.plan.tile.element();
        let made = |value: &str| match inside {
            Some(inside) if self.left.element != element => {
                element.narrowed(&self.left.element.only_if(inside, value), true)
            }
            Some(inside) => element.only_if(inside, value),
            None => value.to_string(),
        };
        if self.plan.tile.ahead {
            let _ = writeln!(self.load, "    let next_{name} = {value};");
            let _ = writeln!(self.stage, "    let {name} = {};", made(&format!("next_{name}")));
        } else {
            let _ = writeln!(self.load, "    let {name} = {};", made(value));
        }
    }

    /// Loads vectors of the left operand, zero where `inside` is not so.
    fn load_in_branch(&mut self, vectors: &[[&str; 2]], inside: &str) {
        let zero = format!("{}()", self.left.element.wgsl(true));
        for [vector, _] in vectors {
            let _ = writeln!(self.load, "    var {vector} = {zero};");
        }
        let loads: String =
            vectors.iter().map(|[vector, value]| format!("        {vector} = {value};\n")).collect();
        let _ = write!(self.load, "    if {inside} {{\n{loads}    }}\n");
    }

    /// Statements that stage piece `i`, which some threads have not in the last round.
    fn stage(&mut self, pieces: &Pieces, i: usize, statements: &str) {
        let first = i * self.plan.tile.threads();
        self.stage += &match first + self.plan.tile.threads() > pieces.count {
            true => format!("    if thread + {first} < {} {{\n{statements}    }}\n", pieces.count),
            false => statements.to_string(),
        };
    }
}
