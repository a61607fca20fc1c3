//! Simple kernels: one thread a result, correct for every geometry.

use schedule::{Epilogue, Operand};

use crate::bindings::Bindings;
use crate::emit::module;
use crate::launch::{Access, Bound, Context, Launch, Scratch};
use crate::operand::{Finisher, Loader, Rounding};
use crate::template::fill;

const TEMPLATE: &str = include_str!("../wgsl/thread.wgsl");
/// Threads of a workgroup.
pub const THREADS: usize = 64;

/// The functions a kernel's core calls, all on single elements.
#[derive(Clone, Copy)]
pub struct Functions<'a> {
    pub lhs: (&'a Operand, &'static [&'static str]),
    pub rhs: (&'a Operand, &'static [&'static str]),
    pub finish: Option<(&'a Epilogue, &'static [&'static str])>,
    /// Scratch the core uses, and how.
    pub scratch: Option<(Scratch, Access)>,
}

/// A launch of `count` threads whose statements `body` writes; it gets the name of the scratch binding.
pub fn launch(
    context: Context,
    label: &str,
    count: usize,
    functions: Functions,
    body: impl Fn(&str) -> String,
) -> Launch {
    let stores = functions.finish.iter().flat_map(|(e, _)| e.stores.iter().map(|s| s.buffer));
    let mut bindings = Bindings::new(context, stores);
    let [lhs, rhs] = [functions.lhs, functions.rhs].map(|(o, p)| Loader::new(o, p, None));
    let finish = functions.finish.map(|(e, p)| Finisher::new(e, p, None));
    [&lhs, &rhs].into_iter().for_each(|l| l.declare(&mut bindings));
    finish.iter().for_each(|f| f.declare(&mut bindings));

    let mut text = lhs.write("lhs", Rounding::NONE, &mut bindings);
    text += &rhs.write("rhs", Rounding::NONE, &mut bindings);
    text += &finish.map_or(String::new(), |f| f.write("finish", &[], &mut bindings));
    let scratch = functions.scratch.map(|(scratch, access)| bindings.scratch(scratch, access, false));
    let body = body(scratch.as_deref().unwrap_or(""));
    let (declarations, bound) = bindings.finish();
    finish_launch(context, label, count, &declarations, &text, &body, bound)
}

/// A launch of `count` threads from its parts; the statements' `i` is the thread's number.
pub fn finish_launch(
    context: Context,
    label: &str,
    count: usize,
    declarations: &str,
    functions: &str,
    body: &str,
    bindings: Vec<Bound>,
) -> Launch {
    let source = fill(
        TEMPLATE,
        &[("bindings", &declarations), ("threads", &THREADS), ("functions", &functions), ("body", &body)],
    );
    Launch {
        label: label.to_string(),
        source: module(&source).into(),
        bindings,
        count: count as u32,
        groups: context.target.fold_groups(count.div_ceil(THREADS)),
    }
}
