//! The counter-based generator behind dropout: a value is a pure function of
//! (seed, step, stream, index), so it does not depend on the device, the schedule or the threads.

/// Three rounds of a 32-bit finaliser (the "lowbias32" constants of C. Wellons' hash prospector),
/// keyed between rounds. Every device implements exactly this integer arithmetic.
pub fn hash(seed: u32, step: u32, stream: u32, index: u32) -> u32 {
    let mut h = mix(index ^ 0x9e37_79b9);
    h = mix(h.wrapping_add(seed));
    h = mix(h.wrapping_add(step) ^ stream.wrapping_mul(0x85eb_ca6b));
    h
}

/// A uniform value in [0, 1): the top 24 bits of [`hash`], exact in `f32`.
pub fn uniform(seed: u32, step: u32, stream: u32, index: u32) -> f32 {
    (hash(seed, step, stream, index) >> 8) as f32 / 16_777_216.0
}

fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}
