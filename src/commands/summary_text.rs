//! A summary as people read it.

use sim::summary::{Ci, Summary, Times};

use crate::numerals::{figure, percent, time};
use crate::table::{Align, Table};

/// The summary as text of at most 100 columns.
pub(crate) fn summary(summary: &Summary) -> String {
    let mut text = format!(
        "{}: {} with seed {}, by the {}\n\n",
        summary.scenario,
        match (summary.replications, summary.ci.as_ref()) {
            (1, _) => "1 replication".to_owned(),
            (count, None) => format!("mean of {count} replications"),
            (count, Some(ci)) =>
                format!("mean of {count} replications ({} intervals)", stated(ci.confidence)),
        },
        summary.seed,
        summary.method
    );
    text += &head(summary);
    text += &latency(summary);
    text += &stages(summary);
    text += &pools(summary);
    text += &transfers(summary);
    text += &spans(summary);
    text += &windows(summary);
    let engine = &summary.engine;
    text += &format!(
        "\n{} events in {}: {} events/s, {} MiB at most\n",
        figure(engine.events as f64),
        time(engine.wall_s),
        figure(engine.events_per_s),
        figure((engine.peak_rss_bytes >> 20) as f64)
    );
    text
}

/// Dollars with cents.
pub(crate) fn dollars(usd: f64) -> String {
    policy::units::Usd::from_nanos((usd * 1e9).round() as i64).to_string()
}

/// A share in percent with enough digits to tell 99 % from 99.95 %, and all from nearly all.
pub(crate) fn share(value: f64) -> String {
    if !(value > 0.9 && value < 1.0) {
        return percent(value);
    }
    let shown = |decimals: usize| format!("{:.decimals$}", value * 100.0);
    let text = (2..=4).map(shown).find(|text| !text.starts_with("100"));
    text.map_or_else(|| ">99.9999 %".to_owned(), |text| format!("{text} %"))
}

/// A share that somebody wrote down, with no more digits than it needs: `95 %`, `99.9 %`.
pub(crate) fn stated(value: f64) -> String {
    format!("{} %", figure(value * 100.0))
}

/// An interval, unless both of its ends read the same.
pub(crate) fn range(low: f64, high: f64, show: impl Fn(f64) -> String) -> Option<String> {
    let (low, high) = (show(low), show(high));
    (low != high).then(|| format!("{low} to {high}"))
}

fn bounds(ci: Option<Ci>, show: impl Fn(f64) -> String) -> String {
    let text = ci.and_then(|ci| range(ci.low, ci.high, show));
    text.map_or(String::new(), |text| format!(" ({text})"))
}

fn head(summary: &Summary) -> String {
    let jobs = &summary.jobs;
    let ci = summary.ci.as_ref();
    if jobs.arrived == 0.0 {
        return format!(
            "  jobs     none arrived within the horizon\n  cost     {}\n",
            dollars(summary.cost_usd.total)
        );
    }
    let mut text = format!("  jobs     {} arrived, {} done", figure(jobs.arrived), figure(jobs.done));
    for (name, count) in [
        ("failed", jobs.failed),
        ("expired", jobs.expired),
        ("cancelled", jobs.cancelled),
        ("rejected", jobs.rejected),
    ] {
        if count > 0.0 {
            text += &format!(", {} {name}", figure(count));
        }
    }
    text += &format!(
        "\n  success  {}{}\n  on time  {}{}\n",
        share(summary.success_ratio),
        bounds(ci.map(|ci| ci.success_ratio), share),
        share(summary.on_time_ratio),
        bounds(ci.map(|ci| ci.on_time_ratio), share),
    );
    let cost = &summary.cost_usd;
    text += &format!(
        "  cost     {}{}{}\n",
        dollars(cost.total),
        bounds(ci.map(|ci| ci.cost_usd.total), dollars),
        if jobs.done > 0.0 {
            format!(", {} per 1,000 done jobs", dollars(summary.cost_per_1000_usd))
        } else {
            String::new()
        }
    );
    let parts = [
        ("compute", cost.compute),
        ("storage", cost.storage),
        ("requests", cost.requests),
        ("transfer", cost.transfer),
        ("external", cost.external),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|part| part.1 > 0.0)
        .map(|part| format!("{} {}", part.0, dollars(part.1)))
        .collect();
    if !parts.is_empty() {
        text += &format!("           {}\n", parts.join(", "));
    }
    if summary.unfinished > 0.0 {
        text += &format!(
            "  cut off  {} jobs were still inside a day after the horizon; they count as cancelled\n",
            figure(summary.unfinished)
        );
    }
    text
}

fn times_row(name: &str, times: &Times) -> Vec<String> {
    let cells = [times.mean, times.p50, times.p90, times.p95, times.p99, times.max];
    std::iter::once(name.to_owned()).chain(cells.map(time)).collect()
}

const TIMES: [(&str, Align); 7] = [
    ("", Align::Left),
    ("mean", Align::Right),
    ("p50", Align::Right),
    ("p90", Align::Right),
    ("p95", Align::Right),
    ("p99", Align::Right),
    ("max", Align::Right),
];

fn latency(summary: &Summary) -> String {
    if summary.jobs.done == 0.0 {
        return String::new();
    }
    let mut table = Table::new(&TIMES);
    table.push(times_row("time in system", &summary.latency_s));
    for stage in &summary.stages {
        table.push(times_row(&format!("{} wait", stage.name), &stage.wait_s));
        table.push(times_row(&format!("{} service", stage.name), &stage.service_s));
    }
    format!("\n{}", table.text("  "))
}

fn stages(summary: &Summary) -> String {
    let mut table = Table::new(&[
        ("queue", Align::Left),
        ("theory", Align::Left),
        ("servers", Align::Right),
        ("load", Align::Right),
        ("mean wait", Align::Right),
        ("simulated", Align::Right),
        ("± error", Align::Right),
    ]);
    let mut any = false;
    for stage in &summary.stages {
        let Some(theory) = &stage.theory else { continue };
        any = true;
        table.push(vec![
            stage.name.clone(),
            theory.model.to_owned(),
            theory.servers.to_string(),
            share(theory.utilization),
            time(theory.wait_mean_s),
            time(stage.wait_s.mean),
            stage.wait_mean_standard_error_s.map_or(String::new(), time),
        ]);
    }
    if any { format!("\n{}", table.text("  ")) } else { String::new() }
}

fn pools(summary: &Summary) -> String {
    let mut table = Table::new(&[
        ("pool", Align::Left),
        ("bought", Align::Left),
        ("hours", Align::Right),
        ("peak", Align::Right),
        ("busy", Align::Right),
        ("cost", Align::Right),
        ("interrupted", Align::Right),
        ("refused", Align::Right),
        ("calls", Align::Right),
    ]);
    let some = |value: f64| if value > 0.0 { figure(value) } else { String::new() };
    for pool in &summary.pools {
        let external = pool.capacity_type == "external";
        table.push(vec![
            pool.name.clone(),
            pool.capacity_type.to_owned(),
            if external { String::new() } else { figure(pool.instance_hours) },
            if external { String::new() } else { figure(pool.peak_instances) },
            if external { String::new() } else { percent(pool.utilization_ratio) },
            dollars(pool.cost_usd),
            some(pool.interruptions),
            some(pool.refusals),
            some(pool.calls),
        ]);
    }
    format!("\n{}", table.text("  "))
}

fn transfers(summary: &Summary) -> String {
    if summary.transfers.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("storage", Align::Left),
        ("operation", Align::Left),
        ("count", Align::Right),
        ("p50", Align::Right),
        ("p99", Align::Right),
        ("throttled", Align::Right),
    ]);
    for row in &summary.transfers {
        table.push(vec![
            row.tier.clone(),
            row.operation.to_owned(),
            figure(row.count),
            time(row.p50_s),
            time(row.p99_s),
            if row.throttled > 0.0 { figure(row.throttled) } else { String::new() },
        ]);
    }
    format!("\n{}", table.text("  "))
}

fn spans(summary: &Summary) -> String {
    if summary.spans.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("span", Align::Left),
        ("mean", Align::Right),
        ("p50", Align::Right),
        ("p95", Align::Right),
        ("p99", Align::Right),
    ]);
    for span in &summary.spans {
        table.push(vec![
            span.name.clone(),
            time(span.mean_s),
            time(span.p50_s),
            time(span.p95_s),
            time(span.p99_s),
        ]);
    }
    format!("\n{}", table.text("  "))
}

fn windows(summary: &Summary) -> String {
    if summary.windows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("window", Align::Left),
        ("arrived", Align::Right),
        ("lost", Align::Right),
        ("on time", Align::Right),
        ("p50", Align::Right),
        ("p95", Align::Right),
    ]);
    for window in &summary.windows {
        table.push(vec![
            window.name.clone(),
            figure(window.jobs.arrived),
            format!("{:.2} %", window.failure_ratio * 100.0),
            share(window.on_time_ratio),
            time(window.latency_s.p50),
            time(window.latency_s.p95),
        ]);
    }
    format!("\n{}", table.text("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_jobs_read_as_100_percent() {
        let check = |value, text: &str| assert_eq!(share(value), text);
        check(1.0, "100 %");
        check(0.9995, "99.95 %");
        check(0.999_98, "99.998 %");
        check(0.999_999_9, ">99.9999 %");
        check(0.42, "42 %");
        assert_eq!((stated(0.95), stated(0.999)), ("95 %".into(), "99.9 %".into()));
    }

    #[test]
    fn intervals_without_width_are_not_shown() {
        assert_eq!(range(1.0, 1.0, dollars), None);
        assert_eq!(range(12.890_1, 12.890_2, dollars), None);
        assert_eq!(range(1.0, 2.0, dollars).as_deref(), Some("$1.00 to $2.00"));
    }
}
