//! The order in which the dims of a value are stored.

/// Stored dim `i` is dim `order[i]` of the expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Order(Vec<usize>);

impl Order {
    /// As in the expression.
    pub fn same(rank: usize) -> Order {
        Order((0..rank).collect())
    }

    /// An image `[N, H, W, C]` stored as `[N, C, H, W]`.
    pub fn channels_first() -> Order {
        Order(vec![0, 3, 1, 2])
    }

    /// What belongs to the expression's dims, in stored order.
    pub fn stored<T: Copy>(&self, dims: &[T]) -> Vec<T> {
        self.0.iter().map(|&dim| dims[dim]).collect()
    }

    /// Where a dim of the expression is stored.
    pub fn place(&self, dim: usize) -> usize {
        self.0.iter().position(|&at| at == dim).unwrap_or(dim)
    }

    /// The order of the same numbers for an expression whose dim `d` is dim `axes[d]` of this one.
    pub fn permuted(&self, axes: &[usize]) -> Order {
        let dim = |old: usize| axes.iter().position(|&axis| axis == old).unwrap_or(old);
        Order(self.0.iter().map(|&old| dim(old)).collect())
    }

    /// Whether a value of this shape (in the expression) has its numbers in the same sequence in both orders.
    pub fn agrees(&self, other: &Order, shape: &[usize]) -> bool {
        let real = |order: &Order| order.0.iter().copied().filter(|&dim| shape[dim] != 1).collect::<Vec<_>>();
        real(self) == real(other)
    }

    /// Row-major `values` of this shape (in the expression), as they are stored.
    pub fn arrange<T: Copy>(&self, values: &[T], shape: &[usize]) -> Vec<T> {
        if self.agrees(&Order::same(shape.len()), shape) {
            return values.to_vec();
        }
        let mut strides = vec![1; shape.len()];
        for dim in (1..shape.len()).rev() {
            strides[dim - 1] = strides[dim] * shape[dim];
        }
        let (sizes, strides) = (self.stored(shape), self.stored(&strides));
        let at = |mut index: usize| {
            let mut place = 0;
            for (size, stride) in sizes.iter().zip(&strides).rev() {
                place += index % size * stride;
                index /= size;
            }
            values[place]
        };
        (0..values.len()).map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_arranged_by_channels() {
        let values: Vec<usize> = (0..12).collect();
        let arranged = Order::channels_first().arrange(&values, &[1, 2, 3, 2]);
        assert_eq!(arranged, [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]);
    }

    #[test]
    fn permuting_an_expression_moves_nothing() {
        // Channels first as an expression of its own: its dims are stored as they are.
        assert_eq!(Order::channels_first().permuted(&[0, 3, 1, 2]), Order::same(4));
        assert!(Order::channels_first().agrees(&Order::same(4), &[7, 1, 1, 5]));
        assert!(!Order::channels_first().agrees(&Order::same(4), &[7, 1, 2, 5]));
    }
}
