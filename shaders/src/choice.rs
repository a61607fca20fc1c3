//! The ways to compute a kernel, from which one is chosen by measuring.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tile::Tile;

/// How a kernel is computed, where there are several ways. All of them are right; they differ in speed and in
/// the last bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Of a matrix product, a convolution or one of its gradients.
    Product(Tiling),
    /// Of a fold.
    Fold(Cut),
}

/// How a product is tiled, and cut along k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiling {
    pub(crate) tile: Tile,
    /// Chunks of k; there are more where its sum would lose accuracy.
    pub(crate) chunks: usize,
}

/// How a stage of a fold is cut into workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Outer indices of a workgroup, and lanes for each: powers of two.
    pub(crate) across: usize,
    pub(crate) deep: usize,
    /// Chunks, each folded by workgroups of its own.
    pub(crate) chunks: usize,
    pub(crate) chunk_len: usize,
}

impl fmt::Display for Choice {
    /// In a few words: `tiles 128x64x16, 2 chunks`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let chunks = match self {
            Choice::Product(Tiling { tile, chunks }) => {
                write!(f, "{tile}")?;
                chunks
            }
            Choice::Fold(Cut { across, deep, chunks, .. }) => {
                write!(f, "{across} by {deep} lanes")?;
                chunks
            }
        };
        if *chunks > 1 { write!(f, ", {chunks} chunks") } else { Ok(()) }
    }
}
