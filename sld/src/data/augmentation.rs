//! How a program changes its own images when they are trained on.

use crate::random::{Purpose, Stream};
use std::fmt;
use std::sync::Arc;

type Change = dyn Fn(&mut [f32], &mut Stream, bool) + Send + Sync;

/// A change of images of floats, drawn from numbers of its own for each image and epoch.
#[derive(Clone)]
pub struct Augmentation(Arc<Change>);

impl Augmentation {
    /// By a function of the image, `[height, width, channels]`, its random numbers, and whether it is the strong view.
    pub fn new(change: impl Fn(&mut [f32], &mut Stream, bool) + Send + Sync + 'static) -> Augmentation {
        Augmentation(Arc::new(change))
    }

    /// Changes the views of image `index` in an epoch of a run with `seed`: the weak one, and if there is one the strong.
    pub fn apply(&self, (seed, epoch): (u64, u64), index: u32, weak: &mut [f32], strong: Option<&mut [f32]>) {
        let mut stream = Stream::new(seed, Purpose::View, epoch, index.into());
        (self.0)(weak, &mut stream, false);
        if let Some(strong) = strong {
            (self.0)(strong, &mut stream, true);
        }
    }
}

impl fmt::Debug for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Augmentation")
    }
}

/// The same function, not an equal one.
impl PartialEq for Augmentation {
    fn eq(&self, other: &Augmentation) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
