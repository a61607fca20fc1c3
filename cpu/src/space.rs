//! How a walk over an iteration space is cut into blocks.

/// Most elements of a block. A block's values (2 KiB) and a few others stay in the first-level cache.
pub const BLOCK: usize = 512;

/// How a walk over a space is cut into blocks: a block is up to `chunk` steps along axis
/// `split` and everything inside it. One step of `split` is a *row* of `inner` elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tiling {
    pub sizes: Vec<usize>,
    pub split: usize,
    pub inner: usize,
    pub chunk: usize,
}

impl Tiling {
    /// `inner` divides `granularity`.
    pub fn new(sizes: Vec<usize>, granularity: usize) -> Tiling {
        let (mut split, mut inner) = (sizes.len() - 1, 1);
        while split > 0 {
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
    fn blocks_are_bounded_and_divide_the_granularity() {
        let tiling = Tiling::new(vec![1000, 64], 64);
        assert_eq!((tiling.split, tiling.inner, tiling.chunk), (0, 64, 8));
        let tiling = Tiling::new(vec![10, 600], 600);
        assert_eq!((tiling.split, tiling.inner, tiling.chunk), (1, 1, 304));
        let tiling = Tiling::new(vec![10, 6, 4], 4);
        assert_eq!((tiling.split, tiling.inner), (1, 4));
        assert_eq!(Tiling::new(vec![1], 1).rows(), 1);
    }
}
