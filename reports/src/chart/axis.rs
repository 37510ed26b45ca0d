//! Ranges and ticks of an axis: round numbers that a reader can follow, linear or logarithmic.

/// Largest share of the largest value at which small values still show on a linear axis; above it, logarithmic.
const LINEAR_SPAN_MAX: f64 = 20.0;

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Equal steps.
    Linear,
    /// Equal factors.
    Log,
}

/// An axis that holds all its values, with its ticks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) scale: Scale,
    /// Start, in values.
    pub(crate) low: f64,
    /// End, above `low`.
    pub(crate) high: f64,
    /// Rising, inside the range.
    pub(crate) ticks: Vec<f64>,
}

impl Axis {
    /// An axis for finite values of at least 0, with about `tick_count` ticks. Logarithmic when all values are positive
    /// and the largest is above [`LINEAR_SPAN_MAX`] times the smallest.
    pub(crate) fn around(values: impl Iterator<Item = f64>, tick_count: usize) -> Self {
        let (least, most) =
            values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if least > 0.0 && least.is_finite() && most / least > LINEAR_SPAN_MAX {
            return Self::log(least, most);
        }
        Self::linear(most, tick_count)
    }

    /// An axis from 0 to a little above `most`.
    pub(crate) fn linear(most: f64, tick_count: usize) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = round_step(most / tick_count.max(1) as f64);
        let count = (most * 1.05 / step).ceil().max(1.0);
        let ticks = (0..=count as usize).map(|index| index as f64 * step).collect();
        Self { scale: Scale::Linear, low: 0.0, high: count * step, ticks }
    }

    fn log(least: f64, most: f64) -> Self {
        let (low, high) = (least / 1.4, most * 1.4);
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let wide = high / low > 300.0;
        let digits: &[f64] = if wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let ticks = decades
            .flat_map(|decade| digits.iter().map(move |digit| digit * 10_f64.powi(decade)))
            .filter(|tick| (low..=high).contains(tick))
            .collect();
        Self { scale: Scale::Log, low, high, ticks }
    }

    /// Where `value` lies, 0 at the start of the axis and 1 at its end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        }
    }

    /// `tick` in the fewest digits that tell all ticks apart; on a linear axis all have the same.
    pub(crate) fn label(&self, tick: f64) -> String {
        let step = match self.scale {
            Scale::Linear => self.high - self.ticks[self.ticks.len() - 2],
            Scale::Log => tick,
        };
        let exact = |decimals: i32| {
            let scaled = step * 10_f64.powi(decimals);
            (scaled - scaled.round()).abs() < scaled * 1e-6
        };
        let decimals = (0..9).find(|decimals| exact(*decimals)).unwrap_or(9) as usize;
        grouped(&format!("{tick:.decimals$}"))
    }
}

/// The smallest of 1, 2, 2.5, 5, 10 times a power of ten that is at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| factor * power >= least * 0.999_999);
    factor.unwrap_or(10.0) * power
}

/// Thousands in groups.
fn grouped(number: &str) -> String {
    let (whole, fraction) = number.find('.').map_or((number, ""), |dot| number.split_at(dot));
    let mut text = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        for (most, labels) in [
            (7.0, "0 2 4 6 8"),
            (0.9, "0.00 0.25 0.50 0.75 1.00"),
            (0.0, "0.00 0.25 0.50 0.75 1.00 1.25"),
            (45_000.0, "0 20,000 40,000 60,000"),
            (9.9, "0.0 2.5 5.0 7.5 10.0 12.5"),
        ] {
            let axis = Axis::linear(most, 4);
            let found: Vec<String> = axis.ticks.iter().map(|tick| axis.label(*tick)).collect();
            assert_eq!(found.join(" "), labels, "{most}");
            assert!(axis.high > most);
        }
    }

    #[test]
    fn a_wide_range_becomes_logarithmic() {
        let axis = Axis::around([0.4, 3.0, 40.0].into_iter(), 5);
        let labels: Vec<String> = axis.ticks.iter().map(|tick| axis.label(*tick)).collect();
        assert_eq!((axis.scale, labels.join(" ").as_str()), (Scale::Log, "0.5 1 2 5 10 20 50"));
        assert_eq!(Axis::around([0.0, 40.0].into_iter(), 5).scale, Scale::Linear);
        assert_eq!(Axis::around([30.0, 40.0].into_iter(), 5).scale, Scale::Linear);
    }

    #[test]
    fn places_run_from_zero_to_one() {
        for axis in [Axis::linear(8.0, 4), Axis::around([1.0, 100.0].into_iter(), 4)] {
            assert!((axis.place(axis.low)).abs() < 1e-12 && (axis.place(axis.high) - 1.0).abs() < 1e-12);
        }
        let log = Axis::around([1.0, 100.0].into_iter(), 4);
        assert!((log.place(10.0) - 0.5).abs() < 1e-12);
    }
}
