//! Tests of the charts.

use policy::records::MinuteRow;

use super::*;
use crate::front::{PlanChart, PlanPoint, Standing};

fn plans() -> PlanChart {
    let point = |label: &str, latency_s, usd_per_1000_jobs, standing| PlanPoint {
        label: label.to_owned(),
        usd_per_1000_jobs,
        latency_s,
        standing,
    };
    PlanChart {
        title: "Launch night <viral> & after".to_owned(),
        latency_name: "p95 latency".to_owned(),
        latency_objective_s: Some(60.0),
        points: vec![
            point("on-demand 40", 21.0, 9.4, Standing::Meets),
            point("queue time 30 s, 80 % spot", 48.0, 4.1, Standing::Chosen),
            point("queue time 60 s, 80 % spot", 71.0, 3.6, Standing::Misses),
            point("all spot", 160.0, 2.9, Standing::Misses),
            point("target 70 %, on-demand", 44.0, 7.2, Standing::Meets),
            point("target 50 %, mixed", 30.0, 6.3, Standing::Meets),
            point("forecast, mixed", 36.0, 5.2, Standing::Meets),
        ],
    }
}

fn minutes(count: u32) -> Vec<MinuteRow> {
    let mut rows = Vec::new();
    for minute in 0..count {
        let wave = (f64::from(minute) * 12.0 / f64::from(count)).sin().max(0.0);
        for (group, share) in [("gpu-a10g us-east-1", 0.7), ("gpu-l4 us-west-2", 0.3)] {
            let load = 20.0 + 900.0 * wave * share;
            rows.push(MinuteRow {
                at_s: f64::from(minute + 1) * 60.0,
                group: group.to_owned(),
                arrived: load as u64,
                done: (load * 0.9) as u64,
                lost: u64::from(minute % 50 == 49) * 30,
                probes_refused: 0,
                waiting: (load * wave * 3.0) as u32,
                running: (load * 0.8) as u32,
                ready: (load * 0.1 + 1.0) as u32,
                starting: 2,
                draining: 1,
                target: (load * 0.12 + 2.0) as u32,
                slots: 8,
            });
        }
    }
    rows
}

/// Counts of elements and the texts: what a reader sees, whatever the pixels.
fn structure(svg: &str) -> (usize, usize, usize, Vec<String>) {
    let count = |tag: &str| svg.matches(tag).count();
    let texts = svg.split("<text ").skip(1).filter_map(|rest| rest.split('>').nth(1)?.split('<').next());
    (
        count("<circle"),
        count("<polygon"),
        count("<rect"),
        texts.map(|words| words.trim().to_owned()).filter(|words| !words.is_empty()).collect(),
    )
}

/// Writes the charts for people to look at when `CHART_DIR` is set; the assertions hold either way.
fn keep(name: &str, svg: &str) {
    if let Some(dir) = std::env::var_os("CHART_DIR") {
        std::fs::write(std::path::Path::new(&dir).join(name), svg).expect("the folder is there");
    }
}

#[test]
fn plan_chart_shows_every_plan_the_front_and_the_objective() {
    let svg = plan_chart(&plans()).expect("drawn");
    keep("plans.svg", &svg);
    let (circles, diamonds, squares, texts) = structure(&svg);
    // Chosen: ring and diamond; three discs on the front; one square off it; the legend has one each. The other
    // rectangles are the page and the backs of seven labels.
    assert_eq!((circles, diamonds, squares), (2 + 3 + 1, 2, 2 + 1 + 7));
    for words in [
        "Launch night &lt;viral&gt; &amp; after",
        "p95 latency (s)",
        "cost of 1000 jobs (USD)",
        "objective 60 s",
    ] {
        assert!(texts.iter().any(|text| text == words), "{words} in {texts:?}");
    }
    for point in &plans().points {
        assert!(texts.contains(&point.label), "{} in {texts:?}", point.label);
    }
    assert!(
        svg.starts_with("<svg role=\"img\" aria-label=\"Launch night &lt;viral&gt; &amp; after: cost"),
        "{}",
        &svg[..120]
    );
}

#[test]
fn crowded_and_single_plans_are_drawn_too() {
    let mut crowd = plans();
    crowd.points = (0..200)
        .map(|index| PlanPoint {
            label: format!("plan {index}"),
            usd_per_1000_jobs: 1.0 + f64::from(index % 17),
            latency_s: 0.5 * 1.05_f64.powi(index % 101),
            standing: if index == 3 { Standing::Chosen } else { Standing::Misses },
        })
        .collect();
    let svg = plan_chart(&crowd).expect("drawn");
    keep("crowd.svg", &svg);
    assert!(svg.contains("log scale") && svg.contains("plan 3\n"), "the chosen plan keeps its label");
    crowd.points.truncate(1);
    crowd.points[0].usd_per_1000_jobs = 0.0;
    assert!(plan_chart(&crowd).is_ok());
    crowd.points.clear();
    assert!(matches!(plan_chart(&crowd), Err(ChartError::Plans(PlanChartError::NoPlans))));
}

#[test]
fn load_chart_names_panels_lines_and_units() {
    let svg = load_chart("Launch night", &minutes(360)).expect("drawn");
    keep("load.svg", &svg);
    let (_, _, _, texts) = structure(&svg);
    for words in [
        "jobs per minute",
        "jobs",
        "instances",
        "arrived",
        "done",
        "lost",
        "waiting",
        "running",
        "gpu-a10g us-east-1",
        "gpu-l4 us-west-2",
        "wanted, all",
        "time from the start (hours)",
    ] {
        assert!(texts.iter().any(|text| text == words), "{words} in {texts:?}");
    }
    assert!(matches!(load_chart("none", &[]), Err(ChartError::NoMinutes)));
    assert!(load_chart("one minute", &minutes(1)).is_ok());
}

#[test]
fn a_month_is_drawn_by_its_peaks_in_a_bounded_file() {
    let svg = load_chart("A month", &minutes(43_200)).expect("drawn");
    keep("month.svg", &svg);
    assert!(svg.contains("peak of 120 min"), "says that it shows peaks");
    assert!(svg.len() < 200_000, "{}", svg.len());
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    assert_eq!(plan_chart(&plans()).expect("drawn"), plan_chart(&plans()).expect("drawn"));
    let run = minutes(90);
    assert_eq!(load_chart("a", &run).expect("drawn"), load_chart("a", &run).expect("drawn"));
}
