//! How much a kernel and a schedule compute and move.

use std::iter::Sum;
use std::ops::Add;

use crate::ir::{Body, Kernel, Schedule};

/// What a kernel does to memory and arithmetic, by the direct algorithm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Floating point operations, a multiply-add being two.
    pub flops: u64,
    /// Bytes read and written, each buffer counted once.
    pub bytes: u64,
}

impl Add for Work {
    type Output = Work;
    fn add(self, other: Work) -> Work {
        Work { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Work>>(works: I) -> Work {
        works.fold(Work::default(), Add::add)
    }
}

impl Schedule {
    /// The work of one kernel.
    pub fn work(&self, kernel: &Kernel) -> Work {
        let flops = match &kernel.body {
            Body::Map { parts } => {
                parts.iter().map(|p| count(&p.shape) * p.program.arithmetic() as u64).sum()
            }
            Body::Reduce { shape, program, accumulators, .. } => {
                count(shape) * (program.arithmetic() as u64 + accumulators.len() as u64)
            }
            Body::MatMul { batch, m, n, k, .. } => 2 * (batch * m * n * k) as u64,
            Body::Convolution { geometry, .. } => geometry.flops(),
            Body::AllReduce { .. } => 0,
            Body::Pool { geometry, .. } => {
                let g = geometry;
                let [kh, kw] = g.window.size;
                (g.batch * g.out_height * g.out_width * g.channels * kh * kw) as u64
            }
        };
        let bytes = kernel.buffers().iter().map(|&b| 4 * self.buffers[b].len() as u64).sum();
        Work { flops, bytes }
    }

    /// The total of [`Schedule::work`] over one call.
    pub fn total_work(&self) -> Work {
        self.kernels.iter().map(|k| self.work(k)).sum()
    }
}

fn count(shape: &[usize]) -> u64 {
    shape.iter().product::<usize>() as u64
}
