//! Walks over the elements of a block that are not contiguous.

use std::ops::Range;

use crate::program::Walk;

/// Rows of a tiling that a block has, and elements.
#[derive(Clone, Copy)]
pub struct Extent {
    pub rows: usize,
    pub len: usize,
}

/// The load of a view without bounds.
///
/// # Safety
/// All its elements in the block must be valid.
#[inline(always)]
pub unsafe fn gather_rows(
    walk: &Walk,
    index: &[usize],
    extent: Extent,
    base: *const f32,
    stride: i64,
    out: &mut [f32],
) {
    let element = &walk.view;
    let start = base.wrapping_offset(element.at(index) as isize);
    if walk.row_len == 0 {
        // SAFETY: the caller's promise.
        return unsafe { load_row(start, stride, out) };
    }
    let step = element.strides[index.len() - 1] as isize;
    let per_step = walk.rows.len();
    // The choice of a stride is made out here, so that the loops over short rows have none.
    macro_rules! each_row {
        ($row:ident, $out:ident, $body:expr) => {
            if per_step == 1 {
                let mut $row = start.wrapping_offset(walk.rows[0] as isize);
                for $out in out.chunks_exact_mut(walk.row_len) {
                    $body;
                    $row = $row.wrapping_offset(step);
                }
            } else {
                let mut rows = out.chunks_exact_mut(walk.row_len);
                for number in 0..extent.rows {
                    let start = start.wrapping_offset(number as isize * step);
                    for (offset, $out) in walk.rows.iter().zip(&mut rows) {
                        let $row = start.wrapping_offset(*offset as isize);
                        $body;
                    }
                }
            }
        };
    }
    // SAFETY (all): the caller's promise.
    unsafe {
        match stride {
            0 => each_row!(row, out, {
                let value = *row;
                out.iter_mut().for_each(|out| *out = value);
            }),
            1 => each_row!(row, out, {
                let values = std::slice::from_raw_parts(row, out.len());
                out.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
            }),
            _ => each_row!(row, out, {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = *row.wrapping_offset(i as isize * stride as isize);
                }
            }),
        }
    }
}

/// Copies `out.len()` elements, `stride` apart.
///
/// # Safety
/// All of them must be valid.
#[inline(always)]
pub unsafe fn load_row(from: *const f32, stride: i64, out: &mut [f32]) {
    match stride {
        _ if out.is_empty() => {}
        // SAFETY (all three): the caller's promise.
        0 => out.fill(unsafe { *from }),
        1 if out.len() >= 32 => unsafe { from.copy_to(out.as_mut_ptr(), out.len()) },
        _ => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = unsafe { *from.offset(i as isize * stride as isize) };
            }
        }
    }
}

/// Stores a block's values along a view that is not contiguous (and has no bounds).
///
/// # Safety
/// The view's elements must be valid for writing.
pub unsafe fn scatter(walk: &Walk, index: &[usize], extent: Extent, base: *mut f32, values: &[f32]) {
    let strides = &walk.view.strides;
    let stride = strides[strides.len() - 1] as isize;
    walk_rows(walk, index, extent, |start, _, positions| {
        let to = base.wrapping_offset(start as isize);
        let values = &values[positions];
        // SAFETY: the caller's promise.
        unsafe {
            if stride == 1 {
                values.as_ptr().copy_to(to, values.len());
            } else {
                for (i, value) in values.iter().enumerate() {
                    *to.wrapping_offset(i as isize * stride) = *value;
                }
            }
        }
    });
}

/// Calls `row(element of the row's start, positions in the row that are in bounds, positions in the
/// block)` for each row of a block.
#[inline(always)]
pub fn walk_rows(
    walk: &Walk,
    index: &[usize],
    extent: Extent,
    mut row: impl FnMut(i64, Range<usize>, Range<usize>),
) {
    let view = &walk.view;
    let split = index.len() - 1;
    let start = view.at(index);
    if walk.row_len == 0 {
        let valid = valid(walk, index, 0, 0, extent.len);
        return row(start, valid, 0..extent.len);
    }
    let len = walk.row_len;
    let mut position = 0;
    for step in 0..extent.rows {
        let start = start + step as i64 * view.strides[split];
        for (number, offset) in walk.rows.iter().enumerate() {
            let valid = valid(walk, index, step, number, len);
            row(start + offset, valid, position..position + len);
            position += len;
        }
    }
}

/// The positions of a row where all bounds hold.
#[inline(always)]
fn valid(walk: &Walk, index: &[usize], step: usize, row: usize, len: usize) -> Range<usize> {
    let (mut low, mut high) = (0, len as i64);
    for (bound, rows) in walk.view.bounds.iter().zip(&walk.bound_rows) {
        let split = index.len() - 1;
        let value = bound.at(index) + step as i64 * bound.strides[split] + rows[row];
        let (stride, extent) = (bound.strides[bound.strides.len() - 1], bound.extent);
        // 0 <= value + i * stride < extent
        match stride {
            0 if (0..extent).contains(&value) => {}
            0 => high = 0,
            1.. => {
                low = low.max((-value + stride - 1).div_euclid(stride));
                high = high.min((extent - value + stride - 1).div_euclid(stride));
            }
            _ => {
                low = low.max((value - extent).div_euclid(-stride) + 1);
                high = high.min(value.div_euclid(-stride) + 1);
            }
        }
    }
    let low = low.clamp(0, len as i64);
    low as usize..high.clamp(low, len as i64) as usize
}
