//! Folds over the inner dims, in one stage or in chunks with a second stage.

use std::fmt::Write;

use autograd::{Error, Result};
use schedule::ir::{Body, Program, ReduceKind, Reg, Store};

use crate::bindings::{Access, Bindings, Scratch};
use crate::collapse::{collapse, program_strides, store_strides};
use crate::emit::{Emitter, Index, decompose, module};
use crate::template::fill;
use crate::{Assembled, Context, Launch, fold};

const TEMPLATE: &str = include_str!("../wgsl/reduce.wgsl");
const MERGE: &str = include_str!("../wgsl/reduce_merge.wgsl");
const THREADS: usize = 64;

/// A reduction after its dims were collapsed.
struct Reduce {
    outer: Vec<usize>,
    inner: Vec<usize>,
    program: Program,
    accumulators: Vec<(ReduceKind, Reg)>,
    finish: Program,
    stores: Vec<Store>,
    /// The outer dim along which threads own four neighbours.
    vector: Option<usize>,
    chunks: usize,
    chunk_len: usize,
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

    let mut reduce = Reduce {
        vector: vector_dim(&shape, &program, &stores),
        outer: shape,
        inner,
        program,
        accumulators: accumulators.clone(),
        finish,
        stores,
        chunks: 1,
        chunk_len: 0,
    };
    reduce.split();
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
    fn outer_count(&self) -> usize {
        self.outer.iter().product::<usize>() / if self.vector.is_some() { 4 } else { 1 }
    }

    fn inner_count(&self) -> usize {
        self.inner.iter().product()
    }

    /// Chooses the chunks: enough threads to fill the device, chunks of at least 64 values (and short
    /// enough that a plain running sum stays accurate).
    fn split(&mut self) {
        let inner = self.inner_count();
        let for_threads = (32_768 / self.outer_count()).min(inner / 64);
        let for_accuracy = inner.div_ceil(1024);
        self.chunks = for_threads.max(for_accuracy).clamp(1, 4096);
        self.chunk_len = inner.div_ceil(self.chunks).max(1);
        self.chunks = inner.div_ceil(self.chunk_len).max(1);
    }

    fn state_width(&self) -> usize {
        self.accumulators.iter().map(|(kind, _)| fold::width(*kind)).sum()
    }

    fn assemble(&self, context: Context, label: &str) -> Assembled {
        if self.chunks == 1 {
            return Assembled {
                launches: vec![self.first_stage(context, label, None)],
                ..Default::default()
            };
        }
        let lanes = if self.vector.is_some() { 4 } else { 1 };
        let scratch = self.chunks * self.state_width() * self.outer_count() * lanes;
        let launches =
            vec![self.first_stage(context, label, Some(scratch)), self.merge(context, label, scratch)];
        Assembled { launches, scratch: vec![Scratch::first(scratch).bytes()], ..Default::default() }
    }

    /// `scratch`: where partial states go, in elements; `None` if there is only one chunk.
    fn first_stage(&self, context: Context, label: &str, scratch: Option<usize>) -> Launch {
        let written = self.stores.iter().map(|s| s.buffer).filter(|_| scratch.is_none());
        let mut bindings = Bindings::new(context, written);
        let (outer_indices, outer) = decompose(&self.outer, self.vector, "o", "o");
        let (inner_indices, inner) = decompose(&self.inner, None, "j", "j");
        let is_vector = self.vector.is_some();

        let mut emitter = Emitter::new(outer.iter().chain(&inner).cloned().collect(), self.vector, "v");
        emitter.declare(&self.program, &[], &mut bindings);
        if scratch.is_none() {
            self.finish_emitter(&outer).declare(&self.finish, &self.stores, &mut bindings);
        }
        let roots: Vec<Reg> = self.accumulators.iter().map(|(_, r)| *r).collect();
        emitter.program(&self.program, &roots, &mut bindings);
        let (mut initial, mut update) = (String::new(), String::new());
        for (k, (kind, value)) in self.accumulators.iter().enumerate() {
            initial += &fold::initial(*kind, k, emitter.value_type(), "start");
            update += &fold::update(*kind, k, &emitter.reg(*value), is_vector);
        }
        let finish = match scratch {
            None => self.finish(&outer, &mut bindings),
            Some(len) => {
                let name = bindings.scratch(Scratch::first(len), Access::ReadWrite, is_vector);
                let mut text = String::new();
                for (s, part) in self.state_names().iter().enumerate() {
                    let _ = writeln!(text, "    {name}[{}] = {part};", self.state_index(s));
                }
                text
            }
        };
        let (declarations, bound) = bindings.finish();
        let source = fill(
            TEMPLATE,
            &[
                ("bindings", &declarations),
                ("threads", &THREADS),
                ("outer_count", &self.outer_count()),
                ("chunk_len", &self.chunk_len),
                ("inner_count", &self.inner_count()),
                ("outer_indices", &outer_indices),
                ("initial", &initial),
                ("inner_indices", &inner_indices),
                ("program", &emitter.code),
                ("update", &update),
                ("finish", &finish),
            ],
        );
        self.launch(context, label, self.outer_count() * self.chunks, source, bound)
    }

    fn merge(&self, context: Context, label: &str, scratch: usize) -> Launch {
        let mut bindings = Bindings::new(context, self.stores.iter().map(|s| s.buffer));
        let (outer_indices, outer) = decompose(&self.outer, self.vector, "o", "o");
        let is_vector = self.vector.is_some();
        let emitter = self.finish_emitter(&outer);
        emitter.declare(&self.finish, &self.stores, &mut bindings);

        let name = bindings.scratch(Scratch::first(scratch), Access::Read, is_vector);
        let (mut initial, mut merge) = (String::new(), String::new());
        let mut position = 0;
        for (k, (kind, _)) in self.accumulators.iter().enumerate() {
            initial += &fold::initial(*kind, k, emitter.value_type(), "0");
            let parts: Vec<String> = (0..fold::width(*kind))
                .map(|s| format!("{name}[{}]", self.state_index(position + s)))
                .collect();
            merge += &fold::merge(*kind, k, &parts, is_vector);
            position += fold::width(*kind);
        }
        let finish = self.finish(&outer, &mut bindings);
        let (declarations, bound) = bindings.finish();
        let source = fill(
            MERGE,
            &[
                ("bindings", &declarations),
                ("threads", &THREADS),
                ("outer_indices", &outer_indices),
                ("initial", &initial),
                ("chunks", &self.chunks),
                ("chunk_len", &self.chunk_len),
                ("inner_count", &self.inner_count()),
                ("merge", &merge),
                ("finish", &finish),
            ],
        );
        self.launch(context, label, self.outer_count(), source, bound)
    }

    fn state_names(&self) -> Vec<String> {
        self.accumulators.iter().enumerate().flat_map(|(k, (kind, _))| fold::names(*kind, k)).collect()
    }

    /// Where value `s` of the state of outer index `o` and chunk `chunk` lies in scratch.
    fn state_index(&self, s: usize) -> String {
        format!("(chunk * {} + {s}) * {} + o", self.state_width(), self.outer_count())
    }

    fn finish_emitter(&self, outer: &[Index]) -> Emitter {
        let mut emitter = Emitter::new(outer.to_vec(), self.vector, "f");
        let count = self.inner_count();
        let results =
            self.accumulators.iter().enumerate().map(|(k, (kind, _))| fold::result(*kind, k, count));
        emitter.accumulators = results.collect();
        emitter
    }

    fn finish(&self, outer: &[Index], bindings: &mut Bindings) -> String {
        let mut emitter = self.finish_emitter(outer);
        let roots: Vec<Reg> = self.stores.iter().map(|s| s.value).collect();
        emitter.program(&self.finish, &roots, bindings);
        emitter.stores(&self.stores, bindings);
        emitter.code
    }

    fn launch(
        &self,
        context: Context,
        label: &str,
        count: usize,
        source: String,
        bindings: Vec<crate::Bound>,
    ) -> Launch {
        Launch {
            label: label.to_string(),
            source: module(&source).into(),
            bindings,
            count: count as u32,
            groups: context.target.fold_groups(count.div_ceil(THREADS)),
        }
    }
}
