//! Facts about the public traces, where they are at hand (`HEADROOM_TRACES`), against their measured figures.

use std::path::{Path, PathBuf};

use super::random::tests::SplitMix;
use super::*;

/// The folder of public traces, or `None` with a line that says so.
fn traces() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces");
    let folder = std::env::var_os("HEADROOM_TRACES").map_or(default, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: traces not found at {}", folder.display());
    None
}

/// Asks that `actual` is `expected` to the half of the last digit given.
fn close(what: &str, actual: f64, expected: f64, within: f64) {
    assert!((actual - expected).abs() <= within, "{what}: {actual}, published {expected} ± {within}");
}

fn import(folder: &Path, file: &str) -> Trace {
    Trace::import(&folder.join(file), &ImportOptions::default()).unwrap()
}

fn peak(d: &Description, window_s: f64) -> Peak {
    *d.peaks.iter().find(|p| p.window_s == window_s).unwrap()
}

#[test]
fn genai_requests_have_their_figures() {
    let Some(folder) = traces() else { return };
    let trace = import(&folder, "1_genai_requests/lora_request_trace_2024-11-15_to_2024-11-30.csv");
    let d = trace.describe();
    assert_eq!((d.count, d.format, d.resolution_s), (14_279.0, TraceFormat::AlibabaGenai, 1.0));
    close("span, d", d.span_s / 86_400.0, 15.28, 0.005);
    close("mean", d.mean_per_s, 0.01081, 0.00001);
    close("cv", d.cv, 11.5, 0.05);
    close("silence", d.silence_max_s, 47_958.0, 0.0);
    for (window_s, count, ratio) in
        [(60.0, 13.0, 20.0), (600.0, 78.0, 12.0), (3600.0, 357.0, 9.2), (86_400.0, 1926.0, 2.1)]
    {
        assert_eq!(peak(&d, window_s).count, count);
        close("peak/mean", peak(&d, window_s).to_mean, ratio, if ratio < 10.0 { 0.05 } else { 0.5 });
    }
    let TraceData::Timestamps(stamps) = &trace.data else { panic!("requests have times") };
    let exec = stamps.exec_s.as_ref().unwrap();
    close("exec", exec.iter().map(|e| f64::from(*e)).sum::<f64>() / exec.len() as f64, 26.4, 0.05);
    assert_eq!(stamps.model.as_ref().unwrap().names.len(), 77);
    let class = stamps.class.as_ref().unwrap();
    let drawn = (0..exec.len()).filter(|row| class.name(*row) == Some("TXT_2_IMG")).count();
    assert_eq!(drawn, 13_066);
}

#[test]
fn azure_requests_have_their_figures() {
    let Some(folder) = traces() else { return };
    let d = import(&folder, "2_llm_requests/AzureLLMInferenceTrace_conv.csv").describe();
    assert_eq!((d.count, d.resolution_s), (19_366.0, 1e-7));
    close("span", d.span_s, 3_501.7, 0.05);
    close("mean", d.mean_per_s, 5.530, 0.0005);
    close("cv", d.cv, 1.09, 0.005);
    close("silence", d.silence_max_s, 4.3, 0.05);
    assert_eq!(d.peak_per_s, 16.0);
    for (window_s, count, ratio, within) in
        [(1.0, 16.0, 2.9, 0.05), (10.0, 98.0, 1.77, 0.005), (60.0, 507.0, 1.53, 0.005)]
    {
        assert_eq!(peak(&d, window_s).count, count);
        close("peak/mean", peak(&d, window_s).to_mean, ratio, within);
    }
}

#[test]
fn servegen_clients_have_their_figures() {
    let Some(folder) = traces() else { return };
    let rates = ClientRates::read(&folder.join("2_llm_requests/deepseek-r1_clients.csv.gz")).unwrap();
    assert_eq!((rates.clients.len(), rates.window_count()), (73, 144));
    let laws = |wanted: fn(&Option<GapLaw>) -> bool| {
        rates.clients.iter().flatten().filter(|w| wanted(&w.law)).count()
    };
    assert_eq!(laws(|l| l.is_none()), 7_401);
    assert_eq!(laws(|l| matches!(l, Some(GapLaw::Gamma { .. }))), 2_589);
    assert_eq!(laws(|l| matches!(l, Some(GapLaw::Weibull { .. }))), 522);
    let d = rates.describe().unwrap();
    close("mean", d.mean_per_s, 16.0, 0.05);
    close("peak", d.peak_per_s, 42.5, 0.05);
    close("peak/mean", d.peak_to_mean, 2.7, 0.05);
    close("cv", d.cv, 2.28, 0.005);
    let drawn = rates.draw(SplitMix(1)).count() as f64;
    close("drawn / expected", drawn / d.count, 1.0, 0.02);
}

#[test]
fn viral_counts_have_their_figures() {
    let Some(folder) = traces() else { return };
    let d = import(&folder, "3_viral_counts/wc98_requests_per_minute_1998-04-30_to_06-25.csv").describe();
    assert_eq!((d.count, d.missing_bins), (778_002_350.0, 10));
    close("span, d", d.span_s / 86_400.0, 56.10, 0.005);
    close("mean", d.mean_per_s, 160.5, 0.05);
    close("peak", d.peak_per_s, 3_554.0, 0.5);
    close("peak/mean", d.peak_to_mean, 22.1, 0.05);
    close("cv", d.cv, 1.66, 0.005);
    close("step up", d.bursts.step_up_max.unwrap(), 12.0, 0.5);
    for (name, rows, mean, peak, ratio, cv) in [
        ("AMZN", 15_831.0, 53.3, 1_673.0, 31.0, 0.57),
        ("GOOG", 15_842.0, 20.7, 465.0, 22.0, 0.90),
        ("FB", 15_833.0, 17.8, 1_258.0, 71.0, 1.11),
        ("UPS", 15_866.0, 5.46, 231.0, 42.0, 3.95),
        ("IBM", 15_893.0, 4.39, 139.0, 32.0, 1.25),
        ("CRM", 15_902.0, 3.35, 209.0, 62.0, 1.37),
        ("PFE", 15_858.0, 0.87, 36.0, 42.0, 1.69),
        ("CVS", 15_853.0, 0.36, 50.0, 139.0, 3.04),
    ] {
        let d = import(&folder, &format!("3_viral_counts/Twitter_volume_{name}.csv")).describe();
        assert_eq!(d.span_s, rows * 300.0, "{name}");
        close(name, d.mean_per_s * 300.0, mean, if mean > 10.0 { 0.05 } else { 0.005 });
        close(name, d.peak_per_s * 300.0, peak, 1e-6);
        close(name, d.peak_to_mean, ratio, 0.5);
        close(name, d.cv, cv, 0.005);
    }
}

#[test]
fn spot_zones_have_their_figures() {
    let Some(folder) = traces() else { return };
    let options = ImportOptions::default();
    let of = |name: &str| match Survey::of(&folder.join("4_spot_availability").join(name), &options).unwrap()
    {
        Survey::Spot(spot) => spot,
        other => panic!("{other:?}"),
    };
    let one = of("aws-02-15-2023_p3.2xlarge_1node");
    let expected = [
        ("us-east-1a", 0.167, 0.72, 3.58, 5.56),
        ("us-east-1c", 0.467, 1.48, 1.69, 7.54),
        ("us-east-1d", 0.447, 1.66, 2.05, 6.44),
        ("us-east-1f", 0.591, 2.26, 1.56, 6.26),
        ("us-east-2a", 0.759, 5.68, 1.80, 3.19),
        ("us-east-2b", 0.682, 4.26, 1.98, 3.82),
        ("us-west-2a", 0.883, 6.06, 0.81, 3.47),
        ("us-west-2b", 0.905, 10.4, 1.10, 2.07),
        ("us-west-2c", 0.891, 6.81, 0.84, 3.12),
    ];
    assert_eq!(one.zones.len(), expected.len());
    for (zone, (name, up, up_h, down_h, losses)) in one.zones.iter().zip(expected) {
        assert_eq!((zone.zone.as_str(), zone.ticks, zone.gap_s), (name, 20_158, 195.0));
        close(name, zone.up_share, up, 0.0005);
        close(name, zone.up_mean_h, up_h, if up_h > 10.0 { 0.05 } else { 0.005 });
        close(name, zone.down_mean_h, down_h, 0.005);
        close(name, zone.losses_per_day, losses, 0.005);
    }
    let (inside, across) = (one.correlation_inside.unwrap(), one.correlation_across.unwrap());
    close("inside, least", inside.0, 0.25, 0.005);
    close("inside, most", inside.1, 0.59, 0.005);
    close("across, least", across.0, 0.03, 0.005);
    close("across, most", across.1, 0.27, 0.005);
    close("all down", one.all_down_share, 0.0079, 0.00005);
    close("zones up", one.zones_up_mean, 5.79, 0.005);
    let deep = of("aws-08-27-2023_p3.2xlarge_16node");
    let expected = [
        (3_247, 0.628, 0.456, 0.172, 8.76, 3.5, 2.0, 136),
        (4_736, 0.446, 0.418, 0.028, 6.90, 1.8, 2.2, 145),
        (4_736, 0.440, 0.415, 0.026, 6.83, 1.9, 2.5, 123),
    ];
    for (zone, (ticks, up, full, partial, nodes, up_h, down_h, down)) in deep.zones.iter().zip(expected) {
        assert_eq!((zone.ticks, zone.nodes_max, zone.steps_down), (ticks, 16, down), "{}", zone.zone);
        close(&zone.zone, zone.up_share, up, 0.0005);
        close(&zone.zone, zone.full_share, full, 0.0005);
        close(&zone.zone, zone.partial_share, partial, 0.0005);
        close(&zone.zone, zone.nodes_mean, nodes, 0.005);
        close(&zone.zone, zone.up_mean_h, up_h, 0.05);
        close(&zone.zone, zone.down_mean_h, down_h, 0.05);
    }
}

#[test]
fn spot_prices_have_their_figures() {
    let Some(folder) = traces() else { return };
    let file = folder.join("6_spot_prices/aws_spot_price_2019-12_to_2020-03_p2_p3.csv.gz");
    let history = SpotPriceHistory::read(&file).unwrap();
    let d = history.describe();
    assert_eq!((d.changes, d.series.len(), d.zones), (16_560, 98, 19));
    assert_eq!(d.series.iter().filter(|s| s.max_to_min > 1.5).count(), 3);
    assert!(d.start.to_string().starts_with("2019-12-20"));
    let p2: usize = d.series.iter().filter(|s| s.instance_type == "p2.xlarge").map(|s| s.changes).sum();
    assert_eq!(p2, 4_300);
    let series = d.series.iter().find(|s| s.zone == "us-east-1b" && s.instance_type == "p3.2xlarge").unwrap();
    close("least", series.price_min_usd_per_hour, 0.933, 0.0005);
    close("most", series.price_max_usd_per_hour, 1.225, 0.0005);
    close("mean of changes", series.price_change_mean_usd_per_hour, 1.044, 0.0005);
}

#[test]
fn spot_advisor_has_its_figures() {
    let Some(folder) = traces() else { return };
    let advisor = SpotAdvisor::read(&folder.join("6_spot_prices/spot-advisor-data.json")).unwrap();
    assert_eq!(advisor.regions().count(), 33);
    for (instance, saving, bucket) in [
        ("g4dn.xlarge", 64, 3),
        ("g5.xlarge", 59, 4),
        ("g6.xlarge", 49, 4),
        ("p4d.24xlarge", 67, 2),
        ("p5.48xlarge", 52, 4),
        ("inf2.xlarge", 78, 0),
    ] {
        let advice = advisor.linux("us-east-1", instance).unwrap();
        assert_eq!((advice.saving_percent, advice.interruption_bucket), (saving, bucket), "{instance}");
    }
    assert_eq!(advisor.bucket_label(1), Some("5-10%"));
    assert_eq!(advisor.linux("us-east-1", "no.such"), None);
}

#[test]
fn folders_are_described_file_by_file() {
    let Some(folder) = traces() else { return };
    let options = ImportOptions::default();
    let Survey::Traces(viral) = Survey::of(&folder.join("3_viral_counts"), &options).unwrap() else {
        panic!("a folder of traces")
    };
    assert_eq!(viral.len(), 9);
    assert!(viral.iter().all(|s| matches!(s, Survey::Trace(_))));
}

#[test]
fn every_arrival_trace_can_be_fitted() {
    let Some(folder) = traces() else { return };
    for file in [
        "1_genai_requests/lora_request_trace_2024-11-15_to_2024-11-30.csv",
        "2_llm_requests/AzureLLMInferenceTrace_conv.csv",
        "2_llm_requests/deepseek-r1_clients.csv.gz",
        "3_viral_counts/wc98_requests_per_minute_1998-04-30_to_06-25.csv",
        "3_viral_counts/Twitter_volume_FB.csv",
    ] {
        let trace = import(&folder, file);
        let fit = trace.fit();
        println!("{}", fit.toml);
        assert!(fit.toml.parse::<toml::Table>().is_ok(), "{}", fit.toml);
        assert!((-1e-9..=1.0).contains(&fit.r2), "{file}: R2 {}", fit.r2);
        let steps = 20_000;
        let mean = (0..steps)
            .map(|i| fit.shape.rate_at((i as f64 + 0.5) / steps as f64 * trace.span_ns() as f64 / 1e9));
        let mean = mean.sum::<f64>() / steps as f64;
        close(file, mean / trace.rate_mean_per_s(), 1.0, 0.1);
    }
    let calm = import(&folder, "2_llm_requests/AzureLLMInferenceTrace_conv.csv").fit();
    assert_eq!(calm.burstiness, None, "the calm baseline is nearly Poisson");
}
