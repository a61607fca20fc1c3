//! Index arithmetic: where an element of a node is, as a function of a kernel's iteration index.
//!
//! An [`Index`] holds one affine expression for each dim of a node. Rearrangements compose with it:
//! permute, slice, pad, broadcast always; a reshape when the affine form splits cleanly into the new
//! dims, if need be after the kernel's iteration space is refined (one of its dims split in two).

use crate::ir::{Bound, View, reach};

/// `offset + sum(strides[d] * iteration[d])`.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    pub offset: i64,
    pub strides: Vec<i64>,
}

impl Affine {
    pub fn zero(rank: usize) -> Affine {
        Affine { offset: 0, strides: vec![0; rank] }
    }

    fn plus(&self, other: &Affine, times: i64) -> Affine {
        let strides = self.strides.iter().zip(&other.strides).map(|(a, b)| a + times * b).collect();
        Affine { offset: self.offset + times * other.offset, strides }
    }

    /// Smallest and largest value over the iteration space.
    fn range(&self, space: &[usize]) -> (i64, i64) {
        reach(self.offset, &self.strides, space)
    }
}

/// Where a node's element is, dim by dim, and which conditions must hold for it to exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    pub dims: Vec<Affine>,
    pub bounds: Vec<Bound>,
}

/// Why a reshape does not compose.
#[derive(Clone, Debug, PartialEq)]
pub enum Obstacle {
    /// It would if this iteration dim were split into `[size / inner, inner]`.
    Refine { dim: usize, inner: usize },
    /// It does not; the reshaped node needs memory of its own.
    Opaque,
}

impl Index {
    /// The node's own index: iteration space and node shape agree.
    pub fn identity(space: &[usize]) -> Index {
        let dims = (0..space.len())
            .map(|d| {
                let mut affine = Affine::zero(space.len());
                affine.strides[d] = (space[d] > 1) as i64;
                affine
            })
            .collect();
        Index { dims, bounds: vec![] }
    }

    /// The index of a permute's input: output dim `d` is input dim `axes[d]`.
    pub fn permute(&self, axes: &[usize]) -> Index {
        let mut dims = self.dims.clone();
        axes.iter().enumerate().for_each(|(to, &from)| dims[from] = self.dims[to].clone());
        Index { dims, bounds: self.bounds.clone() }
    }

    /// The index of a broadcast's input (same rank).
    pub fn broadcast(&self, input_shape: &[usize]) -> Index {
        let keep = |(d, affine): (usize, &Affine)| match input_shape[d] {
            1 => Affine::zero(affine.strides.len()),
            _ => affine.clone(),
        };
        Index { dims: self.dims.iter().enumerate().map(keep).collect(), bounds: self.bounds.clone() }
    }

    /// The index of a slice's input.
    pub fn slice(&self, starts: &[usize], steps: &[usize]) -> Index {
        let take = |(d, affine): (usize, &Affine)| {
            let step = steps[d] as i64;
            Affine {
                offset: affine.offset * step + starts[d] as i64,
                strides: affine.strides.iter().map(|s| s * step).collect(),
            }
        };
        Index { dims: self.dims.iter().enumerate().map(take).collect(), bounds: self.bounds.clone() }
    }

    /// The index of one axis shifted down by `start`, existing only inside `0..extent` (a
    /// concatenation's part; a pad without steps). Also gives the new condition, if it can fail.
    pub fn shift_inside(
        &self,
        axis: usize,
        start: usize,
        extent: usize,
        space: &[usize],
    ) -> (Index, Option<Bound>) {
        let mut shifted = self.clone();
        shifted.dims[axis].offset -= start as i64;
        let affine = &shifted.dims[axis];
        let (low, high) = affine.range(space);
        if low >= 0 && high < extent as i64 {
            return (shifted, None);
        }
        let bound = Bound { offset: affine.offset, strides: affine.strides.clone(), extent: extent as i64 };
        if !shifted.bounds.contains(&bound) {
            shifted.bounds.push(bound.clone());
        }
        (shifted, Some(bound))
    }

    /// The row-major position in a dense tensor of `shape`.
    pub fn flat(&self, shape: &[usize], space: &[usize]) -> View {
        let mut flat = Affine::zero(space.len());
        let mut row = 1i64;
        for (affine, &size) in self.dims.iter().zip(shape).rev() {
            flat = flat.plus(affine, row);
            row *= size as i64;
        }
        // A dim of size 1 has no stride worth naming; zero makes equal views equal.
        for (stride, &size) in flat.strides.iter_mut().zip(space) {
            if size == 1 {
                *stride = 0;
            }
        }
        View { offset: flat.offset, strides: flat.strides, bounds: self.bounds.clone() }
    }

    /// The index of a reshape's input: `self` indexes `from`, the result indexes `to`.
    pub fn reshape(&self, from: &[usize], to: &[usize], space: &[usize]) -> Result<Index, Obstacle> {
        let flat = self.flat(from, space);
        let mut rest = Affine { offset: flat.offset, strides: flat.strides };
        let mut dims = vec![Affine::zero(space.len()); to.len()];
        let mut row: i64 = to.iter().map(|&s| s as i64).product();
        // No elements, no digits.
        if row == 0 {
            return Ok(Index { dims, bounds: self.bounds.clone() });
        }
        for (d, &size) in to.iter().enumerate() {
            row /= size as i64;
            let digit = &mut dims[d];
            digit.offset = rest.offset.div_euclid(row);
            rest.offset -= digit.offset * row;
            for (axis, stride) in rest.strides.iter_mut().enumerate() {
                if *stride < 0 {
                    return Err(Obstacle::Opaque);
                }
                if *stride < row || *stride == 0 {
                    continue;
                }
                if *stride % row != 0 {
                    return Err(Obstacle::Opaque);
                }
                digit.strides[axis] = *stride / row;
                *stride = 0;
            }
            // What is left must stay below one row, or it carries into this digit.
            if rest.range(space).1 >= row {
                return Err(rest.carrying_dim(row, space));
            }
            let (low, high) = dims[d].range(space);
            if low < 0 || high >= size as i64 {
                return Err(Obstacle::Opaque);
            }
        }
        Ok(Index { dims, bounds: self.bounds.clone() })
    }
}

impl Affine {
    /// The dim whose steps cross a multiple of `row`, if splitting it there would stop the carry.
    fn carrying_dim(&self, row: i64, space: &[usize]) -> Obstacle {
        if self.offset != 0 {
            return Obstacle::Opaque;
        }
        for (dim, (&stride, &size)) in self.strides.iter().zip(space).enumerate() {
            if stride > 0 && stride * (size as i64 - 1) >= row && row % stride == 0 {
                let inner = row / stride;
                if inner > 1 && size as i64 % inner == 0 && (size as i64) > inner {
                    return Obstacle::Refine { dim, inner: inner as usize };
                }
            }
        }
        Obstacle::Opaque
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of an affine form at an iteration index.
    fn at(affine: &Affine, index: &[i64]) -> i64 {
        affine.offset + affine.strides.iter().zip(index).map(|(s, i)| s * i).sum::<i64>()
    }

    #[test]
    fn a_merging_reshape_composes() {
        // Iterating [2, 3, 4], reading [6, 4].
        let index = Index::identity(&[2, 3, 4]).reshape(&[2, 3, 4], &[6, 4], &[2, 3, 4]).expect("merges");
        assert_eq!(at(&index.dims[0], &[1, 2, 3]), 5);
        assert_eq!(at(&index.dims[1], &[1, 2, 3]), 3);
    }

    #[test]
    fn a_splitting_reshape_asks_for_a_finer_space() {
        let result = Index::identity(&[6, 4]).reshape(&[6, 4], &[2, 3, 4], &[6, 4]);
        assert_eq!(result, Err(Obstacle::Refine { dim: 0, inner: 3 }));
    }

    #[test]
    fn a_shuffled_reshape_is_opaque() {
        // A transposed [3, 2] read as [2, 3]: rows of the target mix both dims.
        let transposed = Index::identity(&[2, 3]).permute(&[1, 0]);
        assert!(transposed.reshape(&[3, 2], &[6], &[2, 3]).is_ok(), "merging is always affine");
        let skewed = transposed.reshape(&[3, 2], &[2, 3], &[2, 3]);
        assert!(skewed.is_err());
    }
}
