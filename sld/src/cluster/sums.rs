//! Sums of what several processes give, in the order of their ranks.

/// A kind of number that is summed: how it travels, and what it is summed in.
pub trait Number {
    type Wire: Copy + Default;
    type Sum: Copy + Default + std::ops::AddAssign;
    fn widen(wire: Self::Wire) -> Self::Sum;
    fn narrow(sum: Self::Sum) -> Self::Wire;
}

macro_rules! plain_number {
    ($type:ty) => {
        impl Number for $type {
            type Wire = $type;
            type Sum = $type;
            fn widen(wire: $type) -> $type {
                wire
            }
            fn narrow(sum: $type) -> $type {
                sum
            }
        }
    };
}
plain_number!(f32);
plain_number!(f64);

/// The upper half of an `f32`, to the nearest (ties to even), summed in `f32`.
pub struct Bf16;

impl Number for Bf16 {
    type Wire = u16;
    type Sum = f32;
    fn widen(wire: u16) -> f32 {
        f32::from_bits(u32::from(wire) << 16)
    }
    fn narrow(sum: f32) -> u16 {
        let bits = sum.to_bits();
        // A NaN must not be rounded to infinity.
        if sum.is_nan() {
            return (bits >> 16) as u16 | 0x40;
        }
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
    }
}

/// The sums, element by element, of `size` vectors that lie one after the other.
pub fn in_order<N: Number>(vectors: &[N::Wire], size: usize) -> Vec<N::Wire> {
    let len = vectors.len() / size.max(1);
    let mut sums = vec![N::Sum::default(); len];
    for vector in vectors.chunks_exact(len.max(1)) {
        sums.iter_mut().zip(vector).for_each(|(sum, &wire)| *sum += N::widen(wire));
    }
    sums.into_iter().map(N::narrow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_halves_are_the_nearest() {
        for (value, nearest) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (-3.0e38, -3.0040553e38),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
        ] {
            assert_eq!(Bf16::widen(Bf16::narrow(value)), nearest, "{value}");
        }
        assert!(Bf16::widen(Bf16::narrow(f32::from_bits(0x7f80_0001))).is_nan());
    }

    #[test]
    fn vectors_are_summed_element_by_element() {
        assert_eq!(in_order::<f32>(&[1.0, 2.0, 10.0, 20.0, 100.0, 200.0], 3), [111.0, 222.0]);
        let halves = in_order::<Bf16>(&[Bf16::narrow(1.0), Bf16::narrow(0.5)], 2);
        assert_eq!(Bf16::widen(halves[0]), 1.5);
    }
}
