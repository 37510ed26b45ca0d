//! Amazon's warnings, as EventBridge puts them into a queue: spot interruptions and instances that change their state.

use serde::Deserialize;

/// What Amazon says about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It will be taken away so many seconds after the event.
    Interruption { handle: String, at: Option<jiff::Timestamp> },
    /// It is likelier than others to be taken away; nothing must be done.
    Rebalance { handle: String },
    /// It shuts down, stops, or has done so.
    Over { handle: String },
    /// Something else.
    Other,
}

/// Time between the warning and the interruption, seconds.
pub const WARNING_S: u32 = 120;

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "detail-type")]
    detail_type: String,
    time: Option<String>,
    detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "instance-id")]
    instance_id: Option<String>,
    state: Option<String>,
}

impl Notice {
    /// Reads an EventBridge event. What is none, or concerns no instance, is [`Notice::Other`].
    pub fn parse(body: &str) -> Self {
        let Ok(event) = serde_json::from_str::<Event>(body) else { return Self::Other };
        let Some(detail) = event.detail else { return Self::Other };
        let Some(handle) = detail.instance_id else { return Self::Other };
        match event.detail_type.as_str() {
            "EC2 Spot Instance Interruption Warning" => {
                Self::Interruption { handle, at: event.time.and_then(|time| time.parse().ok()) }
            }
            "EC2 Instance Rebalance Recommendation" => Self::Rebalance { handle },
            "EC2 Instance State-change Notification" => match detail.state.as_deref() {
                Some("shutting-down" | "terminated" | "stopping" | "stopped") => Self::Over { handle },
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// Seconds that are left of a warning given at `at`; all of them where that is not known or lies ahead.
pub fn seconds_left(at: Option<jiff::Timestamp>, now: jiff::Timestamp) -> u32 {
    let age = at.map_or(0, |at| now.as_second().saturating_sub(at.as_second()).max(0));
    WARNING_S.saturating_sub(u32::try_from(age).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_what_becomes_of_an_instance() {
        let event = |kind: &str, detail: &str| {
            let body = format!(
                r#"{{"version":"0","id":"1","detail-type":"{kind}","source":"aws.ec2","time":"2026-11-22T10:00:00Z","resources":[],"detail":{detail}}}"#
            );
            Notice::parse(&body)
        };
        let handle = || "i-1".to_owned();
        let at = "2026-11-22T10:00:00Z".parse().ok();
        let warning = event(
            "EC2 Spot Instance Interruption Warning",
            r#"{"instance-id":"i-1","instance-action":"terminate"}"#,
        );
        assert_eq!(warning, Notice::Interruption { handle: handle(), at });
        let state = |state: &str| {
            event(
                "EC2 Instance State-change Notification",
                &format!(r#"{{"instance-id":"i-1","state":"{state}"}}"#),
            )
        };
        assert_eq!(state("terminated"), Notice::Over { handle: handle() });
        assert_eq!(state("running"), Notice::Other);
        let rebalance = event("EC2 Instance Rebalance Recommendation", r#"{"instance-id":"i-1"}"#);
        assert_eq!(rebalance, Notice::Rebalance { handle: handle() });
        for other in ["", "{}", "[]", "{\"detail-type\":7}"] {
            assert_eq!(Notice::parse(other), Notice::Other, "{other}");
        }
    }

    #[test]
    fn a_late_warning_leaves_less_time() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().ok();
        let now = at("2026-11-22T10:01:30Z").unwrap();
        assert_eq!(seconds_left(at("2026-11-22T10:00:00Z"), now), 30);
        assert_eq!(seconds_left(at("2026-11-22T09:00:00Z"), now), 0);
        assert_eq!(seconds_left(at("2026-11-22T11:00:00Z"), now), 120, "a clock that is ahead");
        assert_eq!(seconds_left(None, now), 120);
    }
}
