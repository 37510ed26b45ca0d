//! `headroom plan`: searches for the cheapest plan that meets the objective, and says what it survives.

use std::time::Instant;

use reports::chart::plan_chart;
use reports::front::{PlanChart, PlanPoint, Standing};
use reports::terminal::{Charset, TextSize, plan_text};
use serde::Serialize;
use sim::experiment::Experiment;
use sim::plan::{Evaluation, Plan, PlanOptions, Point, Shortfall, Watch, search};
use sim::replication::Keep;
use sim::summary::{Summary, summarize};

use super::inputs::{load_inputs, load_scenario, scenario_overrides};
use super::overrides;
use super::result_folder::ResultFolder;
use super::run_args::PlanArgs;
use super::simulate::{finish, threads, write_results};
use super::summary_text::{dollars, range, share, stated};
use crate::failure::{Failure, Status};
use crate::numerals::{figure, time};
use crate::progress::Progress;
use crate::screen::Screen;
use crate::table::{Align, Table};

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom plan launch.toml
  headroom plan launch.toml --trace requests.csv --budget 5000
  headroom plan launch.toml --json --out results/

Ends with 4 when no plan meets the objective, and shows the nearest miss.";

/// Lines of the plot.
const PLOT_HEIGHT: usize = 16;
/// Characters of a setting that fit on a line.
const SET_SHOWN: usize = 160;

/// The plan as programs read it.
#[derive(Serialize)]
struct PlanJson<'a> {
    scenario: &'a str,
    meets: bool,
    recommendation: Choice,
    shortfalls: Vec<String>,
    summary: &'a Summary,
    runners_up: Vec<Choice>,
    pareto: Vec<PointJson<'a>>,
    survival: SurvivalJson,
    /// Whether the plan starts instances before the demand that the scenario describes.
    trusts_forecast: bool,
    arrivals: ArrivalsJson,
    search: SearchJson,
}

#[derive(Serialize)]
struct Choice {
    name: String,
    /// Overrides that make this plan: `headroom simulate SCENARIO --set ...`.
    set: Vec<String>,
    cost_usd: f64,
    cost_low_usd: Option<f64>,
    cost_high_usd: Option<f64>,
    cost_per_1000_usd: f64,
    latency_p95_s: f64,
    on_time_ratio: f64,
    success_ratio: f64,
    replications: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_lost: Option<String>,
}

#[derive(Serialize)]
struct PointJson<'a> {
    name: &'a str,
    cost_per_1000_usd: f64,
    latency_p95_s: f64,
    on_time_ratio: f64,
    meets: bool,
    front: bool,
}

#[derive(Serialize)]
struct SurvivalJson {
    factor: f64,
    is_at_least: bool,
    peak_per_s: f64,
    limit: &'static str,
    limit_text: String,
}

#[derive(Serialize)]
struct ArrivalsJson {
    mean_per_s: f64,
    peak_per_s: f64,
}

#[derive(Serialize)]
struct SearchJson {
    runs: usize,
    by_recurrence: usize,
    candidates: usize,
    wall_s: f64,
}

/// Runs `headroom plan`.
pub(crate) fn run(args: &PlanArgs, screen: &Screen) -> Result<(), Failure> {
    let loaded = load_scenario_of(args, screen)?;
    let inputs = load_inputs(&loaded.scenario)?;
    let folder = args.run.out.as_deref().map(ResultFolder::create).transpose()?;
    let started = Instant::now();
    let changes = changes_of(args, screen)?;
    let variant = |sets: &[String]| {
        let all: Vec<String> = changes.iter().chain(sets).cloned().collect();
        scenarios::load(&args.file, &all)
            .map(|loaded| loaded.scenario)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    };
    let bar = Bar { progress: Progress::steps(screen, "planning", 1) };
    let options = PlanOptions { threads: threads(&args.run), quick: args.quick };
    let plan = search(&loaded.scenario, &inputs, &variant, options, &bar)?;
    drop(bar);
    if plan.peak_per_s == 0.0 {
        let message =
            format!("no job of `{}` arrives within the horizon; nothing can be planned", args.file.display());
        return Err(Failure::new(Status::InvalidInput, "plan::no-arrivals", message)
            .with_help("check `workload.source` and `run.horizon`, or give --trace"));
    }
    let experiment = Experiment { outcomes: plan.outcomes.clone() };
    let mut summary = summarize(&plan.scenario, &experiment);
    summary.engine.wall_s = started.elapsed().as_secs_f64();
    summary.engine.events_per_s = summary.engine.events as f64 / summary.engine.wall_s.max(1e-9);
    let chart = chart(&plan);
    let wall_s = started.elapsed().as_secs_f64();
    if let Some(folder) = folder {
        write_plan(&folder, args, &plan, &chart, &changes)?;
        let json = serde_json::to_string_pretty(&json(&plan, &summary, wall_s)).map_err(Failure::json)?;
        folder.add_text("plan.json", &format!("{json}\n"))?;
        finish(folder, args.run.out.as_deref(), screen)?;
    }
    if screen.json {
        screen.print_json(&json(&plan, &summary, wall_s))?;
    } else {
        screen.print(&text(&plan, &summary, &chart, &changes, args, wall_s, screen)?)?;
    }
    if plan.meets {
        return Ok(());
    }
    let message = format!("no plan meets the objective; the nearest miss is `{}`", plan.best.candidate.name);
    let help = shortfalls(&plan.shortfalls).join("; ");
    Err(Failure::new(Status::ObjectiveNotMet, "plan::objective-not-met", message).with_help(help))
}

fn load_scenario_of(args: &PlanArgs, screen: &Screen) -> Result<scenarios::Loaded, Failure> {
    let mut flags = args.run.overrides.clone();
    flags.set.extend(overrides::of_budget(args));
    load_scenario(&args.file, &flags, screen)
}

/// All overrides that the flags amount to.
fn changes_of(args: &PlanArgs, screen: &Screen) -> Result<Vec<String>, Failure> {
    let mut flags = args.run.overrides.clone();
    flags.set.extend(overrides::of_budget(args));
    scenario_overrides(&args.file, &flags, screen)
}

struct Bar {
    progress: Progress,
}

impl Watch for Bar {
    fn step(&self, stage: &str, done: usize, total: usize) {
        self.progress.reach(stage, done as u64, total as u64);
    }
}

fn chart(plan: &Plan) -> PlanChart {
    let point = |point: &Point| PlanPoint {
        label: point.name.clone(),
        usd_per_1000_jobs: point.cost_per_1000,
        latency_s: point.p95_s,
        standing: if point.name == plan.best.candidate.name {
            Standing::Chosen
        } else if point.meets {
            Standing::Meets
        } else {
            Standing::Misses
        },
    };
    // Plans that serve hardly anybody are fast and cheap; they say nothing about the trade.
    let worth = plan.points.iter().filter(|point| point.on_time_ratio >= 0.5);
    let mut points: Vec<PlanPoint> = worth.map(point).collect();
    if points.is_empty() {
        points = plan.points.iter().map(point).collect();
    }
    PlanChart {
        title: format!("{}: plans by cost and latency", plan.scenario.name),
        latency_name: "p95 latency".to_owned(),
        latency_objective_s: Some(plan.scenario.objective.deadline.as_secs_f64()).filter(|s| *s < 1e6),
        points,
    }
}

fn write_plan(
    folder: &ResultFolder,
    args: &PlanArgs,
    plan: &Plan,
    chart: &PlanChart,
    changes: &[String],
) -> Result<(), Failure> {
    let sets: Vec<String> = changes.iter().chain(&plan.best.candidate.sets).cloned().collect();
    let mut loaded = scenarios::load(&args.file, &sets)?;
    plan.best.candidate.typed.apply(&mut loaded.scenario);
    let inputs = load_inputs(&loaded.scenario)?;
    let first = sim::experiment::one(&loaded.scenario, &inputs, 0, Keep::Records)
        .map_err(|error| Failure::new(Status::Failed, "run::failed", error.to_string()))?;
    let experiment = Experiment { outcomes: plan.outcomes.clone() };
    let summary = summarize(&loaded.scenario, &experiment);
    write_results(folder, &args.file, &loaded, &first, &summary)?;
    let drawn = plan_chart(chart)
        .map_err(|error| Failure::new(Status::Failed, "output::chart", error.to_string()))?;
    folder.add_text("plan.svg", &drawn)
}

fn choice(evaluation: &Evaluation, confidence: f64, why_lost: Option<String>) -> Choice {
    let interval = evaluation.cost_interval(confidence);
    Choice {
        name: evaluation.candidate.name.clone(),
        set: evaluation.candidate.sets.clone(),
        cost_usd: evaluation.cost(),
        cost_low_usd: interval.map(|interval| interval.low),
        cost_high_usd: interval.map(|interval| interval.high),
        cost_per_1000_usd: evaluation.cost_per_1000(),
        latency_p95_s: evaluation.p95(),
        on_time_ratio: evaluation.on_time_ratio(),
        success_ratio: evaluation.success_ratio(),
        replications: evaluation.replications(),
        why_lost,
    }
}

fn json<'a>(plan: &'a Plan, summary: &'a Summary, wall_s: f64) -> PlanJson<'a> {
    let confidence = plan.scenario.run.confidence;
    let point = |point: &'a Point| PointJson {
        name: &point.name,
        cost_per_1000_usd: point.cost_per_1000,
        latency_p95_s: point.p95_s,
        on_time_ratio: point.on_time_ratio,
        meets: point.meets,
        front: point.is_front,
    };
    PlanJson {
        scenario: &summary.scenario,
        meets: plan.meets,
        recommendation: choice(&plan.best, confidence, None),
        shortfalls: shortfalls(&plan.shortfalls),
        summary,
        runners_up: plan
            .runners_up
            .iter()
            .map(|lost| choice(&lost.evaluation, confidence, Some(lost.why.clone())))
            .collect(),
        pareto: plan.points.iter().map(point).collect(),
        survival: SurvivalJson {
            factor: plan.survival.factor,
            is_at_least: plan.survival.is_at_least,
            peak_per_s: plan.survival.peak_per_s,
            limit: plan.survival.limit.code(),
            limit_text: plan.survival.limit.sentence(),
        },
        trusts_forecast: plan.trusts_forecast,
        arrivals: ArrivalsJson { mean_per_s: plan.mean_per_s, peak_per_s: plan.peak_per_s },
        search: SearchJson {
            runs: plan.runs,
            by_recurrence: plan.by_recurrence,
            candidates: plan.points.len(),
            wall_s,
        },
    }
}

fn shortfalls(missing: &[Shortfall]) -> Vec<String> {
    let line = |shortfall: &Shortfall| match shortfall {
        Shortfall::OnTime { low, wanted } => {
            format!("{} of jobs can be promised on time; {} are wanted", share(*low), stated(*wanted))
        }
        Shortfall::Success { low, wanted } => {
            format!("{} of jobs can be promised to be done; {} are wanted", share(*low), stated(*wanted))
        }
        Shortfall::Budget { high, budget } => {
            format!("a run may cost {}; the budget is {}", dollars(*high), dollars(*budget))
        }
    };
    missing.iter().map(line).collect()
}

fn text(
    plan: &Plan,
    summary: &Summary,
    chart: &PlanChart,
    changes: &[String],
    args: &PlanArgs,
    wall_s: f64,
    screen: &Screen,
) -> Result<String, Failure> {
    let objective = &plan.scenario.objective;
    let best = &plan.best;
    let mut text = if plan.meets {
        format!("Recommended for {}: {}\n\n", summary.scenario, best.candidate.name)
    } else {
        format!(
            "No plan meets the objective of {}. Nearest miss: {}\n\n",
            summary.scenario, best.candidate.name
        )
    };
    text += &format!(
        "  demand    {} jobs a run, {}/s on average, {}/s at the peak\n",
        figure(summary.jobs.arrived),
        figure(plan.mean_per_s),
        figure(plan.peak_per_s)
    );
    text += &format!(
        "  objective {} of jobs within {}, {} done{}, with {} confidence\n",
        stated(objective.on_time_min.get()),
        objective.deadline,
        stated(objective.success_min.get()),
        objective.budget.map_or(String::new(), |budget| format!(", at most {budget}")),
        stated(objective.confidence.get())
    );
    text += &cost_lines(plan, summary);
    text += &format!(
        "  users     {} on time, {} done; p50 {}, p95 {}, p99 {}\n",
        share(best.on_time_ratio()),
        share(best.success_ratio()),
        time(summary.latency_s.p50),
        time(summary.latency_s.p95),
        time(summary.latency_s.p99)
    );
    for missing in shortfalls(&plan.shortfalls) {
        text += &format!("  missing   {missing}\n");
    }
    text += &survival_lines(plan);
    if plan.trusts_forecast {
        text += "  mind      the schedule starts instances before the demand of this scenario: it is as good as that forecast\n";
    }
    text += &fleet_lines(summary);
    text += &do_lines(plan, changes, args);
    text += &runner_up_lines(plan);
    let charset = if screen.unicode { Charset::Unicode } else { Charset::Ascii };
    let size = TextSize { width: screen.width.min(100), height: PLOT_HEIGHT };
    let front = front_only(chart, plan);
    let drawn = plan_text(&front, size, charset)
        .map_err(|error| Failure::new(Status::Failed, "output::chart", error.to_string()))?;
    text += &format!("\n{drawn}");
    text += &format!(
        "\n{} candidates, {} runs ({} by the recurrence) in {}\n",
        plan.points.len(),
        plan.runs,
        plan.by_recurrence,
        time(wall_s)
    );
    Ok(text)
}

/// The plot of a terminal has room for few labels: the front, the chosen plan and the runners-up.
fn front_only(chart: &PlanChart, plan: &Plan) -> PlanChart {
    let front = chart.front();
    let named = |label: &str| {
        label == plan.best.candidate.name
            || plan.runners_up.iter().any(|lost| lost.evaluation.candidate.name == label)
    };
    let mut points: Vec<PlanPoint> = Vec::new();
    for (index, point) in chart.points.iter().enumerate() {
        if front.contains(&index) || named(&point.label) {
            points.push(point.clone());
        }
    }
    PlanChart { points, ..chart.clone() }
}

fn cost_lines(plan: &Plan, summary: &Summary) -> String {
    let cost = &summary.cost_usd;
    let interval = plan.best.cost_interval(plan.scenario.run.confidence);
    let bounds = interval.and_then(|interval| range(interval.low, interval.high, dollars));
    let bounds = bounds.map_or(String::new(), |bounds| {
        format!(" ({bounds} with {} confidence)", stated(plan.scenario.run.confidence))
    });
    let mut text = format!(
        "  cost      {} a run{bounds}, {} per 1,000 jobs\n",
        dollars(cost.total),
        dollars(summary.cost_per_1000_usd)
    );
    if summary.list_usd > cost.total * 1.001 {
        text += &format!(
            "            {} at list price: {:.0} % saved\n",
            dollars(summary.list_usd),
            (1.0 - cost.total / summary.list_usd) * 100.0
        );
    }
    text
}

fn survival_lines(plan: &Plan) -> String {
    let survival = &plan.survival;
    if survival.factor == 0.0 {
        return format!("  breaks    below the planned demand: {}\n", survival.limit.sentence());
    }
    if survival.is_at_least {
        return format!("  survives  {} times the planned demand and more\n", figure(survival.factor));
    }
    format!(
        "  {}  {:.2} times the planned demand ({}/s at the peak); then\n            {}\n",
        if survival.factor < 1.0 { "holds   " } else { "survives" },
        survival.factor,
        figure(survival.peak_per_s),
        survival.limit.sentence()
    )
}

fn fleet_lines(summary: &Summary) -> String {
    let mut table = Table::new(&[
        ("fleet", Align::Left),
        ("bought", Align::Left),
        ("peak", Align::Right),
        ("hours", Align::Right),
        ("busy", Align::Right),
        ("cost", Align::Right),
    ]);
    for pool in summary.pools.iter().filter(|pool| pool.instance_hours > 0.0 || pool.calls > 0.0) {
        table.push(vec![
            pool.name.clone(),
            pool.capacity_type.to_owned(),
            figure(pool.peak_instances),
            figure(pool.instance_hours),
            crate::numerals::percent(pool.utilization_ratio),
            dollars(pool.cost_usd),
        ]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.text("  ")) }
}

/// What to do, as a command that reproduces the plan.
fn do_lines(plan: &Plan, changes: &[String], args: &PlanArgs) -> String {
    let sets: Vec<&String> = changes.iter().chain(&plan.best.candidate.sets).collect();
    let lines = |limit: usize| -> String {
        let shown = |set: &&String| match set.char_indices().nth(limit) {
            Some((cut, _)) => format!(" \\\n  --set '{}…'", &set[..cut]),
            None => format!(" \\\n  --set '{}'", set.replace('\'', "'\\''")),
        };
        sets.iter().map(shown).collect()
    };
    let file = args.file.display();
    if sets.iter().all(|set| set.chars().count() <= SET_SHOWN) {
        return format!("\nTo run it: headroom simulate {file}{}\n", lines(SET_SHOWN));
    }
    let run = match &args.run.out {
        Some(folder) => format!("headroom simulate {}", folder.join("scenario.toml").display()),
        None => "add --out DIR, then headroom simulate DIR/scenario.toml".to_owned(),
    };
    format!(
        "\nTo run it: {run}\nIt is {file} with (long values are cut; --json has them whole){}\n",
        lines(SET_SHOWN)
    )
}

fn runner_up_lines(plan: &Plan) -> String {
    if plan.runners_up.is_empty() {
        return String::new();
    }
    let mut text = "\nRunners-up:\n".to_owned();
    for (place, lost) in plan.runners_up.iter().enumerate() {
        let evaluation = &lost.evaluation;
        text += &format!(
            "  {}. {}\n     {}, {} on time; {}\n",
            place + 2,
            evaluation.candidate.name,
            dollars(evaluation.cost()),
            share(evaluation.on_time_ratio()),
            lost.why
        );
    }
    text
}
