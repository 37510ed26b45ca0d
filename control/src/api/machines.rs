//! The machines of the fleet, in pages: what each is for, how it is, and what it works on.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use jiff::Timestamp;
use policy::dispatch::InstanceState;
use policy::model::{InstanceId, PoolId};
use serde::Serialize;

use super::body;
use super::keys::Scope;
use super::listing::{limit, wrong, wrong_cursor};
use super::names::Calendar;
use super::problem::Problem;
use super::route::Ask;
use super::wait::parameter;
use crate::plane::{LaunchView, MachineView};

/// Machines of one page where nothing is said.
const LIMIT: usize = 100;

/// Machines of one page at most.
const LIMIT_MAX: usize = 1000;

/// A page of machines.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = MachinePage)]
pub(crate) struct PageBody<'a> {
    /// The machines, by number.
    machines: Vec<MachineBody<'a>>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<u32>,
}

/// A machine.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Machine)]
pub(crate) struct MachineBody<'a> {
    /// The plane's number of it; numbers of machines that are gone are used again. Absent once it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    /// Its pool.
    pool: Cow<'a, str>,
    /// Id of its launch.
    launch: String,
    /// The provider's name of it; absent until it is launched.
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    /// Name of its worker; absent until that joins.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    /// requested, loading, ready, silent, draining or terminating.
    state: &'static str,
    /// Whether its worker is connected.
    is_connected: bool,
    /// Slots that its worker offered; 0 until that joins.
    slots: u16,
    /// Ids of the jobs that it works on.
    jobs: Vec<String>,
    /// When its worker last said something, or the connection came or went. Absent once it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    heard_at: Option<Timestamp>,
    /// What machines of its pool cost now, US dollars per hour; absent until it is billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    usd_per_hour: Option<f64>,
}

/// `GET /v1/fleet/machines`
#[utoipa::path(
    get, path = "/v1/fleet/machines", tag = "operate",
    params(
        ("pool" = Option<String>, Query, description = "Only machines of this pool"),
        ("limit" = Option<u32>, Query, description = "Machines of the page, at most 1000; 100 where nothing is said"),
        ("cursor" = Option<u32>, Query, description = "The `cursor` of the page before")),
    responses(
        (status = 200, description = "A page of machines, by number; on the last, those that were given up and whose end is not confirmed", body = PageBody),
        (status = 400, description = "A wrong parameter", body = super::problem::ProblemBody)),
)]
pub(crate) async fn list(ask: Ask<'_>) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, parts, .. } = ask;
    caller.needs(Scope::Observe)?;
    let query = parts.uri.query();
    let limit = limit(parameter(query, "limit"), LIMIT, LIMIT_MAX)?;
    let number = |text: &str| text.parse().map(InstanceId).map_err(|_| wrong_cursor(text));
    let after = parameter(query, "cursor").map(number).transpose()?;
    let wanted = parameter(query, "pool").map(str::to_owned);
    api.commits()?;
    let look = api.handle.look(move |plane| {
        let names: Vec<String> = plane.rules().system.pools.iter().map(|pool| pool.name.clone()).collect();
        let pool = wanted.map(|wanted| pool(&names, &wanted)).transpose()?;
        let (machines, has_more) = plane.machines(pool, after, limit);
        let is_wanted = |ending: &LaunchView| !has_more && pool.is_none_or(|pool| pool == ending.pool);
        let endings: Vec<LaunchView> = plane.endings().filter(is_wanted).collect();
        Ok::<_, Problem>((machines, has_more, endings, names))
    });
    let (machines, has_more, endings, names) = api.patiently(look).await??;
    let cursor = machines.last().filter(|_| has_more).map(|last| last.instance.0);
    let machines = machines.into_iter().map(|machine| body_of(machine, &names, api.calendar));
    let machines = machines.chain(endings.into_iter().map(|ending| given_up(ending, &names))).collect();
    Ok(body::json(StatusCode::OK, &PageBody { machines, cursor }))
}

fn name_of(names: &[String], pool: PoolId) -> Cow<'_, str> {
    names.get(pool.index()).map_or("", String::as_str).into()
}

fn given_up(ending: LaunchView, names: &[String]) -> MachineBody<'_> {
    MachineBody {
        number: None,
        pool: name_of(names, ending.pool),
        launch: ending.token.to_string(),
        handle: ending.handle,
        worker: None,
        state: name(InstanceState::Terminating),
        is_connected: false,
        slots: 0,
        jobs: Vec::new(),
        heard_at: None,
        usd_per_hour: None,
    }
}

fn body_of<'a>(machine: MachineView, names: &'a [String], calendar: Calendar) -> MachineBody<'a> {
    MachineBody {
        number: Some(machine.instance.0),
        pool: name_of(names, machine.pool),
        launch: machine.token.to_string(),
        handle: machine.handle,
        worker: machine.worker,
        state: name(machine.state),
        is_connected: machine.is_connected,
        slots: machine.slots,
        jobs: machine.jobs.iter().map(ToString::to_string).collect(),
        heard_at: Some(calendar.at(machine.heard)),
        usd_per_hour: machine.price.map(|price| price.as_nanos() as f64 * 1e-9),
    }
}

fn pool(names: &[String], wanted: &str) -> Result<PoolId, Problem> {
    let at = names.iter().position(|name| name == wanted);
    at.map(|at| PoolId(at as u16))
        .ok_or_else(|| wrong("pool", wanted, format!("the scenario has {}", names.join(", "))))
}

fn name(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Free | InstanceState::Terminating => "terminating",
        InstanceState::Requested => "requested",
        InstanceState::Loading => "loading",
        InstanceState::Ready => "ready",
        InstanceState::Silent => "silent",
        InstanceState::Draining => "draining",
    }
}
