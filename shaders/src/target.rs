//! What a kernel may assume about the adapter it is written for.

use schedule::{ChannelFolds, Options};

use crate::element::Element;

/// The adapter, as far as kernels care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Threads of a subgroup, where matrix units multiply.
    pub lanes: u32,
    /// How the tile kernels hold what they multiply.
    pub operands: Operands,
    /// What must not be exceeded.
    pub limits: Limits,
}

/// The type in which tile kernels hold operands: packed weights and operands computed beforehand are stored
/// in it, and all are staged in it. Where it is 16 bits, or a pair of them, activations are stored so, too
/// (`halves.rs`). Sums are `f32` and so is everything else in storage: a weight rounded for a product keeps its small
/// updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Operands {
    /// Neither rounded nor multiplied in less than single precision.
    #[default]
    F32,
    /// Rounded to 16 bits as they are staged; multiplied in `f32`. Needs 16-bit floats in shaders.
    F16,
    /// As `F16`, multiplied by the matrix units in 16x16x16 products. Needs matrices of that shape, too, and
    /// subgroups of a fixed size.
    Matrix,
    /// As the sums of two 16-bit floats ([`Element::Pair`]), multiplied by the matrix units in three products: as accurate
    /// as `F32` for tensors of values around 1, and of convolutions' gradients around 1/1024, down to 2^-13 of that. A
    /// value above 65504 or a gradient above 64 is infinite. Needs what `Matrix` needs, and 32 KiB of workgroup memory.
    Split,
}

impl Operands {
    /// How operands are stored and staged.
    pub fn element(self) -> Element {
        match self {
            Operands::F32 => Element::F32,
            Operands::F16 | Operands::Matrix => Element::F16,
            Operands::Split => Element::Pair,
        }
    }

    /// Whether the matrix units multiply them.
    pub fn are_matrices(self) -> bool {
        matches!(self, Operands::Matrix | Operands::Split)
    }
}

/// The limits that kernels respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Storage buffers bound to one kernel.
    pub storage_buffers: u32,
    /// Bytes of one storage binding.
    pub binding_bytes: u64,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Threads of a workgroup.
    pub invocations: u32,
    /// Workgroups in each dimension of a dispatch.
    pub groups: u32,
}

impl Limits {
    /// What WebGPU guarantees everywhere.
    pub const WEBGPU: Limits = Limits {
        storage_buffers: 8,
        binding_bytes: 128 << 20,
        workgroup_bytes: 16 << 10,
        invocations: 256,
        groups: 65_535,
    };
}

impl Target {
    /// The least that WebGPU guarantees: no optional feature.
    pub const WEBGPU: Target = Target { lanes: 32, operands: Operands::F32, limits: Limits::WEBGPU };

    /// Most buffers that a kernel may touch: one binding is left for its own scratch.
    pub fn most_buffers(&self) -> usize {
        (self.limits.storage_buffers as usize).saturating_sub(1).max(Options::LEAST_BUFFERS)
    }

    /// How schedules for this target are made. All kernels keep to its bindings. Tiles of convolutions are folded where
    /// there is workgroup memory beside the tile.
    pub fn schedule_options(&self) -> Options {
        let most = self.most_buffers();
        Options {
            max_buffers: most.min(8),
            group_buffers: most,
            channel_folds: match self.limits.workgroup_bytes {
                ..32768 => ChannelFolds::None,
                32768.. => ChannelFolds::Dense,
            },
            ..Options::default()
        }
    }

    /// Workgroups `[x, y, 1]` of at least `count` in all, with both dimensions within the limit.
    /// Kernels number them `y * x_size + x` and skip those past the end.
    pub fn fold_groups(&self, count: usize) -> [u32; 3] {
        let limit = self.limits.groups as usize;
        if count <= limit {
            return [count as u32, 1, 1];
        }
        let rows = count.div_ceil(limit);
        [count.div_ceil(rows) as u32, rows as u32, 1]
    }
}
