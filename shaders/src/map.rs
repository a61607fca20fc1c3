//! Elementwise kernels.

use autograd::Result;
use autograd::schedule::ir::{Program, Store};

use crate::bindings::Bindings;
use crate::collapse::{collapse, program_strides, store_strides};
use crate::emit::{Emitter, decompose};
use crate::thread::finish_launch;
use crate::{Assembled, Context};

pub fn assemble(
    context: Context,
    label: &str,
    shape: &[usize],
    program: &Program,
    stores: &[Store],
) -> Result<Assembled> {
    let (mut shape, mut program, mut stores) = (shape.to_vec(), program.clone(), stores.to_vec());
    if shape.iter().product::<usize>() == 0 || stores.is_empty() {
        return Ok(Assembled::default());
    }
    let rank = shape.len();
    let mut strides = program_strides(&mut program);
    strides.extend(store_strides(&mut stores));
    collapse(&mut shape, rank, strides);

    let vector = vector_dim(&shape, &stores);
    // The outermost size is only ever a limit, so kernels that differ in it share a module.
    let (indices, mut index) = decompose(&shape, vector, "i", "i");
    if let Some(first) = index.first_mut()
        && shape.len() == 1
    {
        first.size = shape[0];
    }
    let mut emitter = Emitter::new(index, vector, "v");
    let mut bindings = Bindings::new(context, stores.iter().map(|s| s.buffer));
    emitter.declare(&program, &stores, &mut bindings);
    let roots: Vec<usize> = stores.iter().map(|s| s.value).collect();
    emitter.program(&program, &roots, &mut bindings);
    emitter.stores(&stores, &mut bindings);

    let count = shape.iter().product::<usize>() / if vector.is_some() { 4 } else { 1 };
    let body = format!("{indices}{}", emitter.code);
    let (declarations, bound) = bindings.finish();
    let launch = finish_launch(context, label, count, &declarations, "", &body, bound);
    Ok(Assembled { launches: vec![launch], ..Default::default() })
}

/// The innermost dim, if every store can write four neighbours along it.
fn vector_dim(shape: &[usize], stores: &[Store]) -> Option<usize> {
    let last = shape.len().checked_sub(1)?;
    let aligned = |store: &Store| {
        let strides = &store.view.strides;
        strides[last] == 1 && store.view.offset % 4 == 0 && strides[..last].iter().all(|s| s % 4 == 0)
    };
    (shape[last] % 4 == 0 && stores.iter().all(aligned)).then_some(last)
}
