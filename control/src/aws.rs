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

/// Settings for all of Amazon's services. `AWS_ENDPOINT_URL` and its kin name other servers than Amazon's.
///
/// Nothing is repeated inside a call: whoever makes it knows whether that does harm.
pub async fn config(region: Option<String>) -> SdkConfig {
    let client = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_MAX).operation_timeout(ANSWER_MAX).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(client)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled());
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    loader.load().await
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
