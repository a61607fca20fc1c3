//! The two register-tiled loops that all fast convolutions are made of.
//!
//! Both keep a tile of accumulators in registers, `rows x vectors`, and do one multiply-add for
//! every pair of a broadcast scalar and a vector. They differ in what is summed over.

use super::simd::Simd;

/// A run of `len` consecutive floats of the operand, `offset` floats after a pixel's start, that
/// meets the next `len` rows of the packed weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub offset: usize,
    pub len: usize,
}

/// Sums over input channels and taps, for `P` pixels by `CV` vectors of output channels.
///
/// Pixel `p` starts at `x + p * pitch`; `PITCH` is that pitch where it is known at compile time (so
/// that all addresses are one register and a constant), or 0. The weights are rows of `CV` vectors,
/// one for each float of the segments in order. Pixel `p` is stored at `out + p * out_pitch`.
#[inline(always)]
pub(super) unsafe fn pixels_by_channels<S: Simd, const P: usize, const CV: usize, const PITCH: usize>(
    x: *const f32,
    pitch: usize,
    segments: &[Segment],
    weights: *const f32,
    out: *mut f32,
    out_pitch: usize,
) {
    unsafe {
        let pitch = if PITCH > 0 { PITCH } else { pitch };
        let mut sums = [[S::splat(0.0); CV]; P];
        let mut w = weights;
        for segment in segments {
            let mut x = x.wrapping_add(segment.offset);
            for _ in 0..segment.len {
                let mut row = [S::splat(0.0); CV];
                for v in 0..CV {
                    row[v] = S::load(w.add(v * S::LANES));
                }
                for p in 0..P {
                    let value = S::splat(*x.add(p * pitch));
                    for v in 0..CV {
                        sums[p][v] = S::fma(value, row[v], sums[p][v]);
                    }
                }
                w = w.add(CV * S::LANES);
                x = x.wrapping_add(1);
            }
        }
        for p in 0..P {
            for v in 0..CV {
                S::store(out.add(p * out_pitch + v * S::LANES), sums[p][v]);
            }
        }
    }
}

/// [`pixels_by_channels`] for any number of pixels: as many of `P` at a time as there are, the rest
/// by fours and ones.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn run_of_pixels<S: Simd, const P: usize, const CV: usize, const PITCH: usize>(
    count: usize,
    x: *const f32,
    pitch: usize,
    segments: &[Segment],
    weights: *const f32,
    out: *mut f32,
    out_pitch: usize,
) {
    unsafe {
        let pitch = if PITCH > 0 { PITCH } else { pitch };
        let mut at = 0;
        while at + P <= count {
            pixels_by_channels::<S, P, CV, PITCH>(
                x.wrapping_add(at * pitch),
                pitch,
                segments,
                weights,
                out.add(at * out_pitch),
                out_pitch,
            );
            at += P;
        }
        while at + 4 <= count {
            pixels_by_channels::<S, 4, CV, PITCH>(
                x.wrapping_add(at * pitch),
                pitch,
                segments,
                weights,
                out.add(at * out_pitch),
                out_pitch,
            );
            at += 4;
        }
        while at < count {
            pixels_by_channels::<S, 1, CV, PITCH>(
                x.wrapping_add(at * pitch),
                pitch,
                segments,
                weights,
                out.add(at * out_pitch),
                out_pitch,
            );
            at += 1;
        }
    }
}

/// The pixels that [`channels_by_channels`] sums over: `rows` times `cols` of each operand, with
/// the distances between rows and between neighbours in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub rows: usize,
    pub cols: usize,
    pub x_row: usize,
    pub x_pitch: usize,
    pub y_row: usize,
    pub y_pitch: usize,
}

/// Sums over pixels, for `CI` input channels by `CV` vectors of output channels: adds the outer
/// products of `x` and `y` to `out`, whose rows (one for each input channel) are `out_pitch` apart.
#[inline(always)]
pub(super) unsafe fn channels_by_channels<S: Simd, const CI: usize, const CV: usize>(
    x: *const f32,
    y: *const f32,
    grid: Grid,
    out: *mut f32,
    out_pitch: usize,
) {
    unsafe {
        let mut sums = [[S::splat(0.0); CV]; CI];
        for row in 0..grid.rows {
            let mut x = x.add(row * grid.x_row);
            let mut y = y.add(row * grid.y_row);
            for _ in 0..grid.cols {
                let mut values = [S::splat(0.0); CV];
                for v in 0..CV {
                    values[v] = S::load(y.add(v * S::LANES));
                }
                for i in 0..CI {
                    let value = S::splat(*x.add(i));
                    for v in 0..CV {
                        sums[i][v] = S::fma(value, values[v], sums[i][v]);
                    }
                }
                x = x.wrapping_add(grid.x_pitch);
                y = y.wrapping_add(grid.y_pitch);
            }
        }
        for i in 0..CI {
            for v in 0..CV {
                let to = out.add(i * out_pitch + v * S::LANES);
                S::store(to, S::add(S::load(to), sums[i][v]));
            }
        }
    }
}
