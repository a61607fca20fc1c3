//! The classes: which shape with which texture.

use super::figure::{Shape, TEXTURE_PAIRS};

/// Every shape with every texture.
pub const MAX_CLASSES: usize = Shape::ALL.len() * TEXTURE_PAIRS.len() * 2;

/// A class's shape and texture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Class {
    pub(super) shape: Shape,
    /// Which pair of textures, and which end of it.
    pub(super) pair: usize,
    pub(super) end: usize,
}

impl Class {
    pub(super) fn new(number: usize) -> Self {
        let shapes = Shape::ALL.len();
        Self { shape: Shape::ALL[number / 2 % shapes], pair: number / 2 / shapes, end: number % 2 }
    }

    pub(super) fn name(self) -> String {
        format!("{} {}", TEXTURE_PAIRS[self.pair][self.end], self.shape.name())
    }
}
