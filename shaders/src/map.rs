//! Elementwise kernels.

use std::fmt::Write;

use autograd::Result;
use schedule::{Map, Program, Store, merge_dims};

use crate::assembled::Assembled;
use crate::bindings::Bindings;
use crate::emit::{Emitter, decompose, vector_dim};
use crate::launch::Context;
use crate::thread::{THREADS, finish_launch};

/// Each part has workgroups of its own, so no workgroup runs more than one.
pub fn assemble(context: Context, label: &str, parts: &[Map]) -> Result<Assembled> {
    let linear = if parts.len() == 1 { "i" } else { "at" };
    let mut maps: Vec<Writer> = parts.iter().filter_map(|part| Writer::new(part, linear)).collect();
    if maps.is_empty() {
        return Ok(Assembled::default());
    }
    let mut bindings = Bindings::new(context, maps.iter().flat_map(|m| &m.stores).map(|s| s.buffer));
    maps.iter().for_each(|map| map.declare(&mut bindings));
    let mut body = String::new();
    let mut threads = 0;
    for map in &mut maps {
        let code = map.write(&mut bindings);
        if parts.len() == 1 {
            (body, threads) = (code, map.count);
            continue;
        }
        let next = threads + map.count.next_multiple_of(THREADS);
        let otherwise = if threads == 0 { "" } else { " else " };
        let _ = write!(
            body,
            "{otherwise}if i < {next} {{\n    let at = i - {threads};\n    if at >= {} {{ return; }}\n{code}}}",
            map.count
        );
        threads = next;
    }
    body.push('\n');
    let (declarations, bound) = bindings.finish();
    let launch = finish_launch(context, label, threads, &declarations, "", &body, bound);
    Ok(Assembled { launches: vec![launch], ..Default::default() })
}

/// A map that is being written.
struct Writer {
    program: Program,
    stores: Vec<Store>,
    indices: String,
    emitter: Emitter,
    /// Threads: one an element, or one for four.
    count: usize,
}

impl Writer {
    /// `linear` names the number of the thread within the map. Nothing if there is nothing to do.
    fn new(map: &Map, linear: &str) -> Option<Writer> {
        let Map { mut shape, mut program, mut stores } = map.clone();
        if shape.iter().product::<usize>() == 0 || stores.is_empty() {
            return None;
        }
        let rank = shape.len();
        let stored = stores.iter_mut().flat_map(|store| store.view.stride_lists());
        let mut strides: Vec<_> = program.stride_lists().chain(stored).collect();
        merge_dims(&mut shape, &mut vec![0; rank], &mut strides);

        let vector = vector_dim(&shape, &stores);
        let (indices, index) = decompose(&shape, vector, linear, "i");
        let emitter = Emitter::new(index, vector, "v");
        let count = shape.iter().product::<usize>() / if vector.is_some() { 4 } else { 1 };
        Some(Writer { program, stores, indices, emitter, count })
    }

    fn declare(&self, bindings: &mut Bindings) {
        self.emitter.declare(&self.program, &self.stores, bindings);
    }

    /// The statements.
    fn write(&mut self, bindings: &mut Bindings) -> String {
        let roots: Vec<usize> = self.stores.iter().map(|s| s.value).collect();
        self.emitter.program(&self.program, &roots, bindings);
        self.emitter.stores(&self.stores, bindings);
        format!("{}{}", self.indices, self.emitter.code)
    }
}
