//! What EC2's error codes mean for a launch.
//!
//! Codes: "Error codes for the Amazon EC2 API", docs.aws.amazon.com, read in November 2026.

use super::call::CloudError;
use crate::command::LaunchRefusal;

/// Longest text of an error that is kept, characters.
const TEXT_MAX: usize = 300;

const THROTTLED: &[&str] = &[
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "EC2ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "SlowDown",
];

const NO_CAPACITY: &[&str] = &[
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientReservedInstanceCapacity",
    "InsufficientCapacity",
    "UnfulfillableCapacity",
    "SpotMaxPriceTooLow",
    // The type is not sold in the zone.
    "Unsupported",
];

const NO_QUOTA: &[&str] = &[
    "MaxSpotInstanceCountExceeded",
    "MaxSpotFleetRequestCountExceeded",
    "VcpuLimitExceeded",
    "InstanceLimitExceeded",
    "InsufficientFreeAddressesInSubnet",
    "VolumeLimitExceeded",
];

const NOT_ALLOWED: &[&str] = &[
    "UnauthorizedOperation",
    "AuthFailure",
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    "Blocked",
    "OptInRequired",
    "PendingVerification",
];

const BAD_CREDENTIALS: &[&str] = &[
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
];

const NOT_HERE: &[&str] = &["UnsupportedOperation", "InvalidAction", "UnknownOperationException"];

const UNCLEAR: &[&str] =
    &["InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "Unavailable"];

/// What an error with this code means. Without a code nobody understood the answer.
pub fn classify(code: Option<&str>, message: &str) -> CloudError {
    let Some(code) = code else {
        return CloudError::InDoubt(if message.is_empty() {
            "an error without a code, or one that cannot be read".to_owned()
        } else {
            short(message)
        });
    };
    let text = format!("{code}: {}", short(message));
    let is = |codes: &[&str]| codes.contains(&code);
    if is(THROTTLED) {
        CloudError::Throttled
    } else if is(NO_CAPACITY) || is(NO_QUOTA) {
        CloudError::Refused(refusal(code, message))
    } else if is(NOT_ALLOWED) {
        let policy = "allow it in the IAM policy (docs/aws.md has the whole one)";
        CloudError::Unauthorized(format!(
            "AWS does not allow this account or role to do it; {policy}: {text}"
        ))
    } else if is(BAD_CREDENTIALS) {
        CloudError::Unauthorized(format!("AWS does not accept the credentials; renew them: {text}"))
    } else if is(NOT_HERE) {
        CloudError::Unsupported(text)
    } else if code == "InvalidInstanceID.NotFound" || code == "InvalidInstanceID.Malformed" {
        CloudError::NotFound
    } else if is(UNCLEAR) {
        CloudError::InDoubt(text)
    } else {
        CloudError::Refused(LaunchRefusal::Other(text))
    }
}

/// Why a launch, or a part of a fleet, was refused.
pub fn refusal(code: &str, message: &str) -> LaunchRefusal {
    if NO_CAPACITY.contains(&code) {
        LaunchRefusal::InsufficientCapacity
    } else if NO_QUOTA.contains(&code) {
        LaunchRefusal::Quota
    } else {
        LaunchRefusal::Other(format!("{code}: {}", short(message)))
    }
}

/// The start of a text that may be a whole page.
pub(crate) fn short(text: &str) -> String {
    let mut text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_whether_something_may_have_been_done() {
        let check =
            |code: &str, expected: CloudError| assert_eq!(classify(Some(code), "why"), expected, "{code}");
        check("RequestLimitExceeded", CloudError::Throttled);
        check("InsufficientInstanceCapacity", CloudError::Refused(LaunchRefusal::InsufficientCapacity));
        check("MaxSpotInstanceCountExceeded", CloudError::Refused(LaunchRefusal::Quota));
        check("VcpuLimitExceeded", CloudError::Refused(LaunchRefusal::Quota));
        check("InvalidInstanceID.NotFound", CloudError::NotFound);
        let other = "InvalidLaunchTemplateId.NotFound";
        check(other, CloudError::Refused(LaunchRefusal::Other(format!("{other}: why"))));
        check("InternalError", CloudError::InDoubt("InternalError: why".to_owned()));
        assert!(matches!(classify(None, "<html>500</html>"), CloudError::InDoubt(_)));
        let denied = classify(Some("UnauthorizedOperation"), "You are not authorized");
        assert!(
            denied.to_string().contains("IAM policy") && denied.to_string().contains("UnauthorizedOperation")
        );
    }

    #[test]
    fn a_page_is_cut() {
        assert_eq!(short("a\n  b"), "a b");
        assert_eq!(short(&"ä".repeat(1000)).chars().count(), TEXT_MAX + 4);
    }
}
