//! Vectors of f32 on each instruction set, and how a kernel written once is compiled for all.
//!
//! A kernel is a value that implements [`Kernel`] with a body generic over [`Simd`]. [`Isa::run`]
//! calls that body inside a function compiled for the instruction set, into which everything marked
//! `#[inline(always)]` is inlined; closures are not, so kernels use plain loops and functions.

use super::product::MicroKernels;

/// An instruction set with a vector unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// 16 lanes, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 lanes, 16 registers, fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 4 lanes, 32 registers, fused multiply-add.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// 4 lanes, whatever the compiler makes of them.
    Portable,
}

impl Isa {
    /// What this machine has, widest first.
    pub fn available() -> Vec<Isa> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                all.push(Isa::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Isa::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            all.push(Isa::Neon);
        }
        all.push(Isa::Portable);
        all
    }

    /// The widest that this machine has.
    pub fn best() -> Isa {
        static BEST: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Isa::available()[0])
    }

    /// Floats in a vector.
    pub fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => 16,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => 8,
            _ => 4,
        }
    }

    /// Runs a kernel compiled for this instruction set.
    ///
    /// # Safety
    /// It must be one of [`Isa::available`], and what the kernel itself asks for must hold.
    pub(super) unsafe fn run<K: Kernel>(self, kernel: K) {
        // SAFETY: passed on from the caller.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => run_avx512(kernel),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => run_avx2(kernel),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => run_neon(kernel),
                Isa::Portable => kernel.run::<Portable>(),
            }
        }
    }
}

/// A computation written for any vector width. `run` has to be `#[inline(always)]`.
pub(super) trait Kernel {
    /// # Safety
    /// The instruction set of `S` must be there; kernels add their own conditions.
    unsafe fn run<S: Simd>(self);
}

/// Vectors of one instruction set.
///
/// # Safety
/// Every function needs the instruction set; loads and stores need `LANES` floats at the pointer,
/// of any alignment.
pub(super) trait Simd: Copy {
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

#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    const MICRO_KERNELS: MicroKernels = micro_kernels!(1, scalar, 0, 1);

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: four floats by the trait's contract; an array of f32 is aligned as f32.
        unsafe { from.cast::<[f32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [f32; 4]) {
        // SAFETY: as above.
        unsafe { to.cast::<[f32; 4]>().write(v) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]]
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]]
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // Not `mul_add`: without the instruction that is a library call.
        unsafe { Self::add(Self::mul(a, b), c) }
    }
    #[inline(always)]
    unsafe fn fnma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        unsafe { Self::sub(c, Self::mul(a, b)) }
    }
}

/// Implements [`Simd`] by intrinsics, and the function that kernels are compiled in.
macro_rules! instruction_set {
    ($name:ident, $run:ident, $features:literal, $arch:ident, $v:ident, $lanes:literal,
     $micro:ident [$($vectors:literal),+], $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident,
     $mul:ident, |$a:ident, $b:ident, $c:ident| $fma:expr, $fnma:expr) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        #[target_feature(enable = $features)]
        unsafe fn $run<K: Kernel>(kernel: K) {
            // SAFETY: the features are enabled here; the rest is the caller's.
            unsafe { kernel.run::<$name>() }
        }

        // SAFETY, for all of it: the trait's contract is that of the intrinsics.
        impl Simd for $name {
            type V = std::arch::$arch::$v;
            const LANES: usize = $lanes;
            const MICRO_KERNELS: MicroKernels = micro_kernels!($lanes, $micro, $($vectors),+);

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self::V {
                unsafe { std::arch::$arch::$splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self::V {
                unsafe { std::arch::$arch::$load(from) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, v: Self::V) {
                unsafe { std::arch::$arch::$store(to, v) }
            }
            #[inline(always)]
            unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
                unsafe { std::arch::$arch::$add(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
                unsafe { std::arch::$arch::$sub(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
                unsafe { std::arch::$arch::$mul(a, b) }
            }
            #[inline(always)]
            unsafe fn fma($a: Self::V, $b: Self::V, $c: Self::V) -> Self::V {
                use std::arch::$arch::*;
                unsafe { $fma }
            }
            #[inline(always)]
            unsafe fn fnma($a: Self::V, $b: Self::V, $c: Self::V) -> Self::V {
                use std::arch::$arch::*;
                unsafe { $fnma }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instruction_set!(
    Avx512,
    run_avx512,
    "avx512f",
    x86_64,
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
    x86_64,
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
    aarch64,
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
