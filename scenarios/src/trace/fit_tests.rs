//! Facts about fitting: shapes that were drawn are found again.

use super::random::tests::SplitMix;
use super::random::{Exponential, gamma};
use super::*;

const MINUTE_NS: u64 = 60_000_000_000;

/// Draws Poisson counts per minute from `shape`.
fn drawn(shape: &GeneratorShape, minutes: u64) -> Trace {
    let (law, mut random) = (Exponential::new(), SplitMix(21));
    let bins = (0..minutes).filter_map(|m| {
        let mean = shape.rate_at((m as f64 + 0.5) * 60.0) * 60.0;
        let (mut spent, mut count) = (law.draw(&mut random), 0.0);
        while spent < mean {
            spent += law.draw(&mut random);
            count += 1.0;
        }
        (count > 0.0).then_some((m, count))
    });
    let data = TraceData::Counts(Counts::new(MINUTE_NS, minutes, bins.collect(), Vec::new()));
    Trace { source: Source { name: "t".into(), format: TraceFormat::Rows, sha256: None }, start: None, data }
}

/// Asks that the fit of draws from `shape` has its kind and its parameters within `share` of each.
fn check(shape: GeneratorShape, minutes: u64, share: f64) {
    let fit = drawn(&shape, minutes).fit();
    assert_eq!(fit.shape.kind(), shape.kind(), "{fit:?}");
    let numbers = |shape: &GeneratorShape| match serde_json::to_value(shape).unwrap() {
        serde_json::Value::Object(fields) => fields,
        other => panic!("{other}"),
    };
    let found = numbers(&fit.shape);
    for (name, value) in numbers(&shape) {
        match value.as_f64() {
            Some(value) => {
                let found = found[&name].as_f64().unwrap();
                assert!((found - value).abs() <= share * value, "{name}: {found}, drawn from {value}");
            }
            None => assert_eq!(found[&name], value, "{name}"),
        }
    }
    assert!((fit.dispersion_left - 1.0).abs() < 0.35, "{}", fit.dispersion_left);
    assert!(!fit.warnings.iter().any(|w| w.contains("poor")), "{:?}", fit.warnings);
}

#[test]
fn drawn_shapes_are_found_again() {
    check(GeneratorShape::Constant { rate_per_s: 2.0 }, 5_000, 0.05);
    let day =
        GeneratorShape::Diurnal { rate_per_s: 1.0, amplitude: 0.6, period_s: 86_400.0, peak_at_s: 72_000.0 };
    check(day, 3 * 1_440, 0.05);
    for decay in [ViralDecay::Exponential, ViralDecay::Power] {
        let wave = GeneratorShape::Viral {
            base_per_s: 1.0,
            peak_per_s: 40.0,
            start_s: 7_200.0,
            rise_s: 3_600.0,
            half_life_s: 10_800.0,
            decay,
        };
        check(wave, 1_440, 0.15);
    }
    let launch = GeneratorShape::Launch {
        base_per_s: 2.0,
        peak_per_s: 50.0,
        start_s: 10_000.0,
        ramp_s: 3_000.0,
        hold_s: 15_000.0,
        half_life_s: 4_000.0,
    };
    check(launch, 1_440, 0.1);
}

#[test]
fn burstiness_is_the_cv_of_gaps() {
    for (shape, expected) in [(0.25, Some(2.0)), (1.0, None), (4.0, Some(0.5))] {
        let (mut random, mut at) = (SplitMix(9), 0.0);
        let rows: Vec<Row<'_>> = (0..20_000)
            .map(|_| {
                at += gamma(shape, &mut random) / shape;
                Row { at_ns: (at * 1e9) as i64, ..Row::default() }
            })
            .collect();
        let fit = Trace::from_rows("t", rows, false, &ImportOptions::default()).unwrap().fit();
        match (fit.burstiness, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => {
                assert!((found / expected - 1.0).abs() < 0.1, "{found} {expected}")
            }
            other => panic!("{other:?} at shape {shape}"),
        }
    }
}

#[test]
fn poor_fits_are_called_so() {
    // A wave of 2 h: none of the kinds has it.
    let wave = |m: i64| 100.0 + 90.0 * f64::sin(m as f64 / 120.0 * std::f64::consts::TAU);
    let rows =
        (0..3_000).map(|m| Row { at_ns: m * MINUTE_NS as i64, count: Some(wave(m)), ..Row::default() });
    let fit = Trace::from_rows("t", rows, false, &ImportOptions::default()).unwrap().fit();
    assert!(fit.warnings.iter().any(|w| w.starts_with("poor fit")), "{:?}", fit.warnings);
    assert!(fit.toml.contains("# warning: poor fit"), "{}", fit.toml);
}

#[test]
fn one_request_fits_a_constant() {
    let rows = [Row::default()];
    let fit = Trace::from_rows("t", rows, false, &ImportOptions::default()).unwrap().fit();
    assert_eq!(fit.shape.kind(), "constant");
    assert!([fit.r2, fit.peak_ratio, fit.dispersion_left].iter().all(|x| x.is_finite()), "{fit:?}");
}

#[test]
fn text_is_a_section_with_units() {
    let shape = GeneratorShape::Viral {
        base_per_s: 0.5,
        peak_per_s: 40.0,
        start_s: 3_600.0,
        rise_s: 1_800.0,
        half_life_s: 7_200.0,
        decay: ViralDecay::Power,
    };
    let table: toml::Table = shape.to_toml(Some(2.0)).parse().unwrap();
    let arrivals = &table["workload"]["arrivals"];
    let text = |key: &str| arrivals[key].as_str().unwrap();
    assert_eq!(
        [text("kind"), text("start"), text("rise"), text("half_life"), text("decay")],
        ["viral", "1h", "30min", "2h", "power"]
    );
    assert_eq!(
        (arrivals["peak_per_s"].as_float(), arrivals["burstiness"].as_float()),
        (Some(40.0), Some(2.0))
    );
}
