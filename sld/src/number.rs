//! Numbers for people.

/// A number with up to six significant digits and none that say nothing: `0.05`, `1e-7`, `1`.
pub fn short(value: f64) -> String {
    // Rounded by way of its digits, and then the shortest text that means the same.
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    if rounded != 0.0 && rounded.abs() < 1e-4 {
        return format!("{rounded:e}");
    }
    let text = format!("{rounded:?}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn small_and_large_numbers_are_shown_as_what_they_are() {
        for (value, shown) in [
            (0.05, "0.05"),
            (1e-7, "1e-7"),
            (1.0, "1"),
            (0.05 * 0.1f64.powi(4), "5e-6"),
            (0.025 * 0.1f64.powi(2), "0.00025"),
            (0.025 * 0.1 * 0.1 * 0.1, "2.5e-5"),
            (0.1 + 0.2, "0.3"),
            (1e-300, "1e-300"),
            (1.0 / 3.0, "0.333333"),
            (100.0, "100"),
            (1234567.0, "1234570"),
            (0.0, "0"),
            (-2.5, "-2.5"),
            (1e20, "1e20"),
        ] {
            assert_eq!(short(value), shown);
        }
        assert_eq!(short(f64::NAN), "NaN");
        assert_eq!(short(f64::INFINITY), "inf");
    }
}
