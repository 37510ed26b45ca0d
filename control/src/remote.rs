//! A client of a plane that runs elsewhere: submits jobs over its API and waits for their ends.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

/// One request waits so long for a job's end, seconds.
const WAIT_S: u64 = 60;

/// A request that is not answered for so much longer has failed.
const GRACE: Duration = Duration::from_secs(30);

/// A plane elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RemotePlane {
    client: Client,
    url: String,
    key: String,
}

/// A job as the plane tells of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RemoteJob {
    /// Its id.
    pub id: String,
    /// `queued`, `running`, or how it ended.
    pub state: String,
    /// When it was accepted; known of jobs that were asked for.
    pub created_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Time in queues, seconds.
    pub wait_s: Option<f64>,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq)]
pub enum RemoteEnd {
    /// It ended.
    Ended(RemoteJob),
    /// It was turned away: too many jobs, or it would have been late.
    TurnedAway,
}

/// The fleet as the plane tells of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RemoteFleet {
    /// Pools.
    pub pools: Vec<RemotePool>,
    /// Spent so far, US dollars.
    pub spent_usd: f64,
}

/// A pool as the plane tells of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RemotePool {
    /// Its name.
    pub name: String,
    /// Instances that take jobs.
    pub ready: u32,
    /// Instances on their way.
    pub starting: u32,
    /// Instances that finish their last jobs.
    pub draining: u32,
}

/// A plane that does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It was not reached, or its answer cannot be read.
    #[error("{url}: {why}")]
    Unreachable { url: String, why: String },
    /// It refuses.
    #[error("{url} answers {status}: {detail}")]
    Refused { url: String, status: u16, detail: String },
}

impl RemotePlane {
    /// The plane at `url`; without a key where it asks for none.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] when no client can be made.
    pub fn new(url: &str, key: &str) -> Result<Self, RemoteError> {
        // Whichever part of the process was first has chosen the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = url.trim_end_matches('/').to_owned();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(WAIT_S) + GRACE)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| RemoteError::Unreachable { url: url.clone(), why: error.to_string() })?;
        Ok(Self { client, url, key: key.to_owned() })
    }

    /// Submits a job and waits for its end. Classes and regions are those of the plane's scenario.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn work(
        &self,
        class: &str,
        region: &str,
        payload: &RawValue,
    ) -> Result<RemoteEnd, RemoteError> {
        let body = serde_json::json!({ "class": class, "region": region, "payload": payload });
        let request = self.client.post(format!("{}/v1/jobs?wait={WAIT_S}", self.url));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let response = self.send(request).await?;
        if matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return Ok(RemoteEnd::TurnedAway);
        }
        let mut job: RemoteJob = self.read(response).await?;
        while matches!(job.state.as_str(), "queued" | "running") {
            let request = self.client.get(format!("{}/v1/jobs/{}?wait={WAIT_S}", self.url, job.id));
            job = self.read(self.send(request).await?).await?;
        }
        Ok(RemoteEnd::Ended(job))
    }

    /// The fleet now.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn fleet(&self) -> Result<RemoteFleet, RemoteError> {
        self.read(self.send(self.client.get(format!("{}/v1/fleet", self.url))).await?).await
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Response, RemoteError> {
        if !self.key.is_empty() {
            request = request.bearer_auth(&self.key);
        }
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, response: Response) -> Result<T, RemoteError> {
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            let detail = String::from_utf8_lossy(&bytes).chars().take(300).collect();
            return Err(RemoteError::Refused { url: self.url.clone(), status: status.as_u16(), detail });
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| RemoteError::Unreachable { url: self.url.clone(), why: error.to_string() })
    }

    fn unreachable(&self, error: &reqwest::Error) -> RemoteError {
        let mut why = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            why += &format!(": {cause}");
            source = cause.source();
        }
        RemoteError::Unreachable { url: self.url.clone(), why }
    }
}
