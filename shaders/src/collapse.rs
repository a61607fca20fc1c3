//! Fewer dimensions for the same iteration: size-1 dims go, neighbours that every view walks as one merge.

use schedule::ir::{Instr, Program, Store};

/// The stride vectors of everything a program reads, in no particular order.
pub fn program_strides(program: &mut Program) -> Vec<&mut Vec<i64>> {
    let mut found = Vec::new();
    for instr in &mut program.instrs {
        match instr {
            Instr::Load { view, .. }
            | Instr::Index(view)
            | Instr::InBounds(view)
            | Instr::Random { index: view, .. } => {
                found.push(&mut view.strides);
                found.extend(view.bounds.iter_mut().map(|b| &mut b.strides));
            }
            _ => {}
        }
    }
    found
}

/// The stride vectors of stores.
pub fn store_strides(stores: &mut [Store]) -> Vec<&mut Vec<i64>> {
    stores.iter_mut().map(|s| &mut s.view.strides).collect()
}

/// Collapses `shape` in place, and every stride vector with it. Dims at or after `fence` are never
/// merged with dims before it; the new position of the fence is returned. At least one dim remains on
/// the fence's left if there was one.
pub fn collapse(shape: &mut Vec<usize>, fence: usize, mut strides: Vec<&mut Vec<i64>>) -> usize {
    let mut fence = fence;
    for s in &mut strides {
        s.resize(shape.len(), 0);
    }
    let mut d = 0;
    while d < shape.len() {
        if shape[d] == 1 {
            shape.remove(d);
            strides.iter_mut().for_each(|s| {
                s.remove(d);
            });
            fence -= usize::from(d < fence);
        } else {
            d += 1;
        }
    }
    let mut d = 1;
    while d < shape.len() {
        let size = shape[d] as i64;
        if d != fence && strides.iter().all(|s| s[d - 1] == s[d] * size) {
            shape[d - 1] *= shape[d];
            shape.remove(d);
            for s in &mut strides {
                s[d - 1] = s[d];
                s.remove(d);
            }
            fence -= usize::from(d < fence);
        } else {
            d += 1;
        }
    }
    fence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_dims_merge_and_unit_dims_go() {
        let mut shape = vec![2, 1, 3, 4];
        let (mut dense, mut channel) = (vec![12, 0, 4, 1], vec![0, 0, 0, 1]);
        let fence = collapse(&mut shape, 4, vec![&mut dense]);
        assert_eq!((shape, fence, dense), (vec![24], 1, vec![1]));

        let (mut shape, mut dense) = (vec![2, 1, 3, 4], vec![12, 0, 4, 1]);
        collapse(&mut shape, 4, vec![&mut dense, &mut channel]);
        assert_eq!((shape, dense, channel), (vec![6, 4], vec![4, 1], vec![0, 1]));
    }

    #[test]
    fn nothing_merges_across_the_fence() {
        let (mut shape, mut dense) = (vec![2, 3, 4, 5], vec![60, 20, 5, 1]);
        let fence = collapse(&mut shape, 1, vec![&mut dense]);
        assert_eq!((shape, fence, dense), (vec![2, 60], 1, vec![60, 1]));
    }
}
