//! Distances between results and references.

/// Euclidean norm.
pub fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// `|actual - expected| / max(|expected|, floor)` in the Euclidean norm. Infinite if anything is not
/// finite or the lengths differ, so that it fails every comparison.
pub fn relative(actual: &[f64], expected: &[f64], floor: f64) -> f64 {
    if actual.len() != expected.len() || actual.iter().chain(expected).any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let difference: Vec<f64> = actual.iter().zip(expected).map(|(a, e)| a - e).collect();
    match norm(&difference) {
        0.0 => 0.0,
        distance => distance / norm(expected).max(floor),
    }
}

/// Panics, naming `what`, unless [`relative`] is within `tolerance`.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    let error = relative(actual, expected, 0.0);
    assert!(
        error <= tolerance,
        "{what}: relative error {error:.3e} over {tolerance:.1e}\n  is        {}\n  should be {}",
        head(actual),
        head(expected)
    );
}

fn head(values: &[f64]) -> String {
    let shown: Vec<String> = values.iter().take(6).map(|v| format!("{v:.7e}")).collect();
    format!("[{}{}] ({} values)", shown.join(", "), if values.len() > 6 { ", .." } else { "" }, values.len())
}
