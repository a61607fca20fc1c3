//! For tests: random programs, and buffers for them.

use autograd::tensor::{BinaryOp, UnaryOp};
use schedule::{Bound, Instr, Program, View};

use crate::memory::{Floats, Memory};

/// A small generator (Knuth's MMIX multiplier), so that every failure can be repeated.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1)
    }
    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
    /// In [-2, 2), now and then 0.
    pub fn value(&mut self) -> f32 {
        if self.chance(16) { 0.0 } else { self.below(1 << 20) as f32 / (1 << 18) as f32 - 2.0 }
    }
    pub fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }
}

/// Buffers with the table that kernels want.
pub struct Buffers(pub Vec<Floats>);

impl Buffers {
    pub fn new(contents: &[Vec<f32>]) -> Buffers {
        Buffers(contents.iter().map(|values| Floats::from_slice(values)).collect())
    }
    pub fn memory(&mut self) -> Memory {
        Memory {
            lens: self.0.iter().map(|floats| floats.len()).collect(),
            bases: self.0.iter_mut().map(|floats| floats.as_mut_ptr()).collect(),
        }
    }
}

/// A random view of a new buffer: the view, and elements that it reaches at most.
pub fn random_view(dice: &mut Dice, shape: &[usize]) -> (View, usize) {
    let mut view = View::dense(shape);
    match dice.below(6) {
        0 | 1 => {}
        // A broadcast of some dims.
        2 => {
            view.strides =
                shape.iter().map(|_| 0).zip(&view.strides).map(|(zero, &s)| dice.pick(&[zero, s])).collect()
        }
        // Only the last dim, or all but it.
        3 => {
            let last = shape.len().saturating_sub(1);
            let keep_last = dice.chance(2);
            view.strides =
                (0..shape.len()).map(|d| ((d == last) == keep_last) as i64 * (1 + d as i64)).collect();
        }
        // Transposed.
        4 => {
            let reversed: Vec<usize> = shape.iter().rev().copied().collect();
            view.strides = View::dense(&reversed).strides.into_iter().rev().collect();
        }
        _ => view.strides = shape.iter().map(|_| dice.below(7) as i64 - 3).collect(),
    }
    let lowest = |strides: &[i64]| -> i64 {
        strides.iter().zip(shape).map(|(&s, &n)| (s * (n as i64 - 1)).min(0)).sum()
    };
    let highest = |strides: &[i64]| -> i64 {
        strides.iter().zip(shape).map(|(&s, &n)| (s * (n as i64 - 1)).max(0)).sum()
    };
    view.offset = -lowest(&view.strides) + dice.below(3) as i64;
    let len = view.offset + highest(&view.strides) + 1;
    while dice.chance(3) && view.bounds.len() < 3 {
        let strides: Vec<i64> = shape.iter().map(|_| dice.pick(&[0, 0, 1, 2, -1, -3])).collect();
        let spread = highest(&strides) - lowest(&strides) + 1;
        let extent = 1 + dice.below(spread as usize + 2) as i64;
        let offset = -lowest(&strides) - dice.below(spread as usize) as i64;
        view.bounds.push(Bound { offset, strides, extent });
    }
    (view, len as usize)
}

/// Whether two results agree up to the rounding of transcendental functions.
pub fn close(a: f32, b: f32, tolerance: f32) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1e-6)
}

/// A random shape of up to `rank` dims, of at most `most` elements.
pub fn random_shape(dice: &mut Dice, rank: usize, most: usize) -> Vec<usize> {
    loop {
        let shape: Vec<usize> =
            (0..dice.below(rank + 1)).map(|_| dice.pick(&[1, 2, 3, 5, 8, 16, 31, 64, 300, 1100])).collect();
        if shape.iter().product::<usize>() <= most {
            return shape;
        }
    }
}

/// A random program over `shape`, and the buffers it loads (numbered from `buffers.len()` on).
pub fn random_program(dice: &mut Dice, shape: &[usize], buffers: &mut Vec<Vec<f32>>) -> Program {
    let mut instrs: Vec<Instr> = Vec::new();
    for _ in 0..1 + dice.below(4) {
        let (view, len) = random_view(dice, shape);
        instrs.push(match dice.below(8) {
            0 => Instr::Index(View { bounds: vec![], ..view }),
            1 => Instr::InBounds(view),
            _ => {
                buffers.push(dice.values(len));
                Instr::Load { buffer: buffers.len() - 1, view }
            }
        });
    }
    instrs.push(Instr::Constant(dice.value()));
    for _ in 0..dice.below(12) {
        let count = instrs.len();
        let mut any = || dice.below(count);
        let (a, b, c) = (any(), any(), any());
        let instr = match dice.below(8) {
            0 => Instr::Unary(dice.pick(&UnaryOp::ALL), a),
            1 => Instr::Unary(UnaryOp::Relu, a),
            2 => Instr::Select { condition: a, yes: b, no: c },
            3 => Instr::Binary(dice.pick(&BinaryOp::ALL), a, b),
            4 if dice.chance(3) => {
                let seed = instrs.len();
                instrs.push(Instr::Constant(dice.below(1000) as f32));
                Instr::Random { stream: 3, index: View::dense(shape), seed, step: seed }
            }
            _ => Instr::Binary(dice.pick(&[BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul]), a, count - 1),
        };
        instrs.push(instr);
    }
    Program { instrs }
}
