//! Folds: the running states as WGSL, and the one kernel that folds values, or the states of an earlier
//! stage, in a fixed order.
//!
//! State `k` of a kernel is a few variables; the partial states of chunks travel through scratch memory,
//! value `s` of all states of outer index `o` and chunk `chunk` at `(chunk * width + s) * outer + o`.
//!
//! A sum is kept with what its additions rounded off (Knuth's two-sum), as exact as if it were twice as long: the
//! statistics of a batch norm decide all that follows. A fold waits for memory, not for arithmetic.

use std::fmt::Write;

use schedule::ReduceKind;

use crate::bindings::Bindings;
use crate::choice::Cut;
use crate::emit::module;
use crate::launch::{Access, Bound, Context, Launch, Scratch};
use crate::template::fill;

const TEMPLATE: &str = include_str!("../wgsl/fold.wgsl");
const TREE: &str = include_str!("../wgsl/fold_tree.wgsl");

/// Threads of a workgroup, and of a dispatch that fills a large GPU.
const THREADS: usize = 256;
const FILLING: usize = 512 * THREADS;
/// Values from which on a lane of its own pays, and the most that a plain running sum stays accurate for.
const FEW: usize = 8;
const MANY: usize = 1024;

/// What is folded.
#[derive(Clone, Copy)]
pub struct Fold<'a> {
    pub kinds: &'a [ReduceKind],
    /// Whether a state holds those of four neighbouring outer indices.
    pub is_vector: bool,
    /// Whether neighbouring outer indices lie side by side, rather than neighbouring values. Those of states
    /// always do.
    pub is_outer_dense: bool,
    /// Outer indices, or fours of them.
    pub outer: usize,
    /// Values, or states, for each of them.
    pub len: usize,
}

/// A stage's text around the fold.
pub struct Text {
    pub declarations: String,
    pub bindings: Vec<Bound>,
    pub functions: String,
    /// Statements that make what the rest needs of the outer index `o`.
    pub outer_indices: String,
    /// Statements for number `j`, see [`Fold::update`] and [`Fold::merge_states`].
    pub update: String,
    /// Statements with the finished states, see [`Fold::results`] and [`Fold::store_states`].
    pub finish: String,
}

impl Fold<'_> {
    /// Workgroups enough to fill a large GPU, as far as there is work for them.
    pub fn cut(&self, context: Context) -> Cut {
        self.cut_for(context, FILLING, THREADS)
    }

    /// Ways to cut it: first the one that is taken without measuring, then ones with more or fewer workgroups,
    /// and with smaller ones.
    pub fn cuts(&self, context: Context) -> Vec<Cut> {
        let mut cuts = vec![self.cut(context)];
        for threads in [THREADS, THREADS / 4] {
            for filling in [FILLING, FILLING / 4, FILLING / 16, 4 * FILLING] {
                let cut = self.cut_for(context, filling, threads);
                if !cuts.contains(&cut) {
                    cuts.push(cut);
                }
            }
        }
        cuts
    }

    /// Cut for so many threads in all and in a workgroup.
    fn cut_for(&self, context: Context, filling: usize, threads: usize) -> Cut {
        let most = threads.min(context.target.limits.invocations as usize);
        // What lies side by side goes to neighbouring threads, 32 or 64 bytes at least.
        let (least_across, least_deep) = match (self.is_outer_dense, self.is_vector) {
            (true, true) => (4, 1),
            (true, false) => (16, 1),
            (false, _) => (1, FEW),
        };
        let beside = self.outer.next_power_of_two();
        let wanted = (filling / self.outer).next_power_of_two().max(least_deep);
        let room = context.target.limits.workgroup_bytes as usize / self.thread_bytes();
        let useful = power_of_two_below(self.len / FEW);
        let deep = useful.min(wanted).min(power_of_two_below(most.min(room) / beside.min(least_across)));
        let across = (most / deep).min(beside);
        let across = if deep > 1 { across.min(power_of_two_below(room / deep)) } else { across };
        let groups = self.outer.div_ceil(across);
        let to_fill = (filling / (groups * across * deep)).min(self.len / (deep * FEW));
        let chunks = to_fill.max(self.len.div_ceil(deep * MANY)).clamp(1, 4096);
        let chunk_len = self.len.div_ceil(chunks).max(1);
        Cut { across, deep, chunks: self.len.div_ceil(chunk_len).max(1), chunk_len }
    }

    /// The same in one chunk, for a last stage.
    pub fn cut_in_one(&self, context: Context) -> Cut {
        Cut { chunks: 1, chunk_len: self.len, ..self.cut(context) }
    }

    /// Values in the states of an outer index.
    pub fn width(&self) -> usize {
        self.kinds.iter().map(|kind| names(*kind, 0).len()).sum()
    }

    /// The scratch for the states of so many chunks.
    pub fn scratch(&self, chunks: usize) -> Scratch {
        let lanes = if self.is_vector { 4 } else { 1 };
        Scratch::first(chunks * self.width() * self.outer * lanes)
    }

    fn value_type(&self) -> &'static str {
        if self.is_vector { "vec4<f32>" } else { "f32" }
    }

    /// Bytes of workgroup memory that a thread's states take.
    fn thread_bytes(&self) -> usize {
        self.width() * if self.is_vector { 16 } else { 4 } + 4
    }

    /// The names of the states' values.
    pub fn names(&self) -> Vec<String> {
        self.kinds.iter().enumerate().flat_map(|(k, kind)| names(*kind, k)).collect()
    }

    /// Statements that add these values, one for each state, at position `j`.
    pub fn update(&self, values: &[String]) -> String {
        let each = self.kinds.iter().zip(values).enumerate();
        let update = each.map(|(k, (kind, value))| update(*kind, k, value, self.is_vector));
        format!("    count += 1.0;\n{}", update.collect::<String>())
    }

    /// Statements that merge the states of chunk `j` from the binding `states`. A chunk has `chunk_len` of
    /// `len` values, the last what is left.
    pub fn merge_states(&self, states: &str, chunk_len: usize, len: usize) -> String {
        let count = format!("f32(min({chunk_len}, {len} - j * {chunk_len}))");
        self.merge(&count, |s| format!("{states}[{}]", self.state_index("j", s)))
    }

    /// Statements that store the states of `chunk` in the binding `states`.
    pub fn store_states(&self, states: &str) -> String {
        let store = |(s, name): (usize, String)| {
            format!("    {states}[{}] = {name};\n", self.state_index("chunk", s))
        };
        self.names().into_iter().enumerate().map(store).collect()
    }

    fn state_index(&self, chunk: &str, s: usize) -> String {
        format!("({chunk} * {} + {s}) * {} + o", self.width(), self.outer)
    }

    /// Merges states of `count` values, whose value `s` is `part(s)`, into the running ones.
    pub fn merge(&self, count: &str, part: impl Fn(usize) -> String) -> String {
        let mut text = format!("    let count_b = {count};\n    if count_b > 0.0 {{\n");
        let mut position = 0;
        for (k, kind) in self.kinds.iter().enumerate() {
            let width = names(*kind, k).len();
            let parts: Vec<String> = (position..position + width).map(&part).collect();
            text += &merge(*kind, k, &parts, self.is_vector);
            position += width;
        }
        text + "    count += count_b;\n    }\n"
    }

    /// The finished values of the states over `count` values.
    pub fn results(&self, count: usize) -> Vec<String> {
        let result = |(k, kind): (usize, &ReduceKind)| result(*kind, k, count, self.is_vector);
        self.kinds.iter().enumerate().map(result).collect()
    }

    /// The workgroup memory in which so many threads merge their states.
    pub fn memory(&self, threads: usize) -> String {
        let mut text = format!("var<workgroup> counts: array<f32, {threads}>;\n");
        for s in 0..self.width() {
            let _ = writeln!(text, "var<workgroup> states{s}: array<{}, {threads}>;", self.value_type());
        }
        text
    }

    /// Statements that merge the states of the `deep` threads that share a column, of `across` columns, in that memory.
    pub fn tree(&self, across: usize, deep: usize) -> String {
        if deep == 1 {
            return String::new();
        }
        let mut store = "    counts[slot] = count;\n".to_string();
        for (s, name) in self.names().iter().enumerate() {
            let _ = writeln!(store, "    states{s}[slot] = {name};");
        }
        let merge = self.merge("counts[other]", |s| format!("states{s}[other]"));
        fill(TREE, &[("across", &across), ("half", &(deep / 2)), ("store", &store), ("merge", &merge)])
    }

    /// The launch that adds up sums of chunks, `[len, outer]` in `partials`. `finish` makes statements of the total's name,
    /// with these functions.
    pub fn add_chunks(
        &self,
        context: Context,
        label: &str,
        (mut bindings, functions): (Bindings, String),
        partials: Scratch,
        finish: impl FnOnce(&str) -> String,
    ) -> Launch {
        let sums = bindings.scratch(partials, Access::Read, self.is_vector);
        let (declarations, bindings) = bindings.finish();
        let text = Text {
            declarations,
            bindings,
            functions,
            outer_indices: String::new(),
            update: self.update(&[format!("{sums}[j * {} + o]", self.outer)]),
            finish: finish(&self.results(self.len).concat()),
        };
        self.launch(context, label, self.cut_in_one(context), text)
    }

    /// The launch of one stage.
    pub fn launch(&self, context: Context, label: &str, cut: Cut, text: Text) -> Launch {
        let Cut { across, deep, chunks, chunk_len } = cut;
        let (threads, value_type) = (across * deep, self.value_type());
        let (lane, column) = match self.is_outer_dense {
            true => (format!("thread / {across}"), format!("thread % {across}")),
            false => (format!("thread % {deep}"), format!("thread / {deep}")),
        };
        let initial: String =
            self.kinds.iter().enumerate().map(|(k, kind)| initial(*kind, k, value_type)).collect();
        let memory = if deep > 1 { self.memory(threads) } else { String::new() };
        let tree = self.tree(across, deep);
        let outer_groups = self.outer.div_ceil(across);
        let source = fill(
            TEMPLATE,
            &[
                ("bindings", &text.declarations),
                ("memory", &memory),
                ("functions", &text.functions),
                ("threads", &threads),
                ("across", &across),
                ("deep", &deep),
                ("lane", &lane),
                ("column", &column),
                ("outer_groups", &outer_groups),
                ("last", &(self.outer - 1)),
                ("chunk_len", &chunk_len),
                ("len", &self.len),
                ("outer_indices", &text.outer_indices),
                ("initial", &initial),
                ("update", &text.update),
                ("tree", &tree),
                ("finish", &text.finish),
            ],
        );
        let count = outer_groups * chunks;
        Launch {
            label: label.to_string(),
            source: module(&source).into(),
            bindings: text.bindings,
            count: count as u32,
            groups: context.target.fold_groups(count),
        }
    }
}

/// The largest power of two that is not above `n`, at least 1.
fn power_of_two_below(n: usize) -> usize {
    1 << n.max(1).ilog2()
}

/// Names of the variables of accumulator `k`.
fn names(kind: ReduceKind, k: usize) -> Vec<String> {
    match kind {
        ReduceKind::Sum => vec![format!("sum{k}"), format!("off{k}")],
        ReduceKind::Max => vec![format!("max{k}")],
        ReduceKind::Variance => vec![format!("mean{k}"), format!("spread{k}"), format!("off{k}")],
        ReduceKind::ArgMax => vec![format!("best{k}"), format!("at{k}")],
    }
}

/// Statements that declare an empty state.
fn initial(kind: ReduceKind, k: usize, value_type: &str) -> String {
    let negative_infinity = "from_bits(0xff800000u)";
    let values = match kind {
        ReduceKind::Sum => vec!["0.0", "0.0"],
        ReduceKind::Max => vec![negative_infinity],
        ReduceKind::Variance => vec!["0.0", "0.0", "0.0"],
        // A position behind all others, which are below 2^24.
        ReduceKind::ArgMax => vec![negative_infinity, "16777216.0"],
    };
    let declare = |(name, value): (&String, &str)| format!("    var {name} = {value_type}({value});\n");
    names(kind, k).iter().zip(values).map(declare).collect()
}

/// Statements that add `value`, the value at position `j` and number `count` of this state.
/// Welford's update for the variance: `spread` is the sum of squared differences from `mean`.
fn update(kind: ReduceKind, k: usize, value: &str, vector: bool) -> String {
    let suffix = if vector { "4" } else { "" };
    let (value_type, condition) = if vector { ("vec4<f32>", "vec4<bool>") } else { ("f32", "bool") };
    match kind {
        ReduceKind::Sum => add(&format!("sum{k}"), k, value, suffix),
        ReduceKind::Max => format!("    max{k} = maximum_{suffix}(max{k}, {value});\n"),
        ReduceKind::Variance => format!(
            "    let delta{k} = {value} - mean{k};\n    \
             mean{k} += delta{k} / count;\n    \
             spread{k} += delta{k} * ({value} - mean{k});\n"
        ),
        ReduceKind::ArgMax => format!(
            "    let better{k} = ({value} > best{k}) | (is_nan{suffix}({value}) & !is_nan{suffix}(best{k})) | \
             {condition}(count == 1.0);\n    \
             best{k} = select(best{k}, {value}, better{k});\n    \
             at{k} = select(at{k}, {value_type}(f32(j)), better{k});\n"
        ),
    }
}

/// Statements that merge another state of `count_b` values, with the values `parts`, into one of `count`
/// values. Chan's formula for the variance. Of equal maxima the first position wins, whatever the order.
fn merge(kind: ReduceKind, k: usize, parts: &[String], vector: bool) -> String {
    let suffix = if vector { "4" } else { "" };
    match kind {
        ReduceKind::Sum => {
            format!("{}    off{k} += {};\n", add(&format!("sum{k}"), k, &parts[0], suffix), parts[1])
        }
        ReduceKind::Max => format!("    max{k} = maximum_{suffix}(max{k}, {});\n", parts[0]),
        ReduceKind::Variance => format!(
            "    let share{k} = count_b / (count + count_b);\n    \
             let delta{k} = {} - mean{k};\n    \
             mean{k} += delta{k} * share{k};\n\
             {}    off{k} += {} + delta{k} * delta{k} * (count * share{k});\n",
            parts[0],
            add(&format!("spread{k}"), k, &parts[1], suffix),
            parts[2]
        ),
        ReduceKind::ArgMax => format!(
            "    let value{k} = {};\n    \
             let place{k} = {};\n    \
             let first{k} = place{k} < at{k};\n    \
             let better{k} = (value{k} > best{k}) | ((value{k} == best{k}) & first{k}) | \
             (is_nan{suffix}(value{k}) & (!is_nan{suffix}(best{k}) | first{k}));\n    \
             best{k} = select(best{k}, value{k}, better{k});\n    \
             at{k} = select(at{k}, place{k}, better{k});\n",
            parts[0], parts[1]
        ),
    }
}

/// Statements that add `value` to `sum`, the sum of accumulator `k`, and what that rounds off to `off`.
fn add(sum: &str, k: usize, value: &str, suffix: &str) -> String {
    format!(
        "    let value{k} = {value};\n    \
         off{k} += rounded_off_{suffix}({sum}, value{k}, zero);\n    \
         {sum} += value{k};\n"
    )
}

/// The finished value of a state over `count` values.
fn result(kind: ReduceKind, k: usize, count: usize, vector: bool) -> String {
    let suffix = if vector { "4" } else { "" };
    match kind {
        ReduceKind::Sum => format!("total_{suffix}(sum{k}, off{k})"),
        ReduceKind::Max => format!("max{k}"),
        ReduceKind::Variance => format!("(total_{suffix}(spread{k}, off{k}) / {count}.0)"),
        ReduceKind::ArgMax => format!("at{k}"),
    }
}
