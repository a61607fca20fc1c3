//! Iteration spaces: which dims can be walked as one, and how a walk is cut into blocks.

use schedule::{Bound, View};

/// Most elements of a block. A block's values (2 KiB) and a few others stay in the first-level cache.
pub const BLOCK: usize = 512;

/// A dim of a merged space: several dims of the original, walked as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub size: usize,
    /// The original dim whose stride is this axis' stride; none for an axis of size 1.
    pub innermost: Option<usize>,
    pub class: u8,
}

/// Merges neighbouring dims of `shape` that every affine form (a list of strides) walks as one. Dims
/// of different `class` stay apart, and each class that occurs keeps its order. Dims of size 1 vanish, but at least one axis
/// remains.
pub fn merge(shape: &[usize], classes: &[u8], forms: &[&[i64]]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for (dim, &size) in shape.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let class = classes[dim];
        if let Some(last) = axes.last_mut()
            && let Some(outer) = last.innermost
            && last.class == class
            && forms.iter().all(|strides| strides[outer] == strides[dim] * size as i64)
        {
            last.size *= size;
            last.innermost = Some(dim);
            continue;
        }
        axes.push(Axis { size, innermost: Some(dim), class });
    }
    if axes.is_empty() {
        axes.push(Axis { size: 1, innermost: None, class: 0 });
    }
    axes
}

/// An affine form over merged axes: `offset + sum(strides[d] * index[d])`.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    pub offset: i64,
    pub strides: Vec<i64>,
}

impl Affine {
    pub fn new(offset: i64, strides: &[i64], axes: &[Axis]) -> Affine {
        let stride = |axis: &Axis| axis.innermost.map_or(0, |dim| strides[dim]);
        Affine { offset, strides: axes.iter().map(stride).collect() }
    }

    /// The value at the start of a block; axes beyond `index` are at 0.
    #[inline]
    pub fn at(&self, index: &[usize]) -> i64 {
        index.iter().zip(&self.strides).fold(self.offset, |sum, (&i, &stride)| sum + i as i64 * stride)
    }

    /// Smallest and largest value over the space.
    pub fn range(&self, sizes: &[usize]) -> (i64, i64) {
        let (mut low, mut high) = (self.offset, self.offset);
        for (&stride, &size) in self.strides.iter().zip(sizes) {
            let reach = stride * (size as i64 - 1);
            if reach < 0 { low += reach } else { high += reach }
        }
        (low, high)
    }
}

/// A view over merged axes, with the bounds that can fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    pub element: Affine,
    /// Each form must lie in `0..extent`.
    pub bounds: Vec<(Affine, i64)>,
    /// Some bound fails everywhere.
    pub never: bool,
}

impl Access {
    pub fn new(view: &View, axes: &[Axis]) -> Access {
        let sizes: Vec<usize> = axes.iter().map(|axis| axis.size).collect();
        let mut access =
            Access { element: Affine::new(view.offset, &view.strides, axes), bounds: vec![], never: false };
        for Bound { offset, strides, extent } in &view.bounds {
            let form = Affine::new(*offset, strides, axes);
            let (low, high) = form.range(&sizes);
            if high < 0 || low >= *extent {
                access.never = true;
            } else if low < 0 || high >= *extent {
                access.bounds.push((form, *extent));
            }
        }
        access
    }

    /// Whether the element or a bound varies along `axis`.
    pub fn depends_on(&self, axis: usize) -> bool {
        self.element.strides[axis] != 0 || self.bounds.iter().any(|(form, _)| form.strides[axis] != 0)
    }
}

/// How a walk over merged axes is cut into blocks: a block is up to `chunk` steps along axis
/// `split` and everything inside it. One step of `split` is a *row* of `inner` elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiling {
    pub sizes: Vec<usize>,
    pub split: usize,
    pub inner: usize,
    pub chunk: usize,
}

impl Tiling {
    /// `innermost_split` is the first axis that may be split; `inner` divides `granularity`.
    pub fn new(sizes: Vec<usize>, innermost_split: usize, granularity: usize) -> Tiling {
        let (mut split, mut inner) = (sizes.len() - 1, 1);
        while split > innermost_split {
            let grown = inner * sizes[split];
            if grown > BLOCK || grown == 0 || !granularity.is_multiple_of(grown) {
                break;
            }
            inner = grown;
            split -= 1;
        }
        let most = (BLOCK / inner).max(1);
        let blocks = sizes[split].div_ceil(most).max(1);
        let even = sizes[split].div_ceil(blocks);
        // Whole vectors, where rows are single elements.
        let chunk = if inner == 1 && even > 16 { even.next_multiple_of(16).min(most) } else { even };
        Tiling { sizes, split, inner, chunk: chunk.max(1) }
    }

    /// Rows of the whole space.
    pub fn rows(&self) -> usize {
        self.sizes[..=self.split].iter().product()
    }

    /// Elements of a full block.
    pub fn block_len(&self) -> usize {
        self.chunk * self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_merge_where_every_view_agrees() {
        // x[N, H, W, C] dense, scale[C].
        let shape = [2, 3, 4, 5];
        let x = [60, 20, 5, 1];
        let scale = [0, 0, 0, 1];
        let axes = merge(&shape, &[0; 4], &[&x, &scale]);
        assert_eq!(axes.iter().map(|a| a.size).collect::<Vec<_>>(), [24, 5]);
        assert_eq!(Affine::new(7, &x, &axes).strides, [5, 1]);
        // Classes keep dims apart; size 1 vanishes.
        let axes = merge(&[2, 1, 3], &[0, 0, 1], &[&[3, 0, 1]]);
        assert_eq!(axes.iter().map(|a| a.size).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(merge(&[1, 1], &[0, 0], &[]).iter().map(|a| a.size).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn bounds_that_cannot_fail_vanish() {
        let bound = |offset, extent| Bound { offset, strides: vec![1], extent };
        let view = View { offset: 0, strides: vec![1], bounds: vec![bound(0, 4), bound(-1, 4)] };
        let axes = merge(&[4], &[0], &[]);
        let access = Access::new(&view, &axes);
        assert_eq!(access.bounds.len(), 1);
        assert!(!access.never);
        let view = View { bounds: vec![bound(-4, 4)], ..view };
        assert!(Access::new(&view, &axes).never);
    }

    #[test]
    fn blocks_are_bounded_and_divide_the_granularity() {
        let tiling = Tiling::new(vec![1000, 64], 0, 64);
        assert_eq!((tiling.split, tiling.inner, tiling.chunk), (0, 64, 8));
        let tiling = Tiling::new(vec![10, 600], 0, 600);
        assert_eq!((tiling.split, tiling.inner, tiling.chunk), (1, 1, 304));
        let tiling = Tiling::new(vec![10, 6, 4], 0, 4);
        assert_eq!((tiling.split, tiling.inner), (1, 4));
        assert_eq!(Tiling::new(vec![1], 0, 1).rows(), 1);
    }
}
