//! The section `[[workload.source]]` of a scenario for a fitted generator.

use scenarios::trace::{Fit, GeneratorShape, ViralDecay};

/// The section, with the source and the goodness of the fit as comments.
pub(super) fn section(name: &str, sha256: Option<&str>, fit: &Fit) -> String {
    let mut text = format!("# fitted to {}\n", name.replace(['\n', '\r'], " "));
    text.extend(sha256.map(|sha256| format!("# sha256 {sha256}\n")));
    text += &format!("# on {} s bins: R2 {:.3}, peak ratio {:.2}\n", fit.bin_s, fit.r2, fit.peak_ratio);
    text.extend(fit.warnings.iter().map(|warning| format!("# warning: {warning}\n")));
    text + &format!("[[workload.source]]\narrivals = {}\n", arrivals(&fit.shape, fit.burstiness))
}

/// The value of `arrivals`.
fn arrivals(shape: &GeneratorShape, burstiness: Option<f64>) -> String {
    let rate = |name: &str, per_s: f64| format!("{name} = \"{}/s\"", digits(per_s));
    let time = |name: &str, seconds: f64| format!("{name} = \"{}s\"", digits(seconds));
    let mut pairs = vec![format!("kind = \"{}\"", shape.kind())];
    pairs.extend(match *shape {
        GeneratorShape::Constant { rate_per_s } => vec![rate("rate", rate_per_s)],
        GeneratorShape::Diurnal { rate_per_s, amplitude, period_s, peak_at_s } => vec![
            rate("rate", rate_per_s),
            format!("amplitude = {}", digits(amplitude)),
            time("period", period_s),
            time("peak_at", peak_at_s),
        ],
        GeneratorShape::Viral { base_per_s, peak_per_s, start_s, rise_s, half_life_s, decay } => vec![
            rate("base", base_per_s),
            rate("peak", peak_per_s),
            time("start", start_s),
            time("rise", rise_s),
            time("half_life", half_life_s),
            match decay {
                ViralDecay::Exponential => "decay = \"exponential\"".to_owned(),
                ViralDecay::Power => "decay = \"power\"".to_owned(),
            },
        ],
        GeneratorShape::Launch { base_per_s, peak_per_s, start_s, ramp_s, hold_s, half_life_s } => vec![
            rate("base", base_per_s),
            rate("peak", peak_per_s),
            time("start", start_s),
            time("ramp", ramp_s),
            time("hold", hold_s),
            time("half_life", half_life_s),
        ],
    });
    pairs.extend(burstiness.map(|cv| format!("burstiness = {}", digits(cv))));
    format!("{{ {} }}", pairs.join(", "))
}

/// Five significant digits, without an exponent.
fn digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.4e}").parse().expect("a number in exponent form is a number");
    rounded.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_section_that_scenarios_take() {
        let shapes = [
            GeneratorShape::Constant { rate_per_s: 0.010_814_3 },
            GeneratorShape::Diurnal {
                rate_per_s: 12.0,
                amplitude: 0.5,
                period_s: 86_400.0,
                peak_at_s: 51_234.567,
            },
            GeneratorShape::Viral {
                base_per_s: 0.0,
                peak_per_s: 1_234_567.0,
                start_s: 0.0,
                rise_s: 0.001,
                half_life_s: 1e7,
                decay: ViralDecay::Power,
            },
            GeneratorShape::Launch {
                base_per_s: 1e-9,
                peak_per_s: 2.0,
                start_s: 10.0,
                ramp_s: 20.0,
                hold_s: 30.0,
                half_life_s: 40.0,
            },
        ];
        let rest = "[[pipeline.stage]]\nname = \"infer\"\npool = \"main\"\ntime = \"4s\"\n\
                    [fleet.pool.main]\nprice = \"0.526 USD/h\"\ncount = 10\n";
        for shape in shapes {
            for burstiness in [None, Some(2.5)] {
                let text =
                    format!("[[workload.source]]\narrivals = {}\n{rest}", arrivals(&shape, burstiness));
                let loaded = scenarios::load_str("t", &text, std::path::Path::new("."), &[]);
                assert!(loaded.is_ok(), "{text}\n{:?}", loaded.err());
            }
        }
    }

    #[test]
    fn numbers_keep_five_digits() {
        assert_eq!(
            (digits(51_234.567), digits(1e-9), digits(0.0)),
            ("51235".into(), "0.000000001".into(), "0".into())
        );
    }
}
