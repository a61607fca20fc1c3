//! Pooling over windows of `[N, H, W, C]` images.

use crate::tensor::{DType, Op, Tensor, Window};

impl Tensor {
    /// The pooled shape, or why there is none.
    fn pooled_shape(&self, window: &Window) -> Result<Vec<usize>, String> {
        let (&[n, h, w, c], DType::F32) = (self.shape(), self.dtype()) else {
            return Err("takes an f32 image [N,H,W,C]".into());
        };
        let Window { size, stride, padding, .. } = *window;
        if size.contains(&0) || stride.contains(&0) || (0..2).any(|d| 2 * padding[d] > size[d]) {
            return Err(format!("window and stride at least 1, padding at most half the window: {window:?}"));
        }
        let out = |extent: usize, d: usize| {
            (extent + 2 * padding[d]).checked_sub(size[d]).map(|r| r / stride[d] + 1)
        };
        match (out(h, 0), out(w, 1)) {
            (Some(ho), Some(wo)) => Ok(vec![n, ho, wo, c]),
            _ => Err(format!("the window does not fit into the padded image: {window:?}")),
        }
    }

    /// Largest value of each window: `[N,H,W,C] -> [N,Ho,Wo,C]`. Padding never wins; the gradient of a
    /// tie goes to the first position.
    #[track_caller]
    pub fn max_pool(&self, window: Window) -> Tensor {
        self.max_pool_gather(self, window)
    }

    /// `source` at the position of each window's maximum of `self`.
    #[track_caller]
    pub(crate) fn max_pool_gather(&self, source: &Tensor, window: Window) -> Tensor {
        match self.pooled_shape(&window) {
            Ok(shape) => {
                Tensor::make(Op::MaxPoolGather(window), vec![self.clone(), source.clone()], shape, DType::F32)
            }
            Err(message) => Tensor::invalid("max_pool", &[self], message),
        }
    }

    /// The transpose of [`Tensor::max_pool_gather`] in its source: self is x, result like x.
    #[track_caller]
    pub(crate) fn max_pool_scatter(&self, dy: &Tensor, window: Window) -> Tensor {
        let inputs = vec![self.clone(), dy.clone()];
        Tensor::make(Op::MaxPoolScatter(window), inputs, self.shape().to_vec(), DType::F32)
    }

    /// Mean of each window: `[N,H,W,C] -> [N,Ho,Wo,C]`; see [`Window::count_padding`].
    #[track_caller]
    pub fn average_pool(&self, window: Window) -> Tensor {
        match self.pooled_shape(&window) {
            Ok(shape) => Tensor::make(Op::AveragePool(window), vec![self.clone()], shape, DType::F32),
            Err(message) => Tensor::invalid("average_pool", &[self], message),
        }
    }

    /// The transpose of [`Tensor::average_pool`]: self is dy, result `x_shape`.
    #[track_caller]
    pub(crate) fn average_pool_transposed(&self, window: Window, x_shape: &[usize]) -> Tensor {
        Tensor::make(Op::AveragePoolTransposed(window), vec![self.clone()], x_shape.to_vec(), DType::F32)
    }

    /// Mean over height and width: `[N,H,W,C] -> [N,C]`.
    #[track_caller]
    pub fn global_average_pool(&self) -> Tensor {
        let &[n, _, _, c] = self.shape() else {
            return Tensor::invalid("global_average_pool", &[self], "takes an image [N,H,W,C]".into());
        };
        self.mean(&[1, 2]).reshape(&[n, c])
    }
}
