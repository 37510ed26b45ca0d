//! Input and output objects of jobs, at the plane: `GET` and `PUT /v1/objects/{key}`, with the join token. The plane may send
//! the worker on to a store (307 with a presigned URL).

use std::time::Duration;

use reqwest::{Client, StatusCode};
use tokio::runtime::Handle;

use super::link::Address;

/// Tries of one transfer.
const TRIES: u32 = 4;

/// From the request to the last byte.
const TRANSFER_FOR: Duration = Duration::from_secs(120);

/// Longest input that is read, bytes.
const INPUT_BYTES_MAX: usize = 64 << 20;

/// A transfer that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("object `{key}`: {why}")]
pub struct ObjectError {
    /// Which object.
    pub key: String,
    /// What happened.
    pub why: String,
    /// Whether it may work another time.
    pub again: bool,
}

/// The plane's objects, for code on threads that may block.
#[derive(Clone, Debug)]
pub struct Objects {
    client: Client,
    address: Address,
    runtime: Handle,
}

impl Objects {
    /// The objects of the plane at `address`; transfers run on `runtime`.
    ///
    /// # Errors
    /// When the system gives no HTTP client.
    pub fn new(address: Address, runtime: Handle) -> Result<Self, reqwest::Error> {
        let client = address.client()?;
        Ok(Self { client, address, runtime })
    }

    /// Key of an output of a job.
    pub fn output_key(job: crate::number::JobNumber, name: &str) -> String {
        format!("outputs/{job}/{name}")
    }

    /// Writes an object; it is whole, or not there, afterwards.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn put(&self, key: &str, media_type: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
        let bytes = bytes::Bytes::from(bytes);
        self.runtime.block_on(self.tried(key, async || {
            let request = self.client.put(self.url(key)).header("content-type", media_type);
            let response = self.authorized(request).body(bytes.clone()).send().await?;
            Ok((response.status(), Vec::new()))
        }))?;
        Ok(())
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn get(&self, key: &str) -> Result<Vec<u8>, ObjectError> {
        self.runtime.block_on(self.tried(key, async || {
            let mut response = self.authorized(self.client.get(self.url(key))).send().await?;
            let status = response.status();
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                if bytes.len() + chunk.len() > INPUT_BYTES_MAX {
                    return Ok((StatusCode::PAYLOAD_TOO_LARGE, Vec::new()));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok((status, bytes))
        }))
    }

    fn url(&self, key: &str) -> String {
        format!("{}/v1/objects/{key}", self.address.url())
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let request = request.timeout(TRANSFER_FOR);
        match self.address.join_token() {
            "" => request,
            token => request.bearer_auth(token),
        }
    }

    async fn tried(
        &self,
        key: &str,
        transfer: impl AsyncFn() -> Result<(StatusCode, Vec<u8>), reqwest::Error>,
    ) -> Result<Vec<u8>, ObjectError> {
        let error = |why: String, again| ObjectError { key: key.to_owned(), why, again };
        let mut pause = Duration::from_millis(250);
        let mut last = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(pause).await;
                pause *= 4;
            }
            match transfer().await {
                Ok((status, bytes)) if status.is_success() => return Ok(bytes),
                Ok((status, _)) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                    return Err(error(format!("the store answered {status}"), false));
                }
                Ok((status, _)) => last = format!("the store answered {status}"),
                Err(failed) => last = failed.without_url().to_string(),
            }
        }
        Err(error(last, true))
    }
}
