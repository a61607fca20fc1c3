//! Folds along axes. All keep the folded axes with size 1; `squeeze` drops them.

use crate::tensor::{DType, Op, ReduceOp, Tensor, Transfer};

impl Tensor {
    /// The sum over all processes that run the same program, each on data of its own; the tensor itself
    /// where there is one process.
    #[track_caller]
    pub fn all_reduce(&self, transfer: Transfer) -> Tensor {
        if self.dtype() != DType::F32 {
            return Tensor::invalid("all_reduce", &[self], "needs f32".into());
        }
        Tensor::make(Op::AllReduce(transfer), vec![self.clone()], self.shape().to_vec(), DType::F32)
    }

    #[track_caller]
    fn reduce(&self, op: ReduceOp, axes: &[usize]) -> Tensor {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        axes.dedup();
        let name = Op::Reduce(op, vec![]).name();
        if axes.iter().any(|&a| a >= self.rank()) {
            return Tensor::invalid(name, &[self], format!("axes {axes:?} of {} dims", self.rank()));
        }
        if self.dtype() != DType::F32 {
            return Tensor::invalid(name, &[self], "takes f32; use `.float()` first".into());
        }
        if op != ReduceOp::Sum && axes.iter().any(|&a| self.dim(a) == 0) {
            return Tensor::invalid(name, &[self], "over no elements".into());
        }
        if axes.is_empty() && op != ReduceOp::Variance {
            return self.clone();
        }
        let mut shape = self.shape().to_vec();
        axes.iter().for_each(|&a| shape[a] = 1);
        Tensor::make(Op::Reduce(op, axes), vec![self.clone()], shape, DType::F32)
    }

    /// Sum along axes, which stay with size 1.
    #[track_caller]
    pub fn sum(&self, axes: &[usize]) -> Tensor {
        self.reduce(ReduceOp::Sum, axes)
    }
    /// Sum of everything, a scalar of shape `[]`.
    #[track_caller]
    pub fn sum_all(&self) -> Tensor {
        let axes: Vec<usize> = (0..self.rank()).collect();
        self.sum(&axes).reshape(&[])
    }
    /// Mean along axes, which stay with size 1.
    #[track_caller]
    pub fn mean(&self, axes: &[usize]) -> Tensor {
        let count: usize = axes.iter().map(|&a| self.dim(a)).product();
        self.sum(axes) * (1.0 / count as f64)
    }
    /// Mean of everything, a scalar of shape `[]`.
    #[track_caller]
    pub fn mean_all(&self) -> Tensor {
        self.sum_all() * (1.0 / self.len() as f64)
    }
    /// Biased variance along axes, which stay with size 1: `mean((x - mean(x))^2)`.
    #[track_caller]
    pub fn variance(&self, axes: &[usize]) -> Tensor {
        self.reduce(ReduceOp::Variance, axes)
    }
    /// Largest value along one axis, which stays with size 1. NaN counts as the largest; the gradient
    /// goes to the lowest index of a tie.
    #[track_caller]
    pub fn max(&self, axis: usize) -> Tensor {
        self.reduce(ReduceOp::Max, &[axis])
    }
    /// Largest value of everything, a scalar of shape `[]`.
    #[track_caller]
    pub fn max_all(&self) -> Tensor {
        self.reshape(&[self.len()]).max(0).reshape(&[])
    }
    /// Index of the largest value along one axis, which stays with size 1: the lowest index of a tie,
    /// the first NaN if there is one. Integer.
    #[track_caller]
    pub fn argmax(&self, axis: usize) -> Tensor {
        if axis >= self.rank() || self.dtype() != DType::F32 || self.dim(axis) == 0 {
            return Tensor::invalid(
                "argmax",
                &[self],
                format!("f32 with some elements along axis {axis} needed"),
            );
        }
        let mut shape = self.shape().to_vec();
        shape[axis] = 1;
        Tensor::make(Op::ArgMax(axis), vec![self.clone()], shape, DType::I32)
    }
    /// Drops one axis of size 1.
    #[track_caller]
    pub fn squeeze(&self, axis: usize) -> Tensor {
        if self.dim(axis) != 1 || axis >= self.rank() {
            return Tensor::invalid("squeeze", &[self], format!("axis {axis} is not of size 1"));
        }
        let mut shape = self.shape().to_vec();
        shape.remove(axis);
        self.reshape(&shape)
    }
    /// Adds an axis of size 1 before `axis`.
    #[track_caller]
    pub fn unsqueeze(&self, axis: usize) -> Tensor {
        if axis > self.rank() {
            return Tensor::invalid("unsqueeze", &[self], format!("there is no place {axis}"));
        }
        let mut shape = self.shape().to_vec();
        shape.insert(axis, 1);
        self.reshape(&shape)
    }
}
