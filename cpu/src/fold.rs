//! The folds of a reduction: of rows of contiguous values, and of columns side by side.
//!
//! Long sums are accumulated in `f64`; the order depends on shapes alone.

use std::ops::AddAssign;

use schedule::ReduceKind;

use crate::isa::{Isa, multiversion};
use crate::memory::{SharedSlice, lines};

/// Values side by side in the vector loops.
const LANES: usize = 16;

/// What a fold knows of the values so far; a column's state is one entry of two arrays.
///
/// | kind | first | second |
/// |---|---|---|
/// | sum | sum | – |
/// | maximum | largest | – |
/// | variance | mean | sum of squared deviations from it |
/// | argmax | largest | its position |
pub struct Columns<'a> {
    pub first: &'a mut [f64],
    pub second: &'a mut [f64],
}

/// Floats that `count` states of `width` columns take in an area.
pub fn states_len(count: usize, width: usize) -> usize {
    lines(count * 4 * width)
}

impl<'a> Columns<'a> {
    /// The state number `number` of those that begin at float `start` of an area.
    ///
    /// # Safety
    /// No two users of one state at a time.
    pub unsafe fn in_area(area: SharedSlice<'a>, start: usize, number: usize, width: usize) -> Columns<'a> {
        let first = start + number * 4 * width;
        // SAFETY: the caller's promise; areas and what begins in them are aligned.
        let (first, second) = unsafe { area.range(first..first + 4 * width) }.split_at_mut(2 * width);
        let doubles = |floats: &'a mut [f32]| {
            // SAFETY: as above; any bits are an f64.
            unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast::<f64>(), width) }
        };
        Columns { first: doubles(first), second: doubles(second) }
    }

    /// The state of no values.
    pub fn reset(&mut self, kind: ReduceKind) {
        self.first.fill(match kind {
            ReduceKind::Sum | ReduceKind::Variance => 0.0,
            ReduceKind::Max | ReduceKind::ArgMax => f64::NEG_INFINITY,
        });
        self.second.fill(0.0);
    }

    /// Folds `values` (rows of one value a column) after `count` rows that are already in; `position`
    /// is the number of the first row.
    pub fn add(&mut self, isa: Isa, kind: ReduceKind, values: &[f32], count: usize, position: usize) {
        let width = self.first.len();
        if width == 1 {
            let (first, second) = row(isa, kind, values);
            let second = if kind == ReduceKind::ArgMax { second + position as f64 } else { second };
            let other = Columns { first: &mut [first], second: &mut [second] };
            return self.merge(isa, kind, &other, count, values.len());
        }
        match kind {
            ReduceKind::Sum => sum_columns(isa, self.first, values),
            ReduceKind::Max => max_columns(isa, self.first, values),
            ReduceKind::Variance => moment_columns(isa, self.first, self.second, values, count),
            ReduceKind::ArgMax => argmax_columns(isa, self.first, self.second, values, position),
        }
    }

    /// Folds `values` that start at element `at` of rows of one value a column; the state began at row
    /// `first`. Values are whole rows, or part of one.
    pub fn add_at(&mut self, isa: Isa, kind: ReduceKind, values: &[f32], at: usize, first: usize) {
        let width = self.first.len();
        let (row, column) = (at / width, at % width);
        if column == 0 && values.len() >= width {
            return self.add(isa, kind, values, row - first, row);
        }
        let columns = column..column + values.len();
        let mut part = Columns { first: &mut self.first[columns.clone()], second: &mut self.second[columns] };
        part.add(isa, kind, values, row - first, row);
    }

    /// Takes in the state of the `added` rows that follow this state's `count`.
    pub fn merge(&mut self, isa: Isa, kind: ReduceKind, other: &Columns, count: usize, added: usize) {
        merge(isa, kind, self, other, count, added);
    }

    /// The results, of `count` rows.
    pub fn finish(&self, kind: ReduceKind, count: usize, out: &mut [f32]) {
        for ((out, &first), &second) in out.iter_mut().zip(&*self.first).zip(&*self.second) {
            *out = finish(kind, (first, second), count);
        }
    }
}

/// The result of one state.
pub fn finish(kind: ReduceKind, (first, second): (f64, f64), count: usize) -> f32 {
    match kind {
        ReduceKind::Sum | ReduceKind::Max => first as f32,
        ReduceKind::Variance => (second / count as f64) as f32,
        ReduceKind::ArgMax => second as f32,
    }
}

/// The state of one row of values; positions count from its start.
pub fn row(isa: Isa, kind: ReduceKind, values: &[f32]) -> (f64, f64) {
    match kind {
        ReduceKind::Sum => (sum(isa, values), 0.0),
        ReduceKind::Max => (max(isa, values) as f64, 0.0),
        ReduceKind::Variance => moments(isa, values),
        ReduceKind::ArgMax => {
            let largest = max(isa, values);
            let found = |v: &f32| *v == largest || (v.is_nan() && largest.is_nan());
            (largest as f64, values.iter().position(found).unwrap_or(0) as f64)
        }
    }
}

#[inline(always)]
fn merge_generic(kind: ReduceKind, into: &mut Columns, from: &Columns, count: usize, added: usize) {
    let own = into.first.iter_mut().zip(into.second.iter_mut());
    let pairs = own.zip(from.first.iter().zip(&*from.second));
    match kind {
        ReduceKind::Sum => pairs.for_each(|((first, _), (&value, _))| *first += value),
        ReduceKind::Max => pairs.for_each(|((first, _), (&value, _))| *first = larger(*first, value)),
        ReduceKind::Variance if added == 0 => {}
        ReduceKind::Variance => {
            let chan = Chan::new(count as f64, added as f64);
            pairs.for_each(|((mean, squares), (&other, &others))| chan.update(mean, squares, other, others));
        }
        ReduceKind::ArgMax => pairs.for_each(|((largest, position), (&value, &at))| {
            let better = beats(value, *largest);
            *largest = if better { value } else { *largest };
            *position = if better { at } else { *position };
        }),
    }
}

/// Chan, Golub and LeVeque's pairwise update (1979) of a mean and a sum of squared deviations.
#[derive(Clone, Copy)]
struct Chan {
    share: f64,
    weight: f64,
}

impl Chan {
    /// For `added` values that join `count` others.
    #[inline(always)]
    fn new(count: f64, added: f64) -> Chan {
        let share = added / (count + added);
        Chan { share, weight: count * share }
    }

    #[inline(always)]
    fn update(self, mean: &mut f64, squares: &mut f64, other: f64, others: f64) {
        let delta = other - *mean;
        *mean += delta * self.share;
        *squares += others + delta * delta * self.weight;
    }
}

/// Whether a later value displaces the largest so far: NaN displaces numbers, nothing displaces NaN.
#[inline(always)]
fn beats(value: f64, best: f64) -> bool {
    !best.is_nan() && (value > best || value.is_nan())
}

#[inline(always)]
fn larger(a: f64, b: f64) -> f64 {
    if beats(b, a) { b } else { a }
}

multiversion!(fn merge = merge_generic(
    kind: ReduceKind, into: &mut Columns<'_>, from: &Columns<'_>, count: usize, added: usize));
multiversion!(fn sum = sum_generic(values: &[f32]) -> f64);
multiversion!(fn max = max_generic(values: &[f32]) -> f32);
multiversion!(fn moments = moments_generic(values: &[f32]) -> (f64, f64));
multiversion!(fn sum_columns = sum_columns_generic(state: &mut [f64], values: &[f32]));
multiversion!(fn max_columns = max_columns_generic(state: &mut [f64], values: &[f32]));
multiversion!(fn moment_columns = moment_columns_generic(
    means: &mut [f64], squares: &mut [f64], values: &[f32], count: usize));
multiversion!(fn argmax_columns = argmax_columns_generic(
    largest: &mut [f64], positions: &mut [f64], values: &[f32], position: usize));

#[inline(always)]
fn sum_of(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += f(chunk[lane] as f64);
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        lanes[lane] += f(value as f64);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

#[inline(always)]
fn sum_generic(values: &[f32]) -> f64 {
    sum_of(values, |v| v)
}

#[inline(always)]
fn moments_generic(values: &[f32]) -> (f64, f64) {
    let mean = sum_of(values, |v| v) / values.len() as f64;
    (mean, sum_of(values, |v| (v - mean) * (v - mean)))
}

#[inline(always)]
fn max_generic(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut nan = [0u32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
            nan[lane] |= chunk[lane].is_nan() as u32;
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        lanes[lane] = larger(lanes[lane], value);
        nan[lane] |= value.is_nan() as u32;
    }
    if nan.iter().any(|&n| n != 0) {
        return f32::NAN;
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// Rows of which sums are kept in registers, before they meet those of other rows in memory.
const GROUP: usize = 32;
/// Sums that the processor can work on at once: in `f32`, where no sum has more than 8 terms before it meets the
/// others, and in `f64`.
const STREAMS: usize = 4;
const WIDE_STREAMS: usize = 2;

/// LANES values from `at` on.
#[inline(always)]
fn lanes<T: Copy>(values: &[T], at: usize) -> [T; LANES] {
    let mut out = [values[at]; LANES];
    out.copy_from_slice(&values[at..at + LANES]);
    out
}

/// For LANES columns from `column` on of rows of `width` values: the sum of `f(value, lane)`.
#[inline(always)]
fn sum_lanes<T: Copy + Default + AddAssign, const STREAMS: usize>(
    values: &[f32],
    width: usize,
    column: usize,
    f: impl Fn(f32, usize) -> T,
) -> [T; LANES] {
    let mut sums = [[T::default(); LANES]; STREAMS];
    let rows = values.len() / width;
    let full = rows / STREAMS * STREAMS;
    for first in (0..full).step_by(STREAMS) {
        for stream in 0..STREAMS {
            let row = lanes(values, (first + stream) * width + column);
            for lane in 0..LANES {
                sums[stream][lane] += f(row[lane], lane);
            }
        }
    }
    for stream in 0..rows - full {
        let row = lanes(values, (full + stream) * width + column);
        for lane in 0..LANES {
            sums[stream][lane] += f(row[lane], lane);
        }
    }
    let mut count = STREAMS;
    while count > 1 {
        count /= 2;
        for stream in 0..count {
            for lane in 0..LANES {
                let other = sums[stream + count][lane];
                sums[stream][lane] += other;
            }
        }
    }
    sums[0]
}

#[inline(always)]
fn sum_columns_generic(state: &mut [f64], values: &[f32]) {
    let width = state.len();
    for values in values.chunks(GROUP * width) {
        let (groups, rest) = state.as_chunks_mut::<LANES>();
        let first_rest = groups.len() * LANES;
        for (number, group) in groups.iter_mut().enumerate() {
            let wide = |value, _| f64::from(value);
            let sums = sum_lanes::<f64, WIDE_STREAMS>(values, width, number * LANES, wide);
            for lane in 0..LANES {
                group[lane] += sums[lane];
            }
        }
        for (number, state) in rest.iter_mut().enumerate() {
            *state += values[first_rest + number..].iter().step_by(width).map(|&v| v as f64).sum::<f64>();
        }
    }
}

#[inline(always)]
fn moment_columns_generic(means: &mut [f64], squares: &mut [f64], values: &[f32], count: usize) {
    let width = means.len();
    let mut count = count;
    for values in values.chunks(GROUP * width) {
        let rows = values.len() / width;
        let chan = Chan::new(count as f64, rows as f64);
        let (mean_groups, mean_rest) = means.as_chunks_mut::<LANES>();
        let (square_groups, square_rest) = squares.as_chunks_mut::<LANES>();
        let first_rest = mean_groups.len() * LANES;
        for (number, (m, s)) in mean_groups.iter_mut().zip(square_groups).enumerate() {
            let column = number * LANES;
            let mean = sum_lanes::<f32, STREAMS>(values, width, column, |value, _| value)
                .map(|sum| sum / rows as f32);
            let deviation = |value: f32, lane: usize| (value - mean[lane]) * (value - mean[lane]);
            let sums = sum_lanes::<f32, STREAMS>(values, width, column, deviation);
            for lane in 0..LANES {
                chan.update(&mut m[lane], &mut s[lane], mean[lane] as f64, sums[lane] as f64);
            }
        }
        for (number, (m, s)) in mean_rest.iter_mut().zip(square_rest).enumerate() {
            let column = || values[first_rest + number..].iter().step_by(width).map(|&v| v as f64);
            let mean = column().sum::<f64>() / rows as f64;
            chan.update(m, s, mean, column().map(|v| (v - mean) * (v - mean)).sum());
        }
        count += rows;
    }
}

#[inline(always)]
fn max_columns_generic(state: &mut [f64], values: &[f32]) {
    for row in values.chunks_exact(state.len()) {
        for (largest, &value) in state.iter_mut().zip(row) {
            *largest = larger(*largest, value as f64);
        }
    }
}

#[inline(always)]
fn argmax_columns_generic(largest: &mut [f64], positions: &mut [f64], values: &[f32], position: usize) {
    for (number, row) in values.chunks_exact(largest.len()).enumerate() {
        let position = (position + number) as f64;
        for ((largest, at), &value) in largest.iter_mut().zip(positions.iter_mut()).zip(row) {
            let better = beats(value as f64, *largest);
            *largest = if better { value as f64 } else { *largest };
            *at = if better { position } else { *at };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ReduceKind; 4] =
        [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Variance, ReduceKind::ArgMax];

    fn plain(kind: ReduceKind, values: &[f64]) -> f64 {
        let count = values.len() as f64;
        let sum = values.iter().sum::<f64>();
        let largest = values.iter().copied().fold(f64::NEG_INFINITY, larger);
        match kind {
            ReduceKind::Sum => sum,
            ReduceKind::Max => largest,
            ReduceKind::Variance => values.iter().map(|v| (v - sum / count).powi(2)).sum::<f64>() / count,
            ReduceKind::ArgMax => {
                values.iter().position(|&v| v == largest || v.is_nan() && largest.is_nan()).unwrap() as f64
            }
        }
    }

    fn values(len: usize, nan: bool) -> Vec<f32> {
        let mut state = 12345u32;
        let mut values: Vec<f32> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                100.0 + (state >> 20) as f32 / 512.0
            })
            .collect();
        if nan {
            values[len / 3] = f32::NAN;
        }
        values
    }

    #[test]
    fn folds_agree_with_their_definitions() {
        for &isa in Isa::available() {
            for width in [1, 2, 7, 16, 17, 40] {
                for rows in [1, 2, 5, 33] {
                    for nan in [false, true] {
                        for kind in KINDS {
                            check(isa, kind, width, rows, &values(width * rows, nan));
                        }
                    }
                }
            }
        }
    }

    /// In three parts, merged.
    fn check(isa: Isa, kind: ReduceKind, width: usize, rows: usize, values: &[f32]) {
        let cuts = [0, rows / 3, rows / 2, rows];
        let (mut first, mut second) = (vec![0.0; width], vec![0.0; width]);
        let mut all = Columns { first: &mut first, second: &mut second };
        all.reset(kind);
        for cut in cuts.windows(2) {
            let (mut first, mut second) = (vec![0.0; width], vec![0.0; width]);
            let mut part = Columns { first: &mut first, second: &mut second };
            part.reset(kind);
            let middle = (cut[0] + cut[1]) / 2;
            for (start, end) in [(cut[0], middle), (middle, cut[1])] {
                if start < end {
                    part.add(isa, kind, &values[start * width..end * width], start - cut[0], start);
                }
            }
            all.merge(isa, kind, &part, cut[0], cut[1] - cut[0]);
        }
        let mut result = vec![0.0; width];
        all.finish(kind, rows, &mut result);
        for (column, &result) in result.iter().enumerate() {
            let column: Vec<f64> = values[column..].iter().step_by(width).map(|&v| v.into()).collect();
            let expected = plain(kind, &column);
            let close = (result as f64 - expected).abs() <= 1e-6 * expected.abs().max(1e-6);
            assert!(
                close || (result.is_nan() && expected.is_nan()),
                "{kind:?} {width} columns {rows} rows on {isa:?}: {result} {expected}"
            );
        }
    }
}
