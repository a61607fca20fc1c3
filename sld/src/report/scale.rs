//! From values to places on an axis, and the marks at the axis.

/// One axis: a range of values, laid out evenly or by magnitude.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub low: f64,
    pub high: f64,
    pub logarithmic: bool,
}

impl Scale {
    /// A range around the values that begins and ends at round numbers.
    pub fn around(values: impl Iterator<Item = f64>, zero: bool) -> Self {
        let (mut low, mut high) = bounds(values);
        if zero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if high - low < 1e-9 * high.abs().max(1e-9) {
            let room = 0.5 * low.abs().max(0.1);
            (low, high) = (if zero { 0.0 } else { low - room }, high + room);
        }
        let step = round_step((high - low) / 5.0);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, logarithmic: false }
    }

    /// A range by magnitude around positive values, from power of ten to power of ten.
    pub fn magnitudes(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values.filter(|value| *value > 0.0));
        let low = 10f64.powf(low.max(1e-30).log10().floor());
        let high = 10f64.powf(high.log10().ceil()).max(low * 10.0);
        Self { low, high, logarithmic: true }
    }

    /// Exactly the range of the values.
    pub fn exactly(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = bounds(values);
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, logarithmic: false }
    }

    /// Where a value lies, 0 at the low end and 1 at the high end.
    pub fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// Round values to mark, about `wanted` of them.
    pub fn ticks(&self, wanted: usize) -> Vec<f64> {
        if self.logarithmic {
            let (from, to) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
            let every = ((to - from) as usize).div_ceil(wanted.max(1)).max(1);
            return (from..=to).step_by(every).map(|power| 10f64.powi(power)).collect();
        }
        let step = round_step((self.high - self.low) / wanted.max(1) as f64);
        let first = (self.low / step - 1e-6).ceil() as i64;
        let last = (self.high / step + 1e-6).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

/// The least of 1, 2, 5, 10, ... times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let leading = step / power;
    power * [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| leading <= round * 1.000_001).unwrap_or(10.0)
}

/// A mark's label: as many decimals as its neighbours need.
pub fn label(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let magnitude = value.abs().log10();
    if !(-4.0..7.0).contains(&magnitude) {
        return format!("{value:.0e}");
    }
    let decimals = (-step.abs().log10() - 1e-6).ceil().clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_at_round_numbers_and_contain_the_values() {
        let scale = Scale::around([31.4, 77.3].into_iter(), false);
        assert_eq!((scale.low, scale.high), (30.0, 80.0));
        let scale = Scale::around([0.013, 0.27].into_iter(), true);
        assert_eq!(scale.low, 0.0);
        assert!((scale.high - 0.3).abs() < 1e-12, "{scale:?}");
        assert_eq!(
            Scale::magnitudes([0.025, 2.5e-5].into_iter()),
            Scale { low: 1e-5, high: 0.1, logarithmic: true }
        );
        // A value that is 0 has no magnitude.
        assert_eq!(
            Scale::magnitudes([0.0, 0.2, 0.05].into_iter()),
            Scale { low: 0.01, high: 1.0, logarithmic: true }
        );
    }

    #[test]
    fn ranges_exist_for_no_value_one_value_and_values_that_are_not_numbers() {
        for values in [&[][..], &[3.0], &[0.0], &[f64::NAN, f64::INFINITY], &[-2.0, -2.0], &[1e-12, 1e-12]] {
            for scale in [
                Scale::around(values.iter().copied(), true),
                Scale::around(values.iter().copied(), false),
                Scale::magnitudes(values.iter().copied()),
                Scale::exactly(values.iter().copied()),
            ] {
                assert!(
                    scale.low < scale.high && scale.low.is_finite() && scale.high.is_finite(),
                    "{values:?}: {scale:?}"
                );
                assert!(
                    (2..=12).contains(&scale.ticks(5).len()) || scale.ticks(5).len() == 1,
                    "{values:?}: {scale:?}"
                );
            }
        }
    }

    #[test]
    fn marks_are_round_and_labelled_without_noise() {
        let scale = Scale { low: 1.0, high: 240.0, logarithmic: false };
        assert_eq!(scale.ticks(6), [50.0, 100.0, 150.0, 200.0]);
        let scale = Scale::around([0.1, 0.52].into_iter(), false);
        let labels: Vec<String> = scale.ticks(5).iter().map(|tick| label(*tick, 0.1)).collect();
        assert_eq!(labels, ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]);
        assert_eq!(label(1e-5, 1e-5), "1e-5");
        assert_eq!(label(0.001, 0.001), "0.001");
    }

    #[test]
    fn places_run_from_zero_to_one() {
        let scale = Scale { low: 1e-4, high: 1.0, logarithmic: true };
        assert!((scale.place(1e-2) - 0.5).abs() < 1e-12);
        assert_eq!(scale.place(0.0), 0.0);
        let even = Scale { low: 10.0, high: 20.0, logarithmic: false };
        assert_eq!((even.place(10.0), even.place(15.0), even.place(20.0)), (0.0, 0.5, 1.0));
    }
}
