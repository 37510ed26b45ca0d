//! Signatures checked by somebody else's code: the Python package `standardwebhooks`, or else the algorithm as the standard
//! writes it, in Node's own cryptography.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const PYTHON: &str = r#"
import base64, json, sys
from standardwebhooks import Webhook
for line in sys.stdin:
    case = json.loads(line)
    try:
        Webhook(case["secret"]).verify(base64.b64decode(case["body"]), case["headers"])
        print("right")
    except Exception as error:
        print("wrong", type(error).__name__)
"#;

const NODE: &str = r#"
const crypto = require("crypto");
const lines = require("fs").readFileSync(0, "utf8").trim().split("\n");
for (const line of lines) {
  const { secret, headers, body } = JSON.parse(line);
  const start = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`);
  const key = Buffer.from(secret.slice("whsec_".length), "base64");
  const mac = crypto.createHmac("sha256", key).update(Buffer.concat([start, Buffer.from(body, "base64")]));
  const wanted = "v1," + mac.digest("base64");
  const age = Math.abs(Date.now() / 1000 - Number(headers["webhook-timestamp"]));
  console.log(age < 300 && headers["webhook-signature"].split(" ").includes(wanted) ? "right" : "wrong");
}
"#;

/// Somebody else's code.
pub(crate) struct Verifier {
    program: String,
    script: [&'static str; 2],
}

/// A message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) timestamp: String,
    pub(crate) signature: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl Verifier {
    /// The first that works here. With HEADROOM_REQUIRE_PYTHON=1 it is the Python package, or the test fails.
    pub(crate) fn find() -> Option<Self> {
        let python = std::env::var("HEADROOM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let works = |program: &str, arguments: [&str; 2]| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if works(&python, ["-c", "import standardwebhooks"]) {
            return Some(Self { program: python, script: ["-c", PYTHON] });
        }
        let is_required = std::env::var("HEADROOM_REQUIRE_PYTHON").is_ok_and(|value| value == "1");
        assert!(
            !is_required,
            "`{python}` has no package standardwebhooks; install it, or set HEADROOM_PYTHON"
        );
        if works("node", ["-e", ""]) {
            return Some(Self { program: "node".to_owned(), script: ["-e", NODE] });
        }
        println!("skipped: neither the Python package standardwebhooks nor node is here");
        None
    }

    /// Which of the messages are signed with `secret`.
    pub(crate) fn check(&self, secret: &str, messages: &[Received]) -> Vec<bool> {
        use base64::Engine as _;
        let mut command = Command::new(&self.program);
        let mut child = command
            .args(self.script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a verifier");
        let mut input = child.stdin.take().expect("its input");
        for message in messages {
            let case = json!({
                "secret": secret,
                "headers": {
                    "webhook-id": message.id,
                    "webhook-timestamp": message.timestamp,
                    "webhook-signature": message.signature,
                },
                "body": base64::engine::general_purpose::STANDARD.encode(&message.body),
            });
            writeln!(input, "{case}").expect("it reads");
        }
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "the verifier failed");
        let verdicts: Vec<bool> =
            String::from_utf8_lossy(&output.stdout).lines().map(|line| line == "right").collect();
        assert_eq!(verdicts.len(), messages.len());
        verdicts
    }
}
