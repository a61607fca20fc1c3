//! A seeded source of choices, so that every random case can be repeated.

use autograd::Tensor;

/// SplitMix64 (Steele, Lea & Flood 2014).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.bits() >> 33) % n as u64) as usize
    }

    /// In `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Uniform in [-1, 1).
    pub fn signed(&mut self) -> f64 {
        (self.bits() >> 40) as f64 / f64::from(1 << 23) - 1.0
    }

    /// `count` values in [-2, 2).
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.signed() * 2.0) as f32).collect()
    }

    /// An order of `n` things.
    pub fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).for_each(|i| order.swap(i, self.below(i + 1)));
        order
    }

    /// A shape of `elements` elements in `rank` dims.
    pub fn factors(&mut self, elements: usize, rank: usize) -> Vec<usize> {
        let mut shape = vec![1; rank];
        let (mut rest, mut factor) = (elements, 2);
        while rest > 1 && rank > 0 {
            if rest.is_multiple_of(factor) {
                shape[self.below(rank)] *= factor;
                rest /= factor;
            } else {
                factor += 1;
            }
        }
        shape
    }

    /// A rearrangement of one tensor: every view of the language but concatenation. `limit` bounds the
    /// elements of the result.
    pub fn view(&mut self, x: &Tensor, limit: usize) -> Tensor {
        let rank = x.rank();
        if rank == 0 {
            let shape = [self.between(1, 3), self.between(1, 4)];
            return x.broadcast_to(&shape);
        }
        let axis = self.below(rank);
        let size = x.dim(axis);
        match self.below(8) {
            0 | 1 => {
                let new_rank = self.between(1, 5);
                x.reshape(&self.factors(x.len(), new_rank))
            }
            2 | 3 => x.permute(&self.order(rank)),
            4 => {
                let step = self.between(1, 3);
                let start = self.below(size);
                let most = (size - start).div_ceil(step);
                x.slice(axis, start, self.between(1, most), step)
            }
            5 if x.len() * (size + 4) / size <= limit => x.pad(axis, self.below(3), self.below(3)),
            6 => {
                let times = self.between(2, 4);
                let mut shape = x.shape().to_vec();
                match shape.iter().position(|&size| size == 1) {
                    Some(thin) => shape[thin] = times,
                    None => shape.insert(0, times),
                }
                if x.len() * times <= limit { x.broadcast_to(&shape) } else { x.clone() }
            }
            7 if rank >= 1 => {
                let groups: Vec<usize> =
                    (1..=x.dim(rank - 1)).filter(|&g| x.dim(rank - 1).is_multiple_of(g)).collect();
                x.channel_shuffle(self.pick(&groups))
            }
            _ => x.clone(),
        }
    }
}
