//! Distillation methods: from the two networks' logits and features to one loss. A file a method; each reads like
//! its paper's equations.
//!
//! Notation: batch `B`, classes `C`, student logits (or features) `s`, teacher logits `t`, label `y`, temperature `T`,
//! `softmax_T(z) = softmax(z / T)`.

mod about;
mod batch;
mod distiller;
mod divergence;
mod eigen;
mod features;
mod swap;
mod target;

use crate::setting::Choice;

pub use about::About;
pub use batch::Batch;
pub use distiller::{Distiller, Drawn, Loss, Own};
pub use divergence::{divergence, student_swap_divergence};
pub use swap::{Network, Observation, SwapStatistics, swap};
pub use target::Target;

/// The registry: `file::Type`, a line a method.
macro_rules! methods {
    ($($file:ident::$method:ident,)*) => {
        $(pub mod $file; pub use $file::$method;)*

        /// Every method, in the order shown to users.
        pub const METHODS: &[Method] = &[
            $(Method { tag: stringify!($file), make: || Box::new($method::default()) }),*
        ];
    };
}

methods! {
    vanilla::Vanilla,
    kd::Kd,
    kd_swap::KdSwap,
    sld::Sld,
    mlkd::Mlkd,
    dkd::Dkd,
    fitnet::FitNet,
    at::At,
    nst::Nst,
    pkt::Pkt,
    kdsvd::Kdsvd,
    ofd::Ofd,
    rkd::Rkd,
    vid::Vid,
    sp::Sp,
    crd::Crd,
    reviewkd::ReviewKd,
}

/// A line of the registry.
pub struct Method {
    /// What runs of the method are filed under, and another name for it: its file's name.
    pub tag: &'static str,
    make: fn() -> Box<dyn Distiller>,
}

impl Method {
    /// The method with the constants of its paper.
    pub fn make(&self) -> Box<dyn Distiller> {
        (self.make)()
    }

    /// The method of that name or other name, in any letter case.
    pub fn find(name: &str) -> Option<&'static Method> {
        METHODS.iter().find(|method| {
            let About { name: known, aliases, .. } = method.make().about();
            [known, method.tag].iter().chain(aliases).any(|known| known.eq_ignore_ascii_case(name))
        })
    }
}

/// A method is chosen by its name.
impl Choice for Box<dyn Distiller> {
    const WHAT: &'static str = "method";
    fn names() -> Vec<&'static str> {
        METHODS.iter().map(|method| method.make().name()).collect()
    }
    fn from_name(name: &str) -> Option<Self> {
        Method::find(name).map(Method::make)
    }
    fn name(&self) -> &'static str {
        (**self).name()
    }
}
