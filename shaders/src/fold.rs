//! The running states of folds, as WGSL statements. State `k` of a kernel is a few variables; partial
//! states travel through scratch memory as [`StateKind::width`] values each.

use std::fmt::Write;

use schedule::ir::ReduceKind;

/// Values in a state of this kind.
pub fn width(kind: ReduceKind) -> usize {
    match kind {
        ReduceKind::Sum | ReduceKind::Max => 1,
        ReduceKind::Variance | ReduceKind::ArgMax => 2,
    }
}

/// Names of the variables of accumulator `k`.
pub fn names(kind: ReduceKind, k: usize) -> Vec<String> {
    match kind {
        ReduceKind::Sum => vec![format!("sum{k}")],
        ReduceKind::Max => vec![format!("max{k}")],
        ReduceKind::Variance => vec![format!("mean{k}"), format!("spread{k}")],
        ReduceKind::ArgMax => vec![format!("best{k}"), format!("at{k}")],
    }
}

/// Statements that declare an empty state; `start` is the position of the first value to come.
pub fn initial(kind: ReduceKind, k: usize, value_type: &str, start: &str) -> String {
    let negative_infinity = "from_bits(0xff800000u)";
    let values = match kind {
        ReduceKind::Sum => vec!["0.0".to_string()],
        ReduceKind::Max => vec![negative_infinity.to_string()],
        ReduceKind::Variance => vec!["0.0".to_string(), "0.0".to_string()],
        ReduceKind::ArgMax => vec![negative_infinity.to_string(), format!("f32({start})")],
    };
    let mut text = String::new();
    for (name, value) in names(kind, k).iter().zip(values) {
        let _ = writeln!(text, "    var {name} = {value_type}({value});");
    }
    text
}

/// Statements that add `value`, the value at position `j` of a chunk that began at `start`.
/// Welford's update for the variance: `spread` is the sum of squared differences from `mean`.
pub fn update(kind: ReduceKind, k: usize, value: &str, vector: bool) -> String {
    let suffix = if vector { "4" } else { "" };
    let value_type = if vector { "vec4<f32>" } else { "f32" };
    match kind {
        ReduceKind::Sum => format!("    sum{k} += {value};\n"),
        ReduceKind::Max => format!("    max{k} = maximum_{suffix}(max{k}, {value});\n"),
        ReduceKind::Variance => format!(
            "    let delta{k} = {value} - mean{k};\n    \
             mean{k} += delta{k} / f32(j - start + 1);\n    \
             spread{k} += delta{k} * ({value} - mean{k});\n"
        ),
        ReduceKind::ArgMax => format!(
            "    let better{k} = ({value} > best{k}) | (is_nan{suffix}({value}) & !is_nan{suffix}(best{k}));\n    \
             best{k} = select(best{k}, {value}, better{k});\n    \
             at{k} = select(at{k}, {value_type}(f32(j)), better{k});\n"
        ),
    }
}

/// Statements that merge a later chunk's state, read from `parts`, into the running one. `count_a` and
/// `count_b` are the numbers of values in each (Chan's formula for the variance).
pub fn merge(kind: ReduceKind, k: usize, parts: &[String], vector: bool) -> String {
    let suffix = if vector { "4" } else { "" };
    match kind {
        ReduceKind::Sum => format!("    sum{k} += {};\n", parts[0]),
        ReduceKind::Max => format!("    max{k} = maximum_{suffix}(max{k}, {});\n", parts[0]),
        ReduceKind::Variance => format!(
            "    let delta{k} = {} - mean{k};\n    \
             mean{k} += delta{k} * (count_b / (count_a + count_b));\n    \
             spread{k} += {} + delta{k} * delta{k} * (count_a * (count_b / (count_a + count_b)));\n",
            parts[0], parts[1]
        ),
        ReduceKind::ArgMax => format!(
            "    let value{k} = {};\n    \
             let better{k} = (value{k} > best{k}) | (is_nan{suffix}(value{k}) & !is_nan{suffix}(best{k}));\n    \
             best{k} = select(best{k}, value{k}, better{k});\n    \
             at{k} = select(at{k}, {}, better{k});\n",
            parts[0], parts[1]
        ),
    }
}

/// The finished value of a state over `count` values.
pub fn result(kind: ReduceKind, k: usize, count: usize) -> String {
    match kind {
        ReduceKind::Sum => format!("sum{k}"),
        ReduceKind::Max => format!("max{k}"),
        ReduceKind::Variance => format!("(spread{k} / {count}.0)"),
        ReduceKind::ArgMax => format!("at{k}"),
    }
}
