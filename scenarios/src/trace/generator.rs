//! Shapes of a rate over time that can stand in for a trace, and their text in a scenario file.

use std::f64::consts::TAU;
use std::fmt::Write as _;

use serde::Serialize;

/// A rate over time; times in seconds from the start of the run, rates per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum GeneratorShape {
    Constant {
        rate_per_s: f64,
    },
    /// `rate (1 + amplitude cos(2π (t - peak_at) / period))`, amplitude in `0..=1`.
    Diurnal {
        rate_per_s: f64,
        amplitude: f64,
        period_s: f64,
        peak_at_s: f64,
    },
    /// `base + (peak - base) min(1, L(t) / 0.9) D(t)`: the logistic `L` is 0.1 at `start` and 0.9, the peak,
    /// at `start + rise`; from there the decay `D` falls to a half within `half_life`.
    Viral {
        base_per_s: f64,
        peak_per_s: f64,
        start_s: f64,
        rise_s: f64,
        half_life_s: f64,
        decay: ViralDecay,
    },
    /// `base` up to `start`, a straight ramp to `peak`, `hold`, then exponential decay back to `base`.
    Launch {
        base_per_s: f64,
        peak_per_s: f64,
        start_s: f64,
        ramp_s: f64,
        hold_s: f64,
        half_life_s: f64,
    },
}

/// How a wave fades: `2^(-t / half_life)` or `1 / (1 + t / half_life)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViralDecay {
    Exponential,
    Power,
}

impl GeneratorShape {
    /// The kind's name in a scenario file.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Constant { .. } => "constant",
            Self::Diurnal { .. } => "diurnal",
            Self::Viral { .. } => "viral",
            Self::Launch { .. } => "launch",
        }
    }

    /// Rate at `t_s` seconds from the start, 1/s.
    #[must_use]
    pub fn rate_at(&self, t_s: f64) -> f64 {
        match *self {
            Self::Constant { rate_per_s } => rate_per_s,
            Self::Diurnal { rate_per_s, amplitude, period_s, peak_at_s } => {
                rate_per_s * (1.0 + amplitude * libm::cos(TAU * (t_s - peak_at_s) / period_s))
            }
            Self::Viral { base_per_s, peak_per_s, start_s, rise_s, half_life_s, decay } => {
                base_per_s + (peak_per_s - base_per_s) * viral_wave(t_s - start_s, rise_s, half_life_s, decay)
            }
            Self::Launch { base_per_s, peak_per_s, start_s, ramp_s, hold_s, half_life_s } => {
                base_per_s
                    + (peak_per_s - base_per_s) * launch_wave(t_s - start_s, ramp_s, hold_s, half_life_s)
            }
        }
    }

    /// The section `[workload.arrivals]` of a scenario file; `burstiness` is the CV of gaps.
    #[must_use]
    pub fn to_toml(&self, burstiness: Option<f64>) -> String {
        let mut text = format!("[workload.arrivals]\nkind = \"{}\"\n", self.kind());
        let rate = |name: &str, value: f64| format!("{name} = {:?}\n", rounded(value));
        let time = |name: &str, value: f64| format!("{name} = \"{}\"\n", duration_text(value));
        text += &match *self {
            Self::Constant { rate_per_s } => rate("rate_per_s", rate_per_s),
            Self::Diurnal { rate_per_s, amplitude, period_s, peak_at_s } => [
                rate("rate_per_s", rate_per_s),
                rate("amplitude", amplitude),
                time("period", period_s),
                time("peak_at", peak_at_s),
            ]
            .concat(),
            Self::Viral { base_per_s, peak_per_s, start_s, rise_s, half_life_s, decay } => [
                rate("base_per_s", base_per_s),
                rate("peak_per_s", peak_per_s),
                time("start", start_s),
                time("rise", rise_s),
                time("half_life", half_life_s),
                match decay {
                    ViralDecay::Exponential => "decay = \"exponential\"\n".to_owned(),
                    ViralDecay::Power => "decay = \"power\"\n".to_owned(),
                },
            ]
            .concat(),
            Self::Launch { base_per_s, peak_per_s, start_s, ramp_s, hold_s, half_life_s } => [
                rate("base_per_s", base_per_s),
                rate("peak_per_s", peak_per_s),
                time("start", start_s),
                time("ramp", ramp_s),
                time("hold", hold_s),
                time("half_life", half_life_s),
            ]
            .concat(),
        };
        if let Some(burstiness) = burstiness {
            writeln!(text, "burstiness = {:?}", rounded(burstiness))
                .expect("writing to a string cannot fail");
        }
        text
    }
}

/// Share of the wave of a viral cascade `t_s` after its start, 1 at the peak.
pub(super) fn viral_wave(t_s: f64, rise_s: f64, half_life_s: f64, decay: ViralDecay) -> f64 {
    // The logistic's odds are 9^((t - middle) / (rise / 2)): 1:9 at the start, 9:1 at start + rise.
    let odds = libm::pow(9.0, (t_s / rise_s - 0.5) * 2.0);
    let risen = if odds.is_finite() { (odds / (1.0 + odds) / 0.9).min(1.0) } else { 1.0 };
    let faded_s = t_s - rise_s;
    if faded_s <= 0.0 {
        return risen;
    }
    match decay {
        ViralDecay::Exponential => libm::exp2(-faded_s / half_life_s),
        ViralDecay::Power => 1.0 / (1.0 + faded_s / half_life_s),
    }
}

/// Share of the wave of a launch `t_s` after its start, 1 on the plateau.
pub(super) fn launch_wave(t_s: f64, ramp_s: f64, hold_s: f64, half_life_s: f64) -> f64 {
    match t_s {
        t if t < 0.0 => 0.0,
        t if t < ramp_s => t / ramp_s,
        t if t < ramp_s + hold_s => 1.0,
        t => libm::exp2(-(t - ramp_s - hold_s) / half_life_s),
    }
}

/// Rounds to five significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().expect("a number in exponent form is a number")
}

/// Writes a time with its unit, to a ten-thousandth of it: `24h`, `1.5min`, `250ms`.
fn duration_text(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 3600.0 => (s / 3600.0, "h"),
        s if s >= 60.0 => (s / 60.0, "min"),
        s if s >= 1.0 || s == 0.0 => (s, "s"),
        s => (s * 1e3, "ms"),
    };
    let digits = format!("{value:.4}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_pass_their_marks() {
        let check =
            |actual: f64, expected: f64| assert!((actual - expected).abs() < 1e-12, "{actual} {expected}");
        for decay in [ViralDecay::Exponential, ViralDecay::Power] {
            let wave = |t| viral_wave(t, 10.0, 20.0, decay);
            check(wave(0.0), 0.1 / 0.9);
            check(wave(5.0), 0.5 / 0.9);
            check(wave(10.0), 1.0);
            check(wave(30.0), 0.5);
            check(wave(-1e9), 0.0);
        }
        check(viral_wave(70.0, 10.0, 20.0, ViralDecay::Power), 0.25);
        let wave = |t| launch_wave(t, 4.0, 10.0, 20.0);
        for (t, share) in [(-1.0, 0.0), (1.0, 0.25), (4.0, 1.0), (13.0, 1.0), (34.0, 0.5), (54.0, 0.25)] {
            check(wave(t), share);
        }
        let day =
            GeneratorShape::Diurnal { rate_per_s: 2.0, amplitude: 0.5, period_s: 24.0, peak_at_s: 20.0 };
        check(day.rate_at(20.0), 3.0);
        check(day.rate_at(8.0), 1.0);
    }

    #[test]
    fn durations_carry_their_unit() {
        let check = |seconds, text| assert_eq!(duration_text(seconds), text);
        check(86_400.0, "24h");
        check(5_400.0, "1.5h");
        check(90.0, "1.5min");
        check(0.25, "250ms");
        check(0.0, "0s");
        check(1.0 / 3.0 * 3600.0, "20min");
    }
}
