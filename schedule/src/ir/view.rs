//! Affine index arithmetic: where a tensor's element is, as a function of a kernel's iteration index.

/// An affine map from an iteration index to an element: `offset + sum(strides[d] * index[d])`,
/// with one stride per iteration dim.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct View {
    /// The element of index 0.
    pub offset: i64,
    /// How far apart in memory neighbours are, for each dim of the space.
    pub strides: Vec<i64>,
    /// All must hold for the element to exist; outside, a load gives 0 and must not touch memory.
    pub bounds: Vec<Bound>,
}

/// `0 <= offset + sum(strides[d] * index[d]) < extent`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Added to the sum that must lie within the bound.
    pub offset: i64,
    /// What an index of each dim adds to it.
    pub strides: Vec<i64>,
    /// The sum must be at least 0 and below this.
    pub extent: i64,
}

impl View {
    /// The dense row-major view of a tensor of this shape by its own index.
    pub fn dense(shape: &[usize]) -> View {
        let mut strides = vec![0; shape.len()];
        let mut step = 1i64;
        for d in (0..shape.len()).rev() {
            if shape[d] > 1 {
                strides[d] = step;
            }
            step *= shape[d] as i64;
        }
        View { offset: 0, strides, bounds: Vec::new() }
    }

    /// Whether this is [`View::dense`] of `shape`.
    pub fn is_dense(&self, shape: &[usize]) -> bool {
        *self == View::dense(shape)
    }

    /// The element at an index. Dims beyond it are at 0.
    #[inline]
    pub fn at(&self, index: &[usize]) -> i64 {
        at(self.offset, &self.strides, index)
    }

    /// The view with those bounds alone that fail somewhere in a space; nothing if one fails everywhere.
    pub fn settled(&self, sizes: &[usize]) -> Option<View> {
        let verdicts: Vec<Option<bool>> = self.bounds.iter().map(|bound| bound.verdict(sizes)).collect();
        let open = self.bounds.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_none());
        let bounds = open.map(|(bound, _)| bound.clone()).collect();
        (!verdicts.contains(&Some(false))).then(|| View { bounds, ..self.clone() })
    }

    /// The smallest and the largest element over an iteration space, whatever the bounds; see [`reach`].
    pub fn reach(&self, sizes: &[usize]) -> (i64, i64) {
        reach(self.offset, &self.strides, sizes)
    }

    /// Whether the element, or whether it exists, varies along an iteration dim.
    pub fn varies_along(&self, dim: usize) -> bool {
        self.strides[dim] != 0 || self.bounds.iter().any(|bound| bound.strides[dim] != 0)
    }

    /// Its list of strides, and those of its bounds.
    pub fn stride_lists(&mut self) -> impl Iterator<Item = &mut Vec<i64>> {
        std::iter::once(&mut self.strides).chain(self.bounds.iter_mut().map(|bound| &mut bound.strides))
    }
}

impl Bound {
    /// The value of its form at an index. Dims beyond it are at 0.
    #[inline]
    pub fn at(&self, index: &[usize]) -> i64 {
        at(self.offset, &self.strides, index)
    }

    /// The smallest and the largest value of its form over an iteration space; see [`reach`].
    pub fn reach(&self, sizes: &[usize]) -> (i64, i64) {
        reach(self.offset, &self.strides, sizes)
    }

    /// Whether it holds at every index of a space (true), at none (false), or at some (nothing).
    pub fn verdict(&self, sizes: &[usize]) -> Option<bool> {
        match self.reach(sizes) {
            (low, high) if high < 0 || low >= self.extent => Some(false),
            (low, high) if low >= 0 && high < self.extent => Some(true),
            _ => None,
        }
    }
}

#[inline]
fn at(offset: i64, strides: &[i64], index: &[usize]) -> i64 {
    index.iter().zip(strides).fold(offset, |sum, (&i, &stride)| sum + i as i64 * stride)
}

/// The smallest and the largest value of `offset + sum(strides[d] * index[d])` over an iteration space.
/// Dims without a stride do not count, and an empty dim counts as one of size 1.
pub fn reach(offset: i64, strides: &[i64], sizes: &[usize]) -> (i64, i64) {
    strides.iter().zip(sizes).fold((offset, offset), |(low, high), (&stride, &size)| {
        let last = stride * (size.max(1) as i64 - 1);
        (low + last.min(0), high + last.max(0))
    })
}

/// Fewer dims for the same iteration: those of size 1 go, and neighbours of one class become one dim
/// where every list of strides walks them as one. `shape`, `classes` (a number for each dim) and the lists
/// change together; a list that is shorter than `shape` does not move along the dims that it lacks.
pub fn merge_dims(shape: &mut Vec<usize>, classes: &mut Vec<u8>, strides: &mut [&mut Vec<i64>]) {
    strides.iter_mut().for_each(|list| list.resize(shape.len(), 0));
    let mut kept: Vec<usize> = Vec::new();
    for d in 0..shape.len() {
        if shape[d] == 1 {
            continue;
        }
        let outer = kept.last().copied().filter(|&outer| {
            classes[outer] == classes[d] && strides.iter().all(|s| s[outer] == s[d] * shape[d] as i64)
        });
        if let Some(outer) = outer {
            shape[d] *= shape[outer];
            kept.pop();
        }
        kept.push(d);
    }
    *shape = kept.iter().map(|&d| shape[d]).collect();
    *classes = kept.iter().map(|&d| classes[d]).collect();
    strides.iter_mut().for_each(|list| **list = kept.iter().map(|&d| list[d]).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_merge_where_every_list_agrees() {
        // x[N, H, W, C] dense, scale[C]; size 1 goes.
        let (mut shape, mut classes) = (vec![2, 1, 3, 4], vec![0; 4]);
        let (mut x, mut scale, mut scalar) = (vec![12, 0, 4, 1], vec![0, 0, 0, 1], vec![]);
        merge_dims(&mut shape, &mut classes, &mut [&mut x, &mut scale, &mut scalar]);
        assert_eq!((shape, classes), (vec![6, 4], vec![0, 0]));
        assert_eq!((x, scale, scalar), (vec![4, 1], vec![0, 1], vec![0, 0]));

        let (mut shape, mut x) = (vec![2, 1, 3, 4], vec![12, 0, 4, 1]);
        merge_dims(&mut shape, &mut vec![0; 4], &mut [&mut x]);
        assert_eq!((shape, x), (vec![24], vec![1]));
    }

    #[test]
    fn dims_of_different_classes_stay_apart() {
        let (mut shape, mut classes, mut x) = (vec![2, 3, 4, 5], vec![0, 1, 1, 1], vec![60, 20, 5, 1]);
        merge_dims(&mut shape, &mut classes, &mut [&mut x]);
        assert_eq!((shape, classes, x), (vec![2, 60], vec![0, 1], vec![60, 1]));
    }

    #[test]
    fn a_space_of_one_element_has_no_dims() {
        let (mut shape, mut classes, mut x) = (vec![1, 1], vec![0, 0], vec![0, 0]);
        merge_dims(&mut shape, &mut classes, &mut [&mut x]);
        assert_eq!((shape, classes, x), (vec![], vec![], vec![]));
    }

    #[test]
    fn a_bound_is_judged_by_what_its_form_reaches() {
        let bound = |offset, stride| Bound { offset, strides: vec![stride], extent: 4 };
        assert_eq!(bound(0, 1).verdict(&[4]), Some(true));
        assert_eq!(bound(3, -1).verdict(&[4]), Some(true));
        assert_eq!(bound(-1, 1).verdict(&[4]), None);
        assert_eq!(bound(1, 1).verdict(&[4]), None);
        assert_eq!(bound(-4, 1).verdict(&[4]), Some(false));
        assert_eq!(bound(4, 1).verdict(&[4]), Some(false));
        assert_eq!(View { offset: 7, strides: vec![3, -2], bounds: vec![] }.reach(&[5, 3]), (3, 19));
    }

    #[test]
    fn bounds_that_cannot_fail_vanish() {
        let bound = |offset| Bound { offset, strides: vec![1], extent: 4 };
        let view = |bounds| View { offset: 0, strides: vec![1], bounds };
        assert_eq!(view(vec![bound(0), bound(-1)]).settled(&[4]), Some(view(vec![bound(-1)])));
        assert_eq!(view(vec![bound(-1), bound(-4)]).settled(&[4]), None);
    }

    #[test]
    fn a_view_varies_with_its_bounds_too() {
        let bounds = vec![Bound { offset: 0, strides: vec![0, 1], extent: 2 }];
        let view = View { offset: 0, strides: vec![0, 0], bounds };
        assert!(!view.varies_along(0) && view.varies_along(1));
    }
}
