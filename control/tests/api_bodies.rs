//! Any bytes as the body of a submission: refused with a reason, or a job within every limit.
//!
//! [`judge`] is what the fuzz target `api_body` feeds arbitrary bytes to; the tests here feed it good bodies with a few
//! bytes changed, and random ones.

use control::api::Names;
use control::api::submission::{BATCH_JOBS_MAX, parse, parse_batch};
use control::submission::{OBJECTS_MAX, PAYLOAD_BYTES_MAX, Submission};

/// What the bodies are read by.
fn names() -> Names {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Names { classes: list(&["dance", "bulk"]), regions: list(&["eu"]), ..Names::default() }
}

/// Reads a body as one submission and as a batch; whether any job came of it.
///
/// # Panics
/// When a job breaks a limit, or a refusal says nothing.
pub fn judge(bytes: &[u8]) -> bool {
    let names = names();
    let one = parse(bytes, &names);
    let mut is_taken = one.is_ok();
    match one {
        Ok(submission) => check(&submission, bytes, &names),
        Err(problem) => check_refusal(&problem),
    }
    match parse_batch(bytes, &names) {
        Ok(items) => {
            assert!((1..=BATCH_JOBS_MAX).contains(&items.len()));
            for (text, item) in items {
                match item {
                    Ok(submission) => {
                        is_taken = true;
                        check(&submission, text.as_bytes(), &names);
                        assert_eq!(
                            parse(text.as_bytes(), &names).as_ref(),
                            Ok(&submission),
                            "alone as in a batch"
                        );
                    }
                    Err(problem) => check_refusal(&problem),
                }
            }
        }
        Err(problem) => check_refusal(&problem),
    }
    is_taken
}

fn check(submission: &Submission, body: &[u8], names: &Names) {
    assert!(submission.payload.len() <= PAYLOAD_BYTES_MAX);
    serde_json::from_slice::<serde::de::IgnoredAny>(&submission.payload).expect("payloads are JSON");
    let is_part = body.windows(submission.payload.len().max(1)).any(|window| *window == *submission.payload);
    assert!(is_part, "a payload is a part of its body, byte for byte");
    assert!(submission.class.index() < names.classes.len());
    assert!(submission.region.index() < names.regions.len());
    assert!(submission.priority.is_none_or(|priority| priority <= 7));
    assert!(submission.deadline.is_none_or(|deadline| deadline.as_secs_f64() <= 30.0 * 86400.0));
    assert!(submission.inputs.len() <= OBJECTS_MAX);
    for key in &submission.inputs {
        assert!(!key.is_empty() && key.len() <= 1024 && !key.starts_with('/'));
        assert!(key.split('/').all(|part| part != ".."));
    }
    assert!(submission.webhook.as_ref().is_none_or(|address| address.len() <= 2048));
    assert!(submission.idempotency.is_none() && submission.tenant == 0, "a body does not say whose it is");
}

fn check_refusal(problem: &control::api::Problem) {
    assert!(problem.status.is_client_error());
    assert!(!problem.detail.is_empty() && !problem.remedy.is_empty());
    assert!(problem.detail.len() < 4096, "a refusal does not repeat the body");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: [&str; 5] = [
        r#"{"payload":{"prompt":"a cat \u00e9","n":[1,2.5e3,null,true]}}"#,
        r#"{"class":"bulk","region":"eu","priority":7,"deadline_s":0.25,"payload":""}"#,
        r#"{"payload":1,"inputs":["a/b.png","c"],"webhook":"https://example.com/hook?x=1"}"#,
        r#"[{"payload":1},{"payload":{"a":{"b":[[]]}},"class":"dance"}]"#,
        r#" [ {"payload" : "x" , "priority" : 0 } ] "#,
    ];

    #[test]
    fn good_bodies_are_taken() {
        for body in GOOD {
            assert!(judge(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn deep_and_long_bodies_are_no_danger() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            for depth in [100, 10_000] {
                let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                judge(deep.as_bytes());
                judge(format!(r#"{{"payload":{deep}}}"#).as_bytes());
            }
        }
        let name = "x".repeat(100_000);
        assert!(!judge(format!(r#"{{"payload":1,"class":"{name}"}}"#).as_bytes()));
        assert!(!judge(format!(r#"{{"payload":1,"{name}":1}}"#).as_bytes()));
        assert!(!judge(format!(r#"{{"payload":1,"priority":"{name}"}}"#).as_bytes()));
    }

    proptest! {
        #[test]
        fn changed_bodies_are_judged(
            which in 0..GOOD.len(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
        ) {
            let mut body = GOOD[which].as_bytes().to_vec();
            for (at, byte, how) in changes {
                let at = at.index(body.len().max(1)).min(body.len().saturating_sub(1));
                match how {
                    _ if body.is_empty() => body.push(byte),
                    0 => body[at] = byte,
                    1 => body.insert(at, byte),
                    _ => drop(body.remove(at)),
                }
            }
            judge(&body);
        }

        #[test]
        fn random_bytes_are_judged(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            judge(&body);
        }
    }
}
