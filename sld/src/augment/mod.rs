//! Image augmentation: the weak and the strong view of a training image, bit for bit as Pillow makes them.
//!
//! * weak view: random crop of the zero-padded image, random horizontal flip ([`crop`]);
//! * strong view: an independent crop and flip, then RandAugment(2) ([`randaugment`]): two of the fourteen
//!   operations ([`Op`]), then [`cutout`];
//! * pictures of any size are framed by RandomResizedCrop instead of the padded crop, and in evaluation by Resize
//!   and CenterCrop ([`photo`], [`resample`]);
//! * both become floats through [`normalize::Normalization`];
//! * whole batches of floats may be mixed in pairs ([`mix`]).
//!
//! Images are 8-bit RGB, rows of interleaved pixels (HWC), of any size. All work happens inside a
//! [`Canvas`] that is reused from image to image, so nothing is allocated per image. The randomness is
//! drawn from a [`crate::random::Stream`] *before* pixels are touched ([`views`]); the operations themselves
//! are deterministic functions.
//!
//! Sources: Cubuk et al., *RandAugment* (2020); DeVries and Taylor, *Cutout* (2017); the arithmetic follows
//! Pillow 9.5 to 13.0, whose truncations and fixed-point steps are part of the behaviour.

pub mod affine;
mod canvas;
pub mod crop;
pub mod cutout;
pub mod enhance;
pub mod mix;
pub mod normalize;
mod op;
pub mod photo;
pub mod randaugment;
pub mod resample;
pub mod tone;
pub mod views;

pub use canvas::Canvas;
pub use mix::{Mixing, Mixture};
pub use normalize::Normalization;
pub use op::Op;
pub use photo::{Photo, PhotoDraws};
pub use randaugment::RandAugment;
pub use views::{Geometry, ViewDraws};
