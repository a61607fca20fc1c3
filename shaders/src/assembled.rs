//! What a kernel becomes on a device.

use crate::launch::Launch;
use crate::pack::Pack;

/// A kernel made ready for a device.
#[derive(Clone, Debug, Default)]
pub struct Assembled {
    /// What must be packed before; a [`Sequence`](crate::Sequence) decides when and where.
    pub pack: Option<Pack>,
    /// The launches of one call, in order.
    pub launches: Vec<Launch>,
    /// Bytes of each scratch allocation the kernel needs while it runs.
    pub scratch: Vec<u64>,
}
