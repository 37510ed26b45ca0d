//! What operators ask: the fleet, a stop of all launches, new parameters.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::audit::Entry;
use super::body;
use super::keys::Scope;
use super::names::Names;
use super::problem::Problem;
use super::route::Ask;
use crate::command::Command;
use crate::effect::Answer;

/// Longest scenario, bytes.
const SCENARIO_BYTES_MAX: usize = 4 << 20;

/// Longest order to hold, bytes.
const HOLD_BYTES_MAX: usize = 4096;

/// The fleet, at most half a second old.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Fleet)]
pub(crate) struct FleetBody<'a> {
    /// Pools, in the scenario's order.
    pools: Vec<PoolBody<'a>>,
    /// Workers connected.
    workers: usize,
    /// Jobs in the system.
    jobs: usize,
    /// Spent so far, US dollars: a machine that runs counts up to now.
    spent_usd: f64,
    /// Spent per hour now, US dollars.
    burn_usd_per_hour: f64,
    /// Why nothing may be launched; absent while launches are free.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<&'a str>,
    /// Counts the planes that had this journal.
    epoch: u64,
}

/// A pool.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Pool)]
pub(crate) struct PoolBody<'a> {
    name: &'a str,
    /// Instances that take jobs.
    ready: u32,
    /// Instances on their way.
    starting: u32,
    /// Instances that finish their last jobs.
    draining: u32,
}

/// An order to hold all launches, or to lift the hold.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Hold)]
pub(crate) struct HoldBody {
    /// Whether launches are forbidden from now on.
    held: bool,
    /// Why; it is shown to everybody who asks.
    #[serde(default)]
    #[schema(max_length = 512)]
    why: String,
}

/// What became of a reload.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Reloaded)]
pub(crate) struct ReloadBody {
    reloaded: bool,
}

/// `GET /v1/fleet`
#[utoipa::path(
    get, path = "/v1/fleet", tag = "operate",
    responses((status = 200, description = "The fleet, at most half a second old", body = FleetBody)),
)]
pub(crate) fn fleet(ask: &Ask<'_>) -> Result<Response<Body>, Problem> {
    ask.caller.needs(Scope::Observe)?;
    let figures = ask.api.handle.figures();
    let pools = figures.pools.iter();
    let pools = pools.map(|(name, ready, starting, draining)| PoolBody {
        name,
        ready: *ready,
        starting: *starting,
        draining: *draining,
    });
    let body = FleetBody {
        pools: pools.collect(),
        workers: figures.workers,
        jobs: figures.jobs,
        spent_usd: figures.spent_nanousd as f64 / 1e9,
        burn_usd_per_hour: figures.burn_nanousd_per_hour as f64 / 1e9,
        hold: figures.hold.as_deref(),
        epoch: figures.epoch,
    };
    Ok(body::json(StatusCode::OK, &body))
}

/// `POST /v1/operate/hold`
#[utoipa::path(
    post, path = "/v1/operate/hold", tag = "operate",
    request_body = HoldBody,
    responses(
        (status = 200, description = "The order holds, and is durable", body = HoldBody),
        (status = 422, description = "A wrong body", body = super::problem::ProblemBody)),
)]
pub(crate) async fn hold(ask: Ask<'_>) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, parts, body, peer } = ask;
    caller.needs(Scope::Operate)?;
    let bytes = body::read(&parts.headers, body, HOLD_BYTES_MAX, api.limits.body_patience).await?;
    let remedy = "send {\"held\": true, \"why\": \"...\"}, or {\"held\": false}";
    let order: HoldBody = serde_json::from_slice(&bytes).map_err(|error| {
        let detail = format!("the body is no order to hold: {error}");
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-hold", detail, remedy)
    })?;
    if order.why.chars().count() > 512 {
        return Err(Problem::too_large("`why`", 512));
    }
    let command = Command::Hold { is_held: order.held, why: order.why.clone() };
    let told = async {
        api.handle.tell(command).await?;
        // A look is answered after the commit that the order is in.
        api.handle.look(|_| ()).await
    };
    let done = api.patiently(told).await;
    let action = if order.held { "hold" } else { "lift" };
    api.audit.note(Entry::new(&caller, peer, action, order.why.clone(), outcome(&done)));
    done?;
    Ok(body::json(StatusCode::OK, &order))
}

/// `POST /v1/operate/reload`
#[utoipa::path(
    post, path = "/v1/operate/reload", tag = "operate",
    request_body(content = String, content_type = "application/toml",
        description = "The whole scenario: what it extends is not read"),
    responses(
        (status = 200, description = "The scenario is in force, and durable", body = ReloadBody),
        (status = 422, description = "It cannot be taken; nothing changed", body = super::problem::ProblemBody)),
)]
pub(crate) async fn reload(ask: Ask<'_>) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, parts, body, peer } = ask;
    caller.needs(Scope::Operate)?;
    let bytes = body::read(&parts.headers, body, SCENARIO_BYTES_MAX, api.limits.body_patience).await?;
    let scenario = String::from_utf8(bytes.to_vec())
        .map_err(|_| Problem::invalid("the scenario is no UTF-8 text", "send the TOML file as it is"))?;
    api.commits()?;
    let answer = api.patiently(api.handle.ask(Command::Reload { scenario })).await;
    let taken = match answer {
        Ok(Answer::Reloaded) => Ok(()),
        Ok(Answer::NotReloaded(why)) => {
            let remedy = "correct the scenario; `headroom validate` shows the place";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-scenario", why, remedy))
        }
        Ok(other) => Err(super::jobs::refusal(&other)),
        Err(problem) => Err(problem),
    };
    api.audit.note(Entry::new(&caller, peer, "reload", String::new(), outcome(&taken)));
    taken?;
    let names = api.patiently(api.handle.look(|plane| Names::of(plane.rules()))).await?;
    api.rename(names);
    Ok(body::json(StatusCode::OK, &ReloadBody { reloaded: true }))
}

fn outcome<T>(done: &Result<T, Problem>) -> &'static str {
    match done {
        Ok(_) => "done",
        Err(problem) => problem.kind,
    }
}
