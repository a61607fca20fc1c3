//! The transforms of F(4x4, 3x3).
//!
//! The interpolation points are 0, ±5/8, ±3/2 and infinity. With them the error is about twice that
//! of a direct convolution; with the textbook's 0, ±1, ±2 it is over four times. All are exact in
//! binary, as are their squares and products.
//!
//! Each two-dimensional transform is the one-dimensional one down the columns, then along the rows.

use crate::isa::Simd;

/// Rows and columns of a result tile, of an operand tile, and values of an operand tile.
pub const OUT: usize = 4;
pub const IN: usize = 6;
pub const POINTS: usize = IN * IN;

/// The points, their squares, and the coefficients that come of them.
const A: f32 = 0.625;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;
const PRODUCT: f32 = A2 * B2;
const SUM: f32 = A2 + B2;

/// `B' d`, whose rows are the coefficients of the product of (x - q) over all finite points q but
/// the row's own, and of all of them in the last row.
#[inline(always)]
unsafe fn operand_1d<S: Simd>(d: [S::V; IN]) -> [S::V; IN] {
    unsafe {
        let (product, sum) = (S::splat(PRODUCT), S::splat(SUM));
        let (a, b, a2, b2) = (S::splat(A), S::splat(B), S::splat(A2), S::splat(B2));
        let (even_a, odd_a) = (S::fnma(b2, d[2], d[4]), S::fnma(b2, d[1], d[3]));
        let (even_b, odd_b) = (S::fnma(a2, d[2], d[4]), S::fnma(a2, d[1], d[3]));
        [
            S::fma(product, d[0], S::fnma(sum, d[2], d[4])),
            S::fma(a, odd_a, even_a),
            S::fnma(a, odd_a, even_a),
            S::fma(b, odd_b, even_b),
            S::fnma(b, odd_b, even_b),
            S::fma(product, d[1], S::fnma(sum, d[3], d[5])),
        ]
    }
}

/// `A' m`: row i holds the i-th powers of the points.
#[inline(always)]
unsafe fn result_1d<S: Simd>(m: [S::V; IN]) -> [S::V; OUT] {
    unsafe {
        let (sum_a, difference_a) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (sum_b, difference_b) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        let (a, b, a2, b2) = (S::splat(A), S::splat(B), S::splat(A2), S::splat(B2));
        let (a3, b3) = (S::splat(A2 * A), S::splat(B2 * B));
        [
            S::add(m[0], S::add(sum_a, sum_b)),
            S::fma(a, difference_a, S::mul(b, difference_b)),
            S::fma(a2, sum_a, S::mul(b2, sum_b)),
            S::fma(a3, difference_a, S::fma(b3, difference_b, m[5])),
        ]
    }
}

/// `A y`, the transpose of [`result_1d`].
#[inline(always)]
unsafe fn result_adjoint_1d<S: Simd>(y: [S::V; OUT]) -> [S::V; IN] {
    unsafe {
        let (a, b, a2, b2) = (S::splat(A), S::splat(B), S::splat(A2), S::splat(B2));
        let (even_a, odd_a) = (S::fma(a2, y[2], y[0]), S::mul(a, S::fma(a2, y[3], y[1])));
        let (even_b, odd_b) = (S::fma(b2, y[2], y[0]), S::mul(b, S::fma(b2, y[3], y[1])));
        [
            y[0],
            S::add(even_a, odd_a),
            S::sub(even_a, odd_a),
            S::add(even_b, odd_b),
            S::sub(even_b, odd_b),
            y[3],
        ]
    }
}

/// Row of `G` for a point p is (1, p, p²) over the product of (p - q) over the other finite points.
const ZERO_SCALE: f32 = 1.0 / PRODUCT;
const A_SCALE: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
const B_SCALE: f32 = 1.0 / (2.0 * B2 * (B2 - A2));

/// `G g`
#[inline(always)]
unsafe fn weights_1d<S: Simd>(g: [S::V; 3]) -> [S::V; IN] {
    unsafe {
        let (sa, sb) = (S::splat(A_SCALE), S::splat(B_SCALE));
        let even_a = S::mul(sa, S::fma(S::splat(A2), g[2], g[0]));
        let even_b = S::mul(sb, S::fma(S::splat(B2), g[2], g[0]));
        let odd_a = S::mul(S::splat(A * A_SCALE), g[1]);
        let odd_b = S::mul(S::splat(B * B_SCALE), g[1]);
        [
            S::mul(S::splat(ZERO_SCALE), g[0]),
            S::add(even_a, odd_a),
            S::sub(even_a, odd_a),
            S::add(even_b, odd_b),
            S::sub(even_b, odd_b),
            g[2],
        ]
    }
}

/// `G' u`, the transpose of [`weights_1d`].
#[inline(always)]
unsafe fn weights_adjoint_1d<S: Simd>(u: [S::V; IN]) -> [S::V; 3] {
    unsafe {
        let sum_a = S::mul(S::splat(A_SCALE), S::add(u[1], u[2]));
        let sum_b = S::mul(S::splat(B_SCALE), S::add(u[3], u[4]));
        let difference_a = S::mul(S::splat(A * A_SCALE), S::sub(u[1], u[2]));
        let difference_b = S::mul(S::splat(B * B_SCALE), S::sub(u[3], u[4]));
        [
            S::fma(S::splat(ZERO_SCALE), u[0], S::add(sum_a, sum_b)),
            S::add(difference_a, difference_b),
            S::fma(S::splat(A2), sum_a, S::fma(S::splat(B2), sum_b, u[5])),
        ]
    }
}

/// `G g G'` of one vector of channels; the nine taps are `pitch` floats apart.
#[inline(always)]
pub unsafe fn weights<S: Simd>(taps: *const f32, pitch: usize) -> [S::V; POINTS] {
    unsafe {
        let zero = S::splat(0.0);
        let mut half = [[zero; 3]; IN];
        for j in 0..3 {
            let mut column = [zero; 3];
            for i in 0..3 {
                column[i] = S::load(taps.add((i * 3 + j) * pitch));
            }
            let column = weights_1d::<S>(column);
            for i in 0..IN {
                half[i][j] = column[i];
            }
        }
        let mut all = [zero; POINTS];
        for i in 0..IN {
            let row = weights_1d::<S>(half[i]);
            all[i * IN..(i + 1) * IN].copy_from_slice(&row);
        }
        all
    }
}

/// `G' u G` of one vector of channels: the nine taps.
#[inline(always)]
pub unsafe fn weights_adjoint<S: Simd>(u: [S::V; POINTS]) -> [S::V; 9] {
    unsafe {
        let zero = S::splat(0.0);
        let mut half = [[zero; IN]; 3];
        for j in 0..IN {
            let mut column = [zero; IN];
            for i in 0..IN {
                column[i] = u[i * IN + j];
            }
            let column = weights_adjoint_1d::<S>(column);
            for i in 0..3 {
                half[i][j] = column[i];
            }
        }
        let mut all = [zero; 9];
        for i in 0..3 {
            let row = weights_adjoint_1d::<S>(half[i]);
            all[i * 3..(i + 1) * 3].copy_from_slice(&row);
        }
        all
    }
}

/// A row of operand tiles to transform.
pub struct Operand<'a> {
    /// Image rows from `first_row`, at least those that the tiles cover inside the image.
    pub rows: &'a [f32],
    pub first_row: usize,
    /// Rows, columns and channels of the whole image.
    pub dims: [usize; 3],
    pub pad: [usize; 2],
    /// At least `IN * channels` zeros.
    pub zero: &'a [f32],
    pub tile_row: usize,
    /// Tiles across.
    pub tiles: usize,
}

/// `B' d B` for every tile of a row and every vector of channels. Value `k` of tile `t`, channel `c`
/// goes to `out[k * plane + t * pitch + c]`.
///
/// # Safety
/// All those places must exist, and the channels be whole vectors.
#[inline(always)]
pub unsafe fn operand_row<S: Simd>(x: &Operand, out: *mut f32, plane: usize, pitch: usize) {
    let [height, width, channels] = x.dims;
    // Rows outside of the image are read from the zeros. Each row's pointer is where the tile's
    // first column would be, which may lie before the row; such columns are not read.
    let mut rows = [x.zero.as_ptr(); IN];
    let mut inside = [false; IN];
    for i in 0..IN {
        let y = (x.tile_row * OUT + i).wrapping_sub(x.pad[0]);
        if y < height {
            rows[i] = x.rows.as_ptr().wrapping_add((y - x.first_row) * width * channels);
            inside[i] = true;
        }
    }
    for tile in 0..x.tiles {
        let first = (tile * OUT) as isize - x.pad[1] as isize;
        let mut start = rows;
        for i in 0..IN {
            if inside[i] {
                start[i] = rows[i].wrapping_offset(first * channels as isize);
            }
        }
        let interior = first >= 0 && first as usize + IN <= width;
        let out = out.wrapping_add(tile * pitch);
        for channel in (0..channels).step_by(S::LANES) {
            unsafe {
                let out = out.add(channel);
                if interior {
                    operand_tile::<S, true>(start, channel, channels, first, width, out, plane);
                } else {
                    operand_tile::<S, false>(start, channel, channels, first, width, out, plane);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn operand_tile<S: Simd, const INTERIOR: bool>(
    start: [*const f32; IN],
    channel: usize,
    channels: usize,
    first: isize,
    width: usize,
    out: *mut f32,
    plane: usize,
) {
    unsafe {
        let zero = S::splat(0.0);
        let mut half = [[zero; IN]; IN];
        for j in 0..IN {
            if INTERIOR || ((first + j as isize) as usize) < width {
                let mut column = [zero; IN];
                for i in 0..IN {
                    column[i] = S::load(start[i].wrapping_add(j * channels + channel));
                }
                let column = operand_1d::<S>(column);
                for i in 0..IN {
                    half[i][j] = column[i];
                }
            }
        }
        for i in 0..IN {
            let row = operand_1d::<S>(half[i]);
            for j in 0..IN {
                S::store(out.add((i * IN + j) * plane), row[j]);
            }
        }
    }
}

/// `A' m A`, the 16 values of a result tile; the 36 are `plane` floats apart.
#[inline(always)]
pub unsafe fn result<S: Simd>(m: *const f32, plane: usize) -> [S::V; OUT * OUT] {
    unsafe {
        let zero = S::splat(0.0);
        let mut half = [[zero; IN]; OUT];
        for j in 0..IN {
            let mut column = [zero; IN];
            for i in 0..IN {
                column[i] = S::load(m.add((i * IN + j) * plane));
            }
            let column = result_1d::<S>(column);
            for i in 0..OUT {
                half[i][j] = column[i];
            }
        }
        let mut all = [zero; OUT * OUT];
        for i in 0..OUT {
            let row = result_1d::<S>(half[i]);
            all[i * OUT..(i + 1) * OUT].copy_from_slice(&row);
        }
        all
    }
}

/// `A y A'` of one result tile's gradient: 36 values. Row `i`, column `j` of the tile is at
/// `y + i * row + j * column`; unless `FULL`, those from `rows` and `cols` on are outside of the
/// image, and zero.
#[inline(always)]
pub unsafe fn result_adjoint<S: Simd, const FULL: bool>(
    y: *const f32,
    row: usize,
    column: usize,
    rows: usize,
    cols: usize,
    out: *mut f32,
    plane: usize,
) {
    unsafe {
        let zero = S::splat(0.0);
        let mut half = [[zero; OUT]; IN];
        for j in 0..OUT {
            if !FULL && j >= cols {
                continue;
            }
            let mut values = [zero; OUT];
            for i in 0..OUT {
                if FULL || i < rows {
                    values[i] = S::load(y.add(i * row + j * column));
                }
            }
            let values = result_adjoint_1d::<S>(values);
            for i in 0..IN {
                half[i][j] = values[i];
            }
        }
        for i in 0..IN {
            let values = result_adjoint_1d::<S>(half[i]);
            for j in 0..IN {
                S::store(out.add((i * IN + j) * plane), values[j]);
            }
        }
    }
}
