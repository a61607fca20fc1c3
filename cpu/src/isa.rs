//! Vector instruction sets, chosen at run time.
//!
//! A hot loop is written once, as an `#[inline(always)]` function over slices, and compiled once for
//! each instruction set by [`multiversion`]; the compiler's own vectoriser does the rest.

/// What the processor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub enum Isa {
    /// What every processor of this architecture has: SSE2 on x86-64, NEON on aarch64.
    Baseline,
    /// 8 floats a register (x86-64).
    Avx2,
    /// 16 floats a register (x86-64).
    Avx512,
}

impl Isa {
    /// The best that this processor offers.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                return Isa::Avx512;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Baseline
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Baseline if cfg!(target_arch = "aarch64") => "NEON",
            Isa::Baseline if cfg!(target_arch = "x86_64") => "SSE2",
            Isa::Baseline => "scalar",
            Isa::Avx2 => "AVX2",
            Isa::Avx512 => "AVX-512",
        }
    }

    /// Every instruction set that this machine can run, for tests.
    #[cfg(test)]
    pub fn available() -> Vec<Isa> {
        match Isa::detect() {
            Isa::Baseline => vec![Isa::Baseline],
            Isa::Avx2 => vec![Isa::Baseline, Isa::Avx2],
            Isa::Avx512 => vec![Isa::Baseline, Isa::Avx2, Isa::Avx512],
        }
    }
}

/// `multiversion!(fn name = generic(arguments) -> result)` makes `name(isa, arguments)`: the
/// `#[inline(always)]` function `generic`, compiled for every instruction set.
///
/// The `isa` given must come from [`Isa::detect`] (or be a smaller one): that is what makes the calls sound.
macro_rules! multiversion {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident = $generic:ident
        ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::isa::Isa, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    $generic($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    $generic($($argument),*)
                }
                // SAFETY: `isa` names what this processor was found to have.
                match isa {
                    $crate::isa::Isa::Baseline => {}
                    $crate::isa::Isa::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::isa::Isa::Avx512 => return unsafe { avx512($($argument),*) },
                }
            }
            let _ = isa;
            $generic($($argument),*)
        }
    };
}
pub(crate) use multiversion;
