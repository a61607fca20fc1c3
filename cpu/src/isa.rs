//! Vector instruction sets, chosen at run time, and how code written once is compiled for each.
//!
//! There are two ways to write such code. A value that implements [`WithSimd`] is generic over the
//! vectors of [`Simd`]. A function over slices of plain loops becomes one that takes an [`Isa`] by
//! [`multiversion`], and the compiler's own vectoriser does the rest. Both end in [`Isa::run`], which
//! calls them inside a function compiled for the instruction set. Only what is marked
//! `#[inline(always)]` is sure to be compiled with it, and closures cannot be: hence plain loops and
//! functions.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// An instruction set with a vector unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// What every processor of the architecture has, in the compiler's hands; vectors of 4 lanes.
    Portable,
    /// 4 lanes, 32 registers, fused multiply-add (aarch64).
    Neon,
    /// 8 lanes, 16 registers, fused multiply-add (x86-64).
    Avx2,
    /// 16 lanes, 32 registers (x86-64).
    Avx512,
}

impl Isa {
    /// What this machine has, widest first.
    pub fn available() -> &'static [Isa] {
        static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            let all = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];
            all.into_iter().filter(|isa| isa.is_available()).collect()
        })
    }

    fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            _ => false,
        }
    }

    /// The widest that this machine has.
    pub fn best() -> Isa {
        Isa::available()[0]
    }

    /// Floats in a vector.
    pub fn lanes(self) -> usize {
        match self {
            Isa::Avx512 => 16,
            Isa::Avx2 => 8,
            Isa::Neon | Isa::Portable => 4,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable if cfg!(target_arch = "x86_64") => "SSE2",
            Isa::Portable => "scalar",
            Isa::Neon => "NEON",
            Isa::Avx2 => "AVX2",
            Isa::Avx512 => "AVX-512",
        }
    }

    /// Does work compiled for this instruction set.
    ///
    /// # Safety
    /// It must be one of [`Isa::available`], and what the work itself asks for must hold.
    #[inline]
    pub(crate) unsafe fn run<W: WithSimd>(self, work: W) -> W::Output {
        // SAFETY: passed on from the caller.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => run_avx512(work),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => run_avx2(work),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => run_neon(work),
                _ => work.run::<Portable>(),
            }
        }
    }
}

/// `multiversion!(fn name = generic(arguments) -> result)` makes `name(isa, arguments)`: the
/// `#[inline(always)]` function `generic`, compiled for every instruction set.
///
/// The `isa` given must be one of [`Isa::available`]: that is what makes the calls sound.
macro_rules! multiversion {
    (fn $name:ident = $generic:ident $arguments:tt) => {
        $crate::isa::multiversion!(fn $name = $generic $arguments -> ());
    };
    (fn $name:ident = $generic:ident ($($argument:ident: $type:ty),* $(,)?) -> $result:ty) => {
        #[allow(clippy::too_many_arguments)]
        fn $name(isa: $crate::isa::Isa, $($argument: $type),*) -> $result {
            struct Call<T>(T);
            impl $crate::isa::WithSimd for Call<($($type,)*)> {
                type Output = $result;
                #[inline(always)]
                unsafe fn run<S: $crate::isa::Simd>(self) -> Self::Output {
                    let ($($argument,)*) = self.0;
                    $generic($($argument),*)
                }
            }
            // SAFETY: the machine has this instruction set, and the function is a safe one.
            unsafe { isa.run(Call(($($argument,)*))) }
        }
    };
}
pub(crate) use multiversion;

/// A computation written for any vector width. `run` has to be `#[inline(always)]`.
pub(crate) trait WithSimd {
    type Output;

    /// # Safety
    /// The instruction set of `S` must be there; implementations add their own conditions.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// A micro-kernel for a small matrix product: see `gemm_common::microkernel::MicroKernelFn`, of which
/// this is the f32 kind. That crate counts columns first: its `m` are the floats of our rows, its `n`
/// our rows.
pub(crate) type MicroKernel = unsafe fn(
    m: usize,
    n: usize,
    k: usize,
    dst: *mut f32,
    lhs: *const f32,
    rhs: *const f32,
    dst_cs: isize,
    dst_rs: isize,
    lhs_cs: isize,
    rhs_rs: isize,
    rhs_cs: isize,
    alpha: f32,
    beta: f32,
    alpha_status: u8,
    conj_dst: bool,
    conj_lhs: bool,
    conj_rhs: bool,
    next_lhs: *const f32,
);

/// The micro-kernels of an instruction set.
pub(crate) struct MicroKernels {
    /// Floats in their vectors.
    pub lanes: usize,
    /// By the vectors of a row, and by rows, each less one.
    pub tiles: &'static [&'static [MicroKernel]],
}

/// Vectors of one instruction set.
///
/// # Safety
/// Every function needs the instruction set; loads and stores need `LANES` floats at the pointer,
/// of any alignment.
pub(crate) trait Simd: Copy {
    /// A vector.
    type V: Copy;
    /// Floats in a vector.
    const LANES: usize;
    /// The micro-kernels for matrix products.
    const MICRO_KERNELS: MicroKernels;
    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// The `gemm` crate's micro-kernels in one of its modules.
macro_rules! micro_kernels {
    ($lanes:literal, $module:ident, $($vectors:literal),+) => {
        MicroKernels { lanes: $lanes, tiles: &[$(&gemm_f32::microkernel::$module::f32::UKR[$vectors]),+] }
    };
}

/// Unsafe functions that are always inlined.
macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),+) $(-> $result:ty)? = $body:expr;)+) => {
        $(
            #[inline(always)]
            unsafe fn $name($($argument: $type),+) $(-> $result)? {
                #[allow(unused_unsafe)]
                // SAFETY: the trait's contract is that of the body.
                unsafe { $body }
            }
        )+
    };
}

#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    const MICRO_KERNELS: MicroKernels = micro_kernels!(1, scalar, 0, 1);

    functions! {
        splat(value: f32) -> [f32; 4] = [value; 4];
        load(from: *const f32) -> [f32; 4] = from.cast::<[f32; 4]>().read();
        store(to: *mut f32, v: [f32; 4]) = to.cast::<[f32; 4]>().write(v);
        add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] = [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];
        sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] = [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]];
        mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] = [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]];
        // Not `mul_add`: without the instruction that is a library call.
        fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] = Self::add(Self::mul(a, b), c);
        fnma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] = Self::sub(c, Self::mul(a, b));
    }
}

/// Implements [`Simd`] by intrinsics, and the function that work is compiled in.
#[allow(unused_macros)] // where there is only the portable code
macro_rules! instruction_set {
    ($name:ident, $run:ident, $features:literal, $v:ident, $lanes:literal,
     $micro:ident [$($vectors:literal),+], $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident,
     $mul:ident, |$a:ident, $b:ident, $c:ident| $fma:expr, $fnma:expr) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        #[target_feature(enable = $features)]
        unsafe fn $run<W: WithSimd>(work: W) -> W::Output {
            // SAFETY: the features are enabled here; the rest is the caller's.
            unsafe { work.run::<$name>() }
        }

        impl Simd for $name {
            type V = $v;
            const LANES: usize = $lanes;
            const MICRO_KERNELS: MicroKernels = micro_kernels!($lanes, $micro, $($vectors),+);

            functions! {
                splat(value: f32) -> $v = $splat(value);
                load(from: *const f32) -> $v = $load(from);
                store(to: *mut f32, v: $v) = $store(to, v);
                add(a: $v, b: $v) -> $v = $add(a, b);
                sub(a: $v, b: $v) -> $v = $sub(a, b);
                mul(a: $v, b: $v) -> $v = $mul(a, b);
                fma($a: $v, $b: $v, $c: $v) -> $v = $fma;
                fnma($a: $v, $b: $v, $c: $v) -> $v = $fnma;
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instruction_set!(
    Avx512,
    run_avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    __m512,
    16,
    avx512f[0, 1, 2, 3],
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    |a, b, c| _mm512_fmadd_ps(a, b, c),
    _mm512_fnmadd_ps(a, b, c)
);

#[cfg(target_arch = "x86_64")]
instruction_set!(
    Avx2,
    run_avx2,
    "avx2,fma",
    __m256,
    8,
    fma[0, 1],
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    |a, b, c| _mm256_fmadd_ps(a, b, c),
    _mm256_fnmadd_ps(a, b, c)
);

#[cfg(target_arch = "aarch64")]
instruction_set!(
    Neon,
    run_neon,
    "neon",
    float32x4_t,
    4,
    neon[0, 1, 2, 3],
    vdupq_n_f32,
    vld1q_f32,
    vst1q_f32,
    vaddq_f32,
    vsubq_f32,
    vmulq_f32,
    |a, b, c| vfmaq_f32(c, a, b),
    vfmsq_f32(c, a, b)
);
