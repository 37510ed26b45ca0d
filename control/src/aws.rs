//! How Amazon is reached: credentials, region, endpoints, times. From the environment, the profile or the machine's role,
//! as Amazon's own tools do.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::fleet::ec2::call::CloudError;
use crate::fleet::ec2::refusal;

/// A call without an answer after so long is over; long polls bring a time of their own.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The same for connections.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What is said about how to reach Amazon beside the environment, the profile and the machine's role.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Region; by default the environment's.
    pub region: Option<String>,
    /// Another server than Amazon's; so do `AWS_ENDPOINT_URL` and its kin.
    pub endpoint: Option<String>,
    /// Access key and secret; by default those that the environment, the profile or the role give.
    pub keys: Option<(String, String)>,
    /// A call without an answer after so long is over; by default half a minute.
    pub answer_max: Option<Duration>,
}

impl Reach {
    /// The same for a region.
    pub fn region(&self, region: &str) -> Self {
        Self { region: Some(region.to_owned()), ..self.clone() }
    }

    /// Settings for all of Amazon's services.
    ///
    /// Nothing is repeated inside a call: whoever makes it knows whether that does harm.
    pub async fn config(&self) -> SdkConfig {
        let client = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_MAX)
            .operation_timeout(self.answer_max.unwrap_or(ANSWER_MAX));
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(client)
            .timeout_config(timeouts.build())
            .retry_config(RetryConfig::disabled());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some((key, secret)) = &self.keys {
            let keys = aws_sdk_ec2::config::Credentials::new(key, secret, None, None, "given");
            loader = loader.credentials_provider(keys);
        }
        loader.load().await
    }

    /// A client of SQS.
    pub async fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.config().await)
    }
}

/// What an error of a call means.
pub(crate) fn failure<E, R>(error: &SdkError<E, R>) -> CloudError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    if let SdkError::ServiceError(service) = error {
        let found = service.err();
        return refusal::classify(found.code(), found.message().unwrap_or_default());
    }
    let text = DisplayErrorContext(error).to_string();
    if text.contains("credentials") || text.contains("Credentials") {
        return CloudError::Unauthorized(format!(
            "no AWS credentials were found; set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give the machine a role: {}",
            refusal::short(&text)
        ));
    }
    CloudError::InDoubt(refusal::short(&text))
}
