//! Descriptions of traces as people read them on a terminal. Computes no statistic.

use scenarios::trace::{
    AdvisorDescription, CvOf, Description, PriceHistoryDescription, SparkStyle, SpotDescription, Survey,
    TraceKind, sparkline,
};

use super::describe::Found;
use crate::numerals::{figure, percent, time};
use crate::screen::Screen;
use crate::table::{Align, Table};

const INDENT: &str = "  ";

/// Characters of a sparkline that fills the screen.
pub(super) fn spark_width(screen: &Screen) -> usize {
    screen.width - 2 * INDENT.len()
}

/// The whole text about one finding.
pub(super) fn text(found: &Found, screen: &Screen, spark_width: usize) -> String {
    match found {
        Found::Trace(description, profile) => trace(description, profile, screen, spark_width),
        Found::Other(Survey::Spot(spot)) => zones(spot),
        Found::Other(Survey::Prices(prices)) => price_history(prices),
        Found::Other(Survey::Advisor(advisor)) => advice(advisor, screen.width),
        Found::Other(Survey::Trace(description)) => trace(description, &[], screen, spark_width),
        Found::Other(Survey::Traces(surveys)) => {
            let texts = surveys.iter().map(|survey| text(&Found::Other(survey.clone()), screen, spark_width));
            texts.collect::<Vec<_>>().join("\n")
        }
    }
}

/// Lines of a name and a value, the values under one another.
fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{INDENT}{name:<width$}  {value}\n");
    pairs.iter().map(line).collect()
}

fn trace(d: &Description, profile: &[Option<f64>], screen: &Screen, spark_width: usize) -> String {
    let kind = match d.kind {
        TraceKind::Timestamps => format!("requests to {}", time(d.resolution_s)),
        TraceKind::Counts => format!("counts per {}", time(d.resolution_s)),
        TraceKind::ClientRates => format!("rates per client and {}", time(d.resolution_s)),
    };
    let mut pairs = vec![("requests", figure(d.count))];
    pairs.extend(d.start.map(|start| ("start", start.to_string())));
    pairs.push(("span", time(d.span_s)));
    pairs.push(("mean rate", rate(d.mean_per_s)));
    let peak_window = time(d.peak_window_s);
    let peak =
        format!("{} over {peak_window}, {} times the mean", rate(d.peak_per_s), figure(d.peak_to_mean));
    pairs.push(("peak", peak));
    let cv_of = match d.cv_of {
        CvOf::Gaps => "cv of gaps",
        CvOf::BinCounts => "cv of counts",
        CvOf::ClientGaps => "cv of clients' gaps",
    };
    pairs.push((cv_of, rounded(d.cv)));
    if d.missing_bins > 0 {
        pairs.push(("not measured", format!("{} bins", figure(d.missing_bins as f64))));
    }
    pairs.push(("longest silence", time(d.silence_max_s)));
    let window = time(d.series_window_s);
    pairs.push(("dispersion", format!("{} on {window} (Poisson: 1)", rounded(d.dispersion_index))));
    pairs.push(("autocorrelation", format!("{:.2} from one {window} to the next", d.lag1_autocorrelation)));
    pairs.push(("bursts", bursts(d)));
    pairs.extend(
        d.bursts.step_up_max.map(|step| {
            ("steepest step up", format!("{} times from one {window} to the next", rounded(step)))
        }),
    );
    let mut text = format!("{}\n{INDENT}{}, {kind}\n\n{}\n", d.name, d.format, facts(&pairs));
    text.push_str(&peaks(d));
    if profile.len() > 1 {
        let style = if screen.unicode { SparkStyle::Blocks } else { SparkStyle::Ascii };
        let part = time(d.span_s / profile.len() as f64);
        let top = profile.iter().flatten().copied().fold(0.0, f64::max);
        let shown = &profile[..profile.len().min(spark_width)];
        text.push_str(&format!(
            "\n{INDENT}{}\n{INDENT}rate over time: 0 to {}, {part} per character\n",
            sparkline(shown, style),
            rate(top)
        ));
    }
    text
}

fn bursts(d: &Description) -> String {
    let b = &d.bursts;
    if b.count == 0 {
        return "none above twice the mean".to_owned();
    }
    format!(
        "{} above twice the mean: {} long on average, {} at most, {} times the mean",
        figure(b.count as f64),
        time(b.length_mean_s),
        time(b.length_max_s),
        rounded(b.amplification_mean)
    )
}

/// The busiest windows; all rates in the unit of the mean, so that they can be compared.
fn peaks(d: &Description) -> String {
    let unit = RateUnit::of(d.mean_per_s);
    let mut table = Table::new(&[
        ("busiest", Align::Left),
        ("requests", Align::Right),
        (unit.name, Align::Right),
        ("to mean", Align::Right),
        ("starts at", Align::Left),
    ]);
    for peak in &d.peaks {
        table.push(vec![
            time(peak.window_s),
            figure(peak.count),
            figure(peak.per_s * unit.seconds),
            rounded(peak.to_mean),
            time(peak.at_s),
        ]);
    }
    table.text(INDENT)
}

/// The time per which a rate is shown.
struct RateUnit {
    name: &'static str,
    seconds: f64,
}

impl RateUnit {
    /// The shortest one in which the rate is not tiny.
    fn of(per_s: f64) -> Self {
        let (name, seconds) = match per_s {
            r if r >= 0.1 || r == 0.0 => ("/s", 1.0),
            r if r * 60.0 >= 1.0 => ("/min", 60.0),
            r if r * 3600.0 >= 0.1 => ("/h", 3600.0),
            _ => ("/d", 86_400.0),
        };
        Self { name, seconds }
    }
}

fn rate(per_s: f64) -> String {
    let unit = RateUnit::of(per_s);
    format!("{}{}", figure(per_s * unit.seconds), unit.name)
}

/// A ratio to three digits or so.
fn rounded(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => figure(value.round()),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn zones(spot: &SpotDescription) -> String {
    let mut table = Table::new(&[
        ("zone", Align::Left),
        ("nodes", Align::Right),
        ("span", Align::Left),
        ("tick", Align::Right),
        ("some up", Align::Right),
        ("all up", Align::Right),
        ("mean up", Align::Right),
        ("up for", Align::Left),
        ("down for", Align::Left),
        ("losses/day", Align::Right),
    ]);
    for zone in &spot.zones {
        table.push(vec![
            zone.zone.clone(),
            zone.nodes_max.to_string(),
            time(zone.span_s),
            time(zone.gap_s),
            percent(zone.up_share),
            percent(zone.full_share),
            rounded(zone.nodes_mean),
            time(zone.up_mean_h * 3600.0),
            time(zone.down_mean_h * 3600.0),
            rounded(zone.losses_per_day),
        ]);
    }
    let mut text = format!("spot capacity of {}\n\n{}", zone_count(spot.zones.len()), table.text(INDENT));
    if spot.zones.len() < 2 {
        return text;
    }
    let range = |range: Option<(f64, f64)>| {
        range.map_or_else(|| "unknown".to_owned(), |(low, high)| format!("{low:.2} to {high:.2}"))
    };
    let pairs = [
        ("correlation inside a region", range(spot.correlation_inside)),
        ("correlation across regions", range(spot.correlation_across)),
        ("no zone has a node", format!("{} of the time", percent(spot.all_down_share))),
        ("zones with a node", format!("{} on average", rounded(spot.zones_up_mean))),
    ];
    text.push('\n');
    text.push_str(&facts(&pairs));
    text
}

fn zone_count(count: usize) -> String {
    if count == 1 { "1 zone".to_owned() } else { format!("{count} zones") }
}

fn price_history(prices: &PriceHistoryDescription) -> String {
    let mut table = Table::new(&[
        ("zone", Align::Left),
        ("instance", Align::Left),
        ("changes", Align::Right),
        ("min USD/h", Align::Right),
        ("mean USD/h", Align::Right),
        ("max USD/h", Align::Right),
        ("max/min", Align::Right),
    ]);
    for series in &prices.series {
        let usd = |price: f64| format!("{price:.4}");
        table.push(vec![
            series.zone.clone(),
            series.instance_type.clone(),
            figure(series.changes as f64),
            usd(series.price_min_usd_per_hour),
            usd(series.price_time_mean_usd_per_hour),
            usd(series.price_max_usd_per_hour),
            rounded(series.max_to_min),
        ]);
    }
    let pairs = [
        ("changes", figure(prices.changes as f64)),
        ("start", prices.start.to_string()),
        ("span", time(prices.span_s)),
        ("zones", prices.zones.to_string()),
    ];
    let mean = "means are over the time that each price held";
    format!(
        "{}\n{INDENT}a spot price history\n\n{}\n{}\n{INDENT}{mean}\n",
        prices.name,
        facts(&pairs),
        table.text(INDENT)
    )
}

fn advice(advisor: &AdvisorDescription, width: usize) -> String {
    let mut text =
        format!("{}\n{INDENT}a Spot Advisor snapshot of {} regions\n\n", advisor.name, advisor.regions.len());
    let mut line = INDENT.to_owned();
    for region in &advisor.regions {
        if line.trim().is_empty() || line.len() + 2 + region.len() <= width {
            line.push_str(if line.trim().is_empty() { "" } else { ", " });
        } else {
            text.push_str(&format!("{line},\n"));
            line = INDENT.to_owned();
        }
        line.push_str(region);
    }
    format!("{text}{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_shown_per_natural_time() {
        let check = |per_s, text: &str| assert_eq!(rate(per_s), text);
        check(5.53, "5.53/s");
        check(0.05, "3/min");
        check(0.010_814, "38.93/h");
        check(1e-6, "0.0864/d");
        check(0.0, "0/s");
    }

    #[test]
    fn facts_stand_under_one_another() {
        assert_eq!(facts(&[("a", "1".into()), ("long", "2".into())]), "  a     1\n  long  2\n");
    }
}
