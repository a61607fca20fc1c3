//! Rearranging without arithmetic. A schedule turns most of these into index arithmetic of whatever
//! reads them, so they cost nothing.

use crate::tensor::{DType, Op, Tensor};

impl Tensor {
    /// The same elements, row-major, under another shape.
    #[track_caller]
    pub fn reshape(&self, shape: &[usize]) -> Tensor {
        if shape == self.shape() {
            return self.clone();
        }
        if shape.iter().product::<usize>() != self.len() {
            let message = format!("{} elements cannot take the shape {shape:?}", self.len());
            return Tensor::invalid("reshape", &[self], message);
        }
        Tensor::make(Op::Reshape, vec![self.clone()], shape.to_vec(), self.dtype())
    }

    /// Output dim `d` is input dim `axes[d]`.
    #[track_caller]
    pub fn permute(&self, axes: &[usize]) -> Tensor {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.rank()) {
            return Tensor::invalid(
                "permute",
                &[self],
                format!("{axes:?} is not an order of {} dims", self.rank()),
            );
        }
        if axes.iter().copied().eq(0..self.rank()) {
            return self.clone();
        }
        let shape = axes.iter().map(|&a| self.dim(a)).collect();
        Tensor::make(Op::Permute(axes.to_vec()), vec![self.clone()], shape, self.dtype())
    }

    /// Swaps the last two dims.
    #[track_caller]
    pub fn transpose(&self) -> Tensor {
        let rank = self.rank();
        if rank < 2 {
            return Tensor::invalid("transpose", &[self], "needs two dims".into());
        }
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(rank - 2, rank - 1);
        self.permute(&axes)
    }

    /// Repeats dims of size 1 (and adds leading dims) to reach `shape`.
    #[track_caller]
    pub fn broadcast_to(&self, shape: &[usize]) -> Tensor {
        if shape == self.shape() {
            return self.clone();
        }
        let fits = shape.len() >= self.rank()
            && self.shape().iter().rev().zip(shape.iter().rev()).all(|(&from, &to)| from == to || from == 1);
        if !fits {
            return Tensor::invalid("broadcast", &[self], format!("cannot be stretched to {shape:?}"));
        }
        let mut padded = vec![1; shape.len() - self.rank()];
        padded.extend_from_slice(self.shape());
        let aligned = self.reshape(&padded);
        if padded == shape {
            return aligned;
        }
        Tensor::make(Op::Broadcast, vec![aligned], shape.to_vec(), self.dtype())
    }

    /// `len` elements of one axis from `start`, every `step`-th.
    #[track_caller]
    pub fn slice(&self, axis: usize, start: usize, len: usize, step: usize) -> Tensor {
        let fits = axis < self.rank() && step > 0 && (len == 0 || start + (len - 1) * step < self.dim(axis));
        if !fits {
            let message = format!("axis {axis} from {start}, {len} elements by {step}, is out of range");
            return Tensor::invalid("slice", &[self], message);
        }
        let (mut starts, mut steps) = (vec![0; self.rank()], vec![1; self.rank()]);
        let mut shape = self.shape().to_vec();
        (starts[axis], steps[axis], shape[axis]) = (start, step, len);
        if shape == self.shape() {
            return self.clone();
        }
        Tensor::make(Op::Slice { starts, steps }, vec![self.clone()], shape, self.dtype())
    }

    /// Zeros before and after one axis.
    #[track_caller]
    pub fn pad(&self, axis: usize, before: usize, after: usize) -> Tensor {
        if axis >= self.rank() || self.dtype() != DType::F32 {
            return Tensor::invalid("pad", &[self], format!("needs f32 with an axis {axis}"));
        }
        if before + after == 0 {
            return self.clone();
        }
        let mut starts = vec![0; self.rank()];
        let mut shape = self.shape().to_vec();
        starts[axis] = before;
        shape[axis] += before + after;
        Tensor::make(Op::Pad { starts }, vec![self.clone()], shape, self.dtype())
    }

    /// Zeros of size `extent` along one axis, with index `i` placed at `start + i * step`: the
    /// transpose of [`Tensor::slice`]. Gaps are made by padding a dim of size 1 and folding it in.
    #[track_caller]
    pub(crate) fn unslice(&self, axis: usize, start: usize, step: usize, extent: usize) -> Tensor {
        let mut spread = self.clone();
        if step > 1 {
            let mut folded = self.shape().to_vec();
            folded[axis] *= step;
            spread = self.unsqueeze(axis + 1).pad(axis + 1, 0, step - 1).reshape(&folded);
            // The gaps after the last element may stick out.
            let fits = spread.dim(axis).min(extent - start);
            spread = spread.slice(axis, 0, fits, 1);
        }
        let after = extent - start - spread.dim(axis);
        spread.pad(axis, start, after)
    }

    /// Joins tensors along one axis; all other dims are equal.
    #[track_caller]
    pub fn concatenate(parts: &[&Tensor], axis: usize) -> Tensor {
        let Some(first) = parts.first() else {
            return Tensor::invalid("concatenate", &[], "needs at least one tensor".into());
        };
        let alike = parts.iter().all(|t| {
            t.dtype() == first.dtype()
                && t.rank() == first.rank()
                && (0..t.rank()).all(|d| d == axis || t.dim(d) == first.dim(d))
        });
        if axis >= first.rank() || !alike {
            return Tensor::invalid(
                "concatenate",
                parts,
                format!("dims other than axis {axis} and types must agree"),
            );
        }
        if parts.len() == 1 {
            return (*first).clone();
        }
        let mut shape = first.shape().to_vec();
        shape[axis] = parts.iter().map(|t| t.dim(axis)).sum();
        let inputs = parts.iter().map(|t| (*t).clone()).collect();
        Tensor::make(Op::Concatenate(axis), inputs, shape, first.dtype())
    }

    /// ShuffleNet's channel shuffle on the last axis: `[.., groups, C/groups]` transposed and
    /// flattened (Zhang et al. 2018, section 3.1).
    #[track_caller]
    pub fn channel_shuffle(&self, groups: usize) -> Tensor {
        let rank = self.rank();
        let channels = self.dim(rank.wrapping_sub(1));
        if rank == 0 || groups == 0 || !channels.is_multiple_of(groups) {
            return Tensor::invalid(
                "channel_shuffle",
                &[self],
                format!("{channels} channels in {groups} groups"),
            );
        }
        let mut split = self.shape()[..rank - 1].to_vec();
        split.extend([groups, channels / groups]);
        self.reshape(&split).transpose().reshape(self.shape())
    }
}
