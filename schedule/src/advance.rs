//! Sums over processes begin as early as their inputs allow, so that a device computes while they are under way.
//!
//! Written last, the sums of gradients would all begin after the last kernel of the backward pass. Here they,
//! and the copies that collect what travels together, move up to the kernels that make what they read. Sums
//! keep their order, which all processes must have in common.

use std::collections::{HashMap, HashSet};

use crate::draft::Draft;
use crate::ir::{Body, BufferId, Kernel};

/// Moves kernels up in place.
pub fn advance(draft: &mut Draft) {
    let input = |kernel: &Kernel| match kernel.body {
        Body::AllReduce { input, .. } => Some(input),
        _ => None,
    };
    let inputs: HashSet<BufferId> = draft.kernels.iter().filter_map(input).collect();
    if inputs.is_empty() {
        return;
    }
    let is_early = |kernel: &Kernel| {
        let collects =
            matches!(kernel.body, Body::Map { .. }) && kernel.writes().iter().all(|b| inputs.contains(b));
        collects || input(kernel).is_some()
    };
    // Kernels that still have to write each buffer.
    let mut unwritten: HashMap<BufferId, usize> = HashMap::new();
    for buffer in draft.kernels.iter().flat_map(Kernel::writes) {
        *unwritten.entry(buffer).or_default() += 1;
    }
    let (mut early, late): (Vec<Kernel>, Vec<Kernel>) =
        std::mem::take(&mut draft.kernels).into_iter().partition(is_early);
    let mut placed = Vec::with_capacity(early.len() + late.len());
    let mut late = late.into_iter();
    loop {
        // The first that is ready; of sums only the first of all.
        let first_sum = early.iter().position(|kernel| input(kernel).is_some());
        let is_ready = |(at, kernel): (usize, &Kernel)| {
            let in_order = input(kernel).is_none() || Some(at) == first_sum;
            in_order
                && kernel.reads().iter().all(|buffer| unwritten.get(buffer).is_none_or(|&left| left == 0))
        };
        let ready = early.iter().enumerate().position(is_ready);
        let Some(kernel) = ready.map(|at| early.remove(at)).or_else(|| late.next()) else { break };
        for buffer in kernel.writes() {
            *unwritten.entry(buffer).or_insert(1) -= 1;
        }
        placed.push(kernel);
    }
    // (Nothing is left: what they wait for is written by kernels before them.)
    placed.extend(early);
    draft.kernels = placed;
}
