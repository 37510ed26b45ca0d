//! A small Amazon on loopback: EC2 (query protocol), Price List and SQS (JSON 1.0 and 1.1), instance metadata. It does what
//! moto does not: capacity and quotas run out, calls are throttled, lists lag, client tokens mean something, fleets are
//! partial, spot instances get two minutes' notice, and answers are lost after the work was done.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::fake_sqs::Queues;
use crate::form::Form;

/// What goes wrong with a call of some action.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is refused with this code.
    Error(u16, &'static str),
    /// A page instead of an answer; nothing is done.
    Page,
    /// It is done, and the answer never comes.
    AnswerLost,
    /// It never arrives.
    RequestLost,
    /// So many instances come, with this error for the rest.
    Partial(usize, &'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) subnet: String,
    pub(crate) is_spot: bool,
    pub(crate) tags: BTreeMap<String, String>,
    /// Tags as lists show them, until when.
    stale: Option<(Instant, BTreeMap<String, String>)>,
    made: Instant,
    over: Option<Instant>,
    /// When spot capacity is reclaimed, once that is announced.
    reclaimed: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Account {
    pub(crate) instances: Vec<Instance>,
    by_client_token: BTreeMap<String, Vec<String>>,
    pub(crate) faults: VecDeque<(&'static str, Fault)>,
    /// Lists lack what is younger.
    pub(crate) lag: Duration,
    pub(crate) pending_for: Duration,
    /// Instances of a type in a subnet at most.
    pub(crate) capacity: BTreeMap<(String, String), usize>,
    /// Spot instances at most.
    pub(crate) spot_max: Option<usize>,
    /// Rows of the spot price history: region's zone id, type, price, time.
    pub(crate) spot_prices: Vec<(String, String, String, String)>,
    /// Texts of the price list, by type.
    pub(crate) products: BTreeMap<String, Vec<String>>,
    pub(crate) queues: Queues,
    /// Actions, in order.
    pub(crate) calls: Vec<String>,
    /// Events go to this queue.
    pub(crate) event_queue: Option<String>,
}

/// A small Amazon.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    account: Arc<Mutex<Account>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let account = Arc::new(Mutex::new(Account::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let fake = Self { address, account };
        let app = axum::Router::new().fallback(serve).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().expect("nobody panicked")
    }

    /// Announces that a spot instance is reclaimed, as EventBridge does, and does it after `notice`.
    pub(crate) fn interrupt(&self, id: &str, notice: Duration) {
        let mut account = self.account();
        let instance = account.instances.iter_mut().find(|one| one.id == id).expect("an instance");
        instance.reclaimed = Some(Instant::now() + notice);
        let warning = event(
            "EC2 Spot Instance Interruption Warning",
            serde_json::json!({"instance-id": id, "instance-action": "terminate"}),
        );
        if let Some(queue) = account.event_queue.clone() {
            account.queues.send(&queue, &warning);
        }
    }
}

fn event(kind: &str, detail: serde_json::Value) -> String {
    serde_json::json!({
        "version": "0", "id": "1", "detail-type": kind, "source": "aws.ec2", "account": "1", "region": "us-east-1",
        "time": jiff::Timestamp::now().round(jiff::Unit::Second).expect("a time").to_string(), "resources": [], "detail": detail,
    })
    .to_string()
}

async fn serve(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = String::from_utf8_lossy(&body).into_owned();
    if uri.path().starts_with("/latest/") {
        return metadata(&fake, &method, &uri, &headers);
    }
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let (action, form) = match target.rsplit_once('.') {
        Some((_, action)) => (action.to_owned(), Form::default()),
        None => {
            let form = Form::parse(&text);
            (form.get("Action").unwrap_or_default().to_owned(), form)
        }
    };
    let fault = {
        let mut account = fake.account();
        account.calls.push(action.clone());
        let found = account.faults.iter().position(|(name, _)| *name == action);
        found.and_then(|index| account.faults.remove(index)).map(|(_, fault)| fault)
    };
    match &fault {
        Some(Fault::Error(status, code)) => return error(*status, code, target),
        Some(Fault::Page) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, "<!doctype html><title>500</title><h1>Oops</h1>")
                .into_response();
        }
        Some(Fault::RequestLost) => return std::future::pending().await,
        Some(Fault::AnswerLost | Fault::Partial(..)) | None => {}
    }
    let response = match target.split_once('.').map(|(service, _)| service) {
        Some("AmazonSQS") => {
            // A long poll waits for what may come.
            let until = Instant::now() + Duration::from_millis(300);
            loop {
                let value = serde_json::from_str(&text).unwrap_or_default();
                let answer = fake.account().queues.call(&action, &value);
                let is_empty =
                    action == "ReceiveMessage" && answer["Messages"].as_array().is_none_or(Vec::is_empty);
                if !is_empty || Instant::now() >= until {
                    break json(&answer);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Some(_) => json(&products(&fake.account(), &serde_json::from_str(&text).unwrap_or_default())),
        None => fake.account().query(&action, &form, fault.as_ref()),
    };
    match fault {
        Some(Fault::AnswerLost) => std::future::pending().await,
        _ => response,
    }
}

fn json(value: &serde_json::Value) -> Response {
    ([("content-type", "application/x-amz-json-1.1")], value.to_string()).into_response()
}

fn error(status: u16, code: &str, target: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    if !target.is_empty() {
        return (status, serde_json::json!({"__type": code, "message": "as the test wished"}).to_string())
            .into_response();
    }
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>as the test wished</Message></Error></Errors><RequestID>r</RequestID></Response>"
    );
    (status, body).into_response()
}

fn xml(action: &str, inner: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>{inner}</{action}Response>"
    );
    ([("content-type", "text/xml;charset=UTF-8")], body).into_response()
}

fn products(account: &Account, question: &serde_json::Value) -> serde_json::Value {
    let filters = question["Filters"].as_array().cloned().unwrap_or_default();
    let kind = filters.iter().find(|filter| filter["Field"] == "instanceType").map(|filter| &filter["Value"]);
    let list = kind.and_then(|kind| account.products.get(kind.as_str()?)).cloned().unwrap_or_default();
    // One product a page, so that pages are followed.
    let page: usize = question["NextToken"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut answer = serde_json::json!({"FormatVersion": "aws_v1", "PriceList": list.get(page..=page).unwrap_or_default()});
    if page + 1 < list.len() {
        answer["NextToken"] = (page + 1).to_string().into();
    }
    answer
}

impl Account {
    fn query(&mut self, action: &str, form: &Form, fault: Option<&Fault>) -> Response {
        self.reclaim();
        match action {
            "CreateFleet" => self.create_fleet(form, fault),
            "RunInstances" => self.run_instances(form),
            "DescribeInstances" => self.describe(form),
            "TerminateInstances" => self.terminate(form),
            "CreateTags" => self.create_tags(form),
            "DescribeSpotPriceHistory" => self.spot_history(form),
            "GetSpotPlacementScores" => xml(
                action,
                "<spotPlacementScoreSet><item><region>us-east-1</region><score>7</score></item></spotPlacementScoreSet>",
            ),
            "CreateLaunchTemplate" => {
                xml(action, "<launchTemplate><launchTemplateId>lt-1</launchTemplateId></launchTemplate>")
            }
            _ => error(400, "InvalidAction", ""),
        }
    }

    fn room(&self, kind: &str, subnet: &str, is_spot: bool) -> Result<(), &'static str> {
        let alive = |one: &&Instance| one.over.is_none();
        if is_spot
            && self.spot_max.is_some_and(|max| {
                self.instances.iter().filter(alive).filter(|one| one.is_spot).count() >= max
            })
        {
            return Err("MaxSpotInstanceCountExceeded");
        }
        let place = (kind.to_owned(), subnet.to_owned());
        let held = self.instances.iter().filter(alive).filter(|one| one.kind == kind && one.subnet == subnet);
        match self.capacity.get(&place) {
            Some(max) if held.count() >= *max => Err("InsufficientInstanceCapacity"),
            _ => Ok(()),
        }
    }

    fn make(&mut self, kind: &str, subnet: &str, is_spot: bool, tags: &BTreeMap<String, String>) -> String {
        let id = format!("i-{:017x}", self.instances.len() + 1);
        self.instances.push(Instance {
            id: id.clone(),
            kind: kind.to_owned(),
            subnet: subnet.to_owned(),
            is_spot,
            tags: tags.clone(),
            stale: None,
            made: Instant::now(),
            over: None,
            reclaimed: None,
        });
        id
    }

    fn create_fleet(&mut self, form: &Form, fault: Option<&Fault>) -> Response {
        let token = form.get("ClientToken").unwrap_or_default().to_owned();
        let is_spot = form.get("TargetCapacitySpecification.DefaultTargetCapacityType") == Some("spot");
        let wanted: usize = form
            .get("TargetCapacitySpecification.TotalTargetCapacity")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        let kinds = form.list("LaunchTemplateConfigs.1.Overrides", ".InstanceType");
        let places: Vec<(String, String)> = (1..)
            .zip(kinds)
            .map(|(n, kind)| {
                let subnet = form.get(&format!("LaunchTemplateConfigs.1.Overrides.{n}.SubnetId"));
                (kind, subnet.unwrap_or_default().to_owned())
            })
            .collect();
        let tags = form.tags("TagSpecification.1.Tag");
        let mut errors = Vec::new();
        let handles = match self.by_client_token.get(&token) {
            Some(handles) => handles.clone(),
            None => {
                let limit = match fault {
                    Some(Fault::Partial(count, code)) => {
                        errors.push((*code, String::new()));
                        *count
                    }
                    _ => wanted,
                };
                let mut handles = Vec::new();
                for (kind, subnet) in &places {
                    while handles.len() < limit.min(wanted) {
                        if let Err(code) = self.room(kind, subnet, is_spot) {
                            errors.push((code, kind.clone()));
                            break;
                        }
                        handles.push(self.make(kind, subnet, is_spot, &tags));
                    }
                }
                self.by_client_token.insert(token, handles.clone());
                handles
            }
        };
        let items =
            |texts: &[String]| texts.iter().map(|text| format!("<item>{text}</item>")).collect::<String>();
        let lifecycle = if is_spot { "spot" } else { "on-demand" };
        let made = match handles.as_slice() {
            [] => String::new(),
            handles => format!(
                "<item><instanceIds>{}</instanceIds><lifecycle>{lifecycle}</lifecycle></item>",
                items(handles)
            ),
        };
        let errors: String = errors
            .iter()
            .map(|(code, kind)| {
                format!("<item><errorCode>{code}</errorCode><errorMessage>{kind}</errorMessage></item>")
            })
            .collect();
        xml(
            "CreateFleet",
            &format!(
                "<fleetId>fleet-1</fleetId><fleetInstanceSet>{made}</fleetInstanceSet><errorSet>{errors}</errorSet>"
            ),
        )
    }

    fn run_instances(&mut self, form: &Form) -> Response {
        let token = form.get("ClientToken").unwrap_or_default().to_owned();
        let count: usize = form.get("MaxCount").and_then(|n| n.parse().ok()).unwrap_or(1);
        let kind = form.get("InstanceType").unwrap_or("m5.large").to_owned();
        let subnet = form.get("SubnetId").unwrap_or_default().to_owned();
        let is_spot = form.get("InstanceMarketOptions.MarketType") == Some("spot");
        let tags = form.tags("TagSpecification.1.Tag");
        let handles = match self.by_client_token.get(&token).filter(|_| !token.is_empty()) {
            Some(handles) => handles.clone(),
            None => {
                let mut handles = Vec::new();
                for _ in 0..count {
                    match self.room(&kind, &subnet, is_spot) {
                        Ok(()) => handles.push(self.make(&kind, &subnet, is_spot, &tags)),
                        Err(code) if handles.is_empty() => return error(400, code, ""),
                        Err(_) => break,
                    }
                }
                self.by_client_token.insert(token, handles.clone());
                handles
            }
        };
        let items: String =
            handles.iter().map(|id| format!("<item><instanceId>{id}</instanceId></item>")).collect();
        xml(
            "RunInstances",
            &format!("<reservationId>r-1</reservationId><instancesSet>{items}</instancesSet>"),
        )
    }

    fn describe(&self, form: &Form) -> Response {
        let now = Instant::now();
        let filter = form.get("Filter.1.Name").and_then(|name| name.strip_prefix("tag:"));
        let value = form.get("Filter.1.Value.1");
        let shown = self.instances.iter().filter(|one| now.duration_since(one.made) >= self.lag);
        let mut items = Vec::new();
        for one in shown {
            let tags = match &one.stale {
                Some((until, stale)) if now < *until => stale,
                _ => &one.tags,
            };
            if filter.is_some_and(|name| tags.get(name).map(String::as_str) != value) {
                continue;
            }
            let state = match one.over {
                Some(over) if now.duration_since(over) >= self.lag => "terminated",
                _ if now.duration_since(one.made) < self.pending_for => "pending",
                _ => "running",
            };
            let tags: String = tags
                .iter()
                .map(|(key, value)| format!("<item><key>{key}</key><value>{value}</value></item>"))
                .collect();
            items.push(format!(
                "<item><reservationId>r-1</reservationId><instancesSet><item><instanceId>{}</instanceId><instanceType>{}</instanceType><instanceState><code>16</code><name>{state}</name></instanceState><tagSet>{tags}</tagSet></item></instancesSet></item>",
                one.id, one.kind
            ));
        }
        // Two a page, so that pages are followed.
        let from: usize = form.get("NextToken").and_then(|text| text.parse().ok()).unwrap_or(0);
        let to = items.len().min(from + 2);
        let next = if to < items.len() { format!("<nextToken>{to}</nextToken>") } else { String::new() };
        xml(
            "DescribeInstances",
            &format!("<reservationSet>{}</reservationSet>{next}", items[from.min(to)..to].concat()),
        )
    }

    fn terminate(&mut self, form: &Form) -> Response {
        let ids = form.list("InstanceId", "");
        let now = Instant::now();
        let lag = self.lag;
        let is_known = |id: &String| {
            self.instances.iter().any(|one| one.id == *id && now.duration_since(one.made) >= lag)
        };
        if !ids.iter().all(is_known) {
            return error(400, "InvalidInstanceID.NotFound", "");
        }
        for one in self.instances.iter_mut().filter(|one| ids.contains(&one.id)) {
            one.over = one.over.or(Some(now));
        }
        xml("TerminateInstances", "<instancesSet></instancesSet>")
    }

    fn create_tags(&mut self, form: &Form) -> Response {
        let (ids, tags, now, lag) = (form.list("ResourceId", ""), form.tags("Tag"), Instant::now(), self.lag);
        let young = |one: &Instance| now.duration_since(one.made) < lag;
        if ids.iter().any(|id| self.instances.iter().all(|one| one.id != *id || young(one))) {
            return error(400, "InvalidInstanceID.NotFound", "");
        }
        for one in self.instances.iter_mut().filter(|one| ids.contains(&one.id)) {
            one.stale = Some((now + lag, one.tags.clone()));
            one.tags.extend(tags.clone());
        }
        xml("CreateTags", "<return>true</return>")
    }

    fn spot_history(&self, form: &Form) -> Response {
        let kinds = form.list("InstanceType", "");
        let items: String = self
            .spot_prices
            .iter()
            .filter(|(_, kind, _, _)| kinds.contains(kind))
            .map(|(zone, kind, price, time)| {
                format!("<item><availabilityZone>us-east-1a</availabilityZone><availabilityZoneId>{zone}</availabilityZoneId><instanceType>{kind}</instanceType><productDescription>Linux/UNIX</productDescription><spotPrice>{price}</spotPrice><timestamp>{time}</timestamp></item>")
            })
            .collect();
        xml(
            "DescribeSpotPriceHistory",
            &format!("<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken/>"),
        )
    }

    /// Spot capacity whose notice is over goes.
    fn reclaim(&mut self) {
        let now = Instant::now();
        for one in self.instances.iter_mut().filter(|one| one.reclaimed.is_some_and(|at| at <= now)) {
            one.over = one.over.or(Some(now));
        }
    }

    pub(crate) fn alive(&self) -> Vec<Instance> {
        self.instances.iter().filter(|one| one.over.is_none()).cloned().collect()
    }
}

/// Instance metadata (IMDSv2) of the first spot instance that will be reclaimed.
fn metadata(fake: &Fake, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    if uri.path() == "/latest/api/token" && method == Method::PUT {
        return ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "token").into_response();
    }
    if headers.get("x-aws-ec2-metadata-token").is_none_or(|token| token != "token") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let account = fake.account();
    let doomed = account.instances.iter().find(|one| one.reclaimed.is_some() && one.over.is_none());
    match (uri.path(), doomed) {
        ("/latest/meta-data/spot/instance-action", Some(doomed)) => {
            let left =
                doomed.reclaimed.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            let at = jiff::Timestamp::now() + jiff::SignedDuration::try_from(left).expect("two minutes");
            let at = at.round(jiff::Unit::Second).expect("a time");
            serde_json::json!({"action": "terminate", "time": at.to_string()}).to_string().into_response()
        }
        (path, _) => {
            let tag = path.strip_prefix("/latest/meta-data/tags/instance/");
            let value = tag.and_then(|tag| account.instances.first()?.tags.get(tag));
            value.map_or(StatusCode::NOT_FOUND.into_response(), |value| value.clone().into_response())
        }
    }
}
