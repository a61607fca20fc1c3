//! Folds over the inner dims, in one stage or in chunks with a second stage.

use autograd::{Error, Result};
use schedule::ir::{Body, Program, ReduceKind, Reg, Store};

use crate::bindings::Bindings;
use crate::collapse::{collapse, program_strides, store_strides};
use crate::emit::{Emitter, Index, decompose};
use crate::fold::{Cut, Fold, Text};
use crate::launch::{Access, Assembled, Context};

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
    let Body::Reduce { shape, outer, program, accumulators, finish, stores } = body else {
        return Err(Error::Device(format!("kernel `{label}` is no reduction")));
    };
    if shape[..*outer].iter().product::<usize>() == 0 || stores.is_empty() {
        return Ok(Assembled::default());
    }
    let (mut shape, mut program) = (shape.clone(), program.clone());
    let (mut finish, mut stores) = (finish.clone(), stores.clone());
    let mut strides = program_strides(&mut program);
    strides.extend(program_strides(&mut finish));
    strides.extend(store_strides(&mut stores));
    let fence = collapse(&mut shape, *outer, strides);
    let inner = shape.split_off(fence);

    let (kinds, values) = accumulators.iter().copied().unzip();
    let vector = vector_dim(&shape, &program, &stores);
    let reduce = Reduce { outer: shape, inner, program, kinds, values, finish, stores, vector };
    Ok(reduce.assemble(context, label))
}

/// The innermost outer dim, if stores and at least one load take four neighbours along it.
fn vector_dim(outer: &[usize], program: &Program, stores: &[Store]) -> Option<usize> {
    use schedule::ir::Instr;
    let last = outer.len().checked_sub(1)?;
    let aligned = |offset: i64, strides: &[i64]| {
        strides[last] == 1
            && offset % 4 == 0
            && strides.iter().enumerate().all(|(d, s)| d == last || s % 4 == 0)
    };
    let loads = program.instrs.iter().any(|instr| match instr {
        Instr::Load { view, .. } => aligned(view.offset, &view.strides),
        _ => false,
    });
    let stores = stores.iter().all(|s| aligned(s.view.offset, &s.view.strides[..outer.len()]));
    (outer[last].is_multiple_of(4) && loads && stores).then_some(last)
}

impl Reduce {
    fn assemble(&self, context: Context, label: &str) -> Assembled {
        let len = self.inner.iter().product();
        let outer = self.outer.iter().product::<usize>() / if self.vector.is_some() { 4 } else { 1 };
        let is_vector = self.vector.is_some();
        let fold = Fold { kinds: &self.kinds, is_vector, is_outer_dense: is_vector, outer, len };
        let cut = fold.cut(context);
        let first = fold.launch(context, label, cut, self.values_text(context, fold, cut));
        if cut.chunks == 1 {
            return Assembled { launches: vec![first], ..Default::default() };
        }
        let states = Fold { len: cut.chunks, is_outer_dense: true, ..fold };
        let text = self.states_text(context, fold, cut);
        let second = states.launch(context, label, states.cut_in_one(context), text);
        let scratch = vec![fold.scratch(cut.chunks).bytes()];
        Assembled { launches: vec![first, second], scratch, ..Default::default() }
    }

    /// The stage that folds values: the only one, or the one that leaves states behind.
    fn values_text(&self, context: Context, fold: Fold, cut: Cut) -> Text {
        let is_last = cut.chunks == 1;
        let mut bindings = Bindings::new(context, self.stores.iter().map(|s| s.buffer).filter(|_| is_last));
        let (outer_indices, outer) = decompose(&self.outer, self.vector, "o", "o");
        let (inner_indices, inner) = decompose(&self.inner, None, "j", "j");
        let mut emitter = Emitter::new(outer.iter().chain(&inner).cloned().collect(), self.vector, "v");
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

    /// The stage that folds the states of `cut`'s chunks.
    fn states_text(&self, context: Context, fold: Fold, cut: Cut) -> Text {
        let mut bindings = Bindings::new(context, self.stores.iter().map(|s| s.buffer));
        let (outer_indices, outer) = decompose(&self.outer, self.vector, "o", "o");
        self.finish_emitter(fold, &outer).declare(&self.finish, &self.stores, &mut bindings);
        let states = bindings.scratch(fold.scratch(cut.chunks), Access::Read, self.vector.is_some());
        let update = fold.merge_states(&states, cut.chunk_len, fold.len);
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
