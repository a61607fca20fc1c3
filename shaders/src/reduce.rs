//! Folds over the inner dims, in one stage or in chunks with a second stage.

use autograd::{Error, Result};
use schedule::{Body, ChannelFold, Program, ReduceKind, Reg, Store, merge_dims};

use crate::assembled::Assembled;
use crate::bindings::Bindings;
use crate::choice::{Choice, Cut};
use crate::emit::{Emitter, Index, decompose, in_fours, vector_dim};
use crate::fold::{Fold, Text};
use crate::launch::{Access, Context, Launch, Scratch};

/// A reduction after its dims were collapsed.
struct Reduce {
    outer: Vec<usize>,
    inner: Vec<usize>,
    program: Program,
    kinds: Vec<ReduceKind>,
    /// What each of them folds.
    values: Vec<Reg>,
    finish: Program,
    stores: Vec<Store>,
    /// The outer dim along which threads own four neighbours.
    vector: Option<usize>,
}

pub fn assemble(context: Context, label: &str, body: &Body) -> Result<Assembled> {
    if !matches!(body, Body::Reduce { .. }) {
        return Err(Error::Device(format!("kernel `{label}` is no reduction")));
    }
    Ok(Reduce::new(body).map_or_else(Assembled::default, |reduce| reduce.assemble(context, label)))
}

/// See [`Fold::cuts`].
pub fn candidates(context: Context, body: &Body) -> Vec<Cut> {
    Reduce::new(body).map_or_else(Vec::new, |reduce| reduce.fold().cuts(context))
}

/// The launch that finishes the fold of a convolution's epilogue, over its space, from the `states` of tiles of so many
/// rows, the last of what is left of the rows of an index of the kept dims.
pub fn finish_states(
    context: Context,
    label: &str,
    (fold, mut outer): (&ChannelFold, Vec<usize>),
    states: Scratch,
    [tile_rows, rows]: [usize; 2],
) -> Launch {
    let (mut finish, mut stores) = (fold.finish.clone(), fold.stores.clone());
    let stored = stores.iter_mut().flat_map(|store| store.view.stride_lists());
    let mut strides: Vec<_> = finish.stride_lists().chain(stored).collect();
    merge_dims(&mut outer, &mut vec![0; fold.kept + 1], &mut strides);
    let (kinds, values) = fold.accumulators.iter().copied().unzip();
    let vector = vector_dim(&outer, &stores);
    let (inner, program) = (vec![rows], Program::default());
    let reduce = Reduce { outer, inner, program, kinds, values, finish, stores, vector };
    reduce.last_stage(context, label, states, [tile_rows, rows.div_ceil(tile_rows)])
}

impl Reduce {
    /// Nothing if there is nothing to do.
    fn new(body: &Body) -> Option<Reduce> {
        let Body::Reduce { shape, outer, program, accumulators, finish, stores } = body else { return None };
        if shape[..*outer].iter().product::<usize>() == 0 || stores.is_empty() {
            return None;
        }
        let (mut shape, mut program) = (shape.clone(), program.clone());
        let (mut finish, mut stores) = (finish.clone(), stores.clone());
        // Outer dims are of one class, folded dims of another.
        let mut classes: Vec<u8> = (0..shape.len()).map(|d| (d >= *outer) as u8).collect();
        let stored = stores.iter_mut().flat_map(|store| store.view.stride_lists());
        let mut strides: Vec<_> = program.stride_lists().chain(finish.stride_lists()).chain(stored).collect();
        merge_dims(&mut shape, &mut classes, &mut strides);
        let inner = shape.split_off(classes.partition_point(|&class| class == 0));

        let (kinds, values) = accumulators.iter().copied().unzip();
        let is_loaded = |&dim: &usize| program.loads().any(|(_, view)| in_fours(view, dim));
        let vector = vector_dim(&shape, &stores).filter(is_loaded);
        Some(Reduce { outer: shape, inner, program, kinds, values, finish, stores, vector })
    }

    fn fold(&self) -> Fold<'_> {
        let len = self.inner.iter().product();
        let outer = self.outer.iter().product::<usize>() / if self.vector.is_some() { 4 } else { 1 };
        let is_vector = self.vector.is_some();
        Fold { kinds: &self.kinds, is_vector, is_outer_dense: is_vector, outer, len }
    }

    fn assemble(&self, context: Context, label: &str) -> Assembled {
        let fold = self.fold();
        let cut = match context.choice {
            Some(Choice::Fold(cut)) => cut,
            _ => fold.cut(context),
        };
        let first = fold.launch(context, label, cut, self.values_text(context, fold, cut));
        if cut.chunks == 1 {
            return Assembled { launches: vec![first], ..Default::default() };
        }
        let states = fold.scratch(cut.chunks);
        let second = self.last_stage(context, label, states, [cut.chunk_len, cut.chunks]);
        Assembled { launches: vec![first, second], scratch: vec![states.bytes()], ..Default::default() }
    }

    /// The launch that folds the states of so many chunks of a length.
    fn last_stage(
        &self,
        context: Context,
        label: &str,
        states: Scratch,
        [len, chunks]: [usize; 2],
    ) -> Launch {
        let fold = Fold { len: chunks, is_outer_dense: true, ..self.fold() };
        let text = self.states_text(context, states, len);
        fold.launch(context, label, fold.cut_in_one(context), text)
    }

    /// The stage that folds values: the only one, or the one that leaves states behind.
    fn values_text(&self, context: Context, fold: Fold, cut: Cut) -> Text {
        let is_last = cut.chunks == 1;
        let mut bindings = Bindings::new(context, self.stores.iter().map(|s| s.buffer).filter(|_| is_last));
        let (outer_indices, outer) = decompose(&self.outer, self.vector, "o", "o");
        let (inner_indices, inner) = decompose(&self.inner, None, "j", "j");
        // Before the inner dims are the outer ones, of which `j` is not made.
        let inner = inner.into_iter().map(|index| Index { up_to: None, ..index });
        let mut emitter = Emitter::new(outer.iter().cloned().chain(inner).collect(), self.vector, "v");
        emitter.declare(&self.program, &[], &mut bindings);
        if is_last {
            self.finish_emitter(fold, &outer).declare(&self.finish, &self.stores, &mut bindings);
        }
        emitter.program(&self.program, &self.values, &mut bindings);
        let values: Vec<String> = self.values.iter().map(|r| emitter.reg(*r)).collect();
        let finish = if is_last {
            self.finish(fold, &outer, &mut bindings)
        } else {
            let vectors = self.vector.is_some();
            fold.store_states(&bindings.scratch(fold.scratch(cut.chunks), Access::ReadWrite, vectors))
        };
        let (declarations, bindings) = bindings.finish();
        let update = format!("{inner_indices}{}{}", emitter.code, fold.update(&values));
        Text { declarations, bindings, functions: String::new(), outer_indices, update, finish }
    }

    /// The stage that folds the states of chunks of a length.
    fn states_text(&self, context: Context, states: Scratch, chunk_len: usize) -> Text {
        let fold = self.fold();
        let mut bindings = Bindings::new(context, self.stores.iter().map(|s| s.buffer));
        let (outer_indices, outer) = decompose(&self.outer, self.vector, "o", "o");
        self.finish_emitter(fold, &outer).declare(&self.finish, &self.stores, &mut bindings);
        let states = bindings.scratch(states, Access::Read, self.vector.is_some());
        let update = fold.merge_states(&states, chunk_len, fold.len);
        let finish = self.finish(fold, &outer, &mut bindings);
        let (declarations, bindings) = bindings.finish();
        Text { declarations, bindings, functions: String::new(), outer_indices, update, finish }
    }

    fn finish_emitter(&self, fold: Fold, outer: &[Index]) -> Emitter {
        let mut emitter = Emitter::new(outer.to_vec(), self.vector, "f");
        emitter.accumulators = fold.results(fold.len);
        emitter
    }

    fn finish(&self, fold: Fold, outer: &[Index], bindings: &mut Bindings) -> String {
        let mut emitter = self.finish_emitter(fold, outer);
        let roots: Vec<Reg> = self.stores.iter().map(|s| s.value).collect();
        emitter.program(&self.finish, &roots, bindings);
        emitter.stores(&self.stores, bindings);
        emitter.code
    }
}
