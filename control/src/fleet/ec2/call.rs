//! What is asked of EC2 and what it answers, without its SDK. [`super::roster::Roster`] decides what to ask; a [`Cloud`]
//! asks it.

use std::future::Future;

use policy::model::PoolId;
use sha2::{Digest, Sha256};

use crate::command::{LaunchRefusal, LaunchToken};

/// Launches that one call asks for at most: their tokens must fit into the tags of an instance.
pub const BATCH_MAX: usize = 44;

/// By which API instances are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// `CreateFleet` of type instant: EC2 chooses among zones and instance types.
    Fleet,
    /// `RunInstances`, one zone and type after the other.
    Run,
}

/// One call to EC2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Launch an instance for each token.
    Launch(LaunchCall),
    /// Write a launch's token on its instance.
    Tag { handle: String, token: LaunchToken },
    /// Terminate.
    Terminate { handles: Vec<String> },
    /// All instances that bear the plane's tag, every page.
    List,
}

/// Launch an instance for each of some tokens, all of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchCall {
    /// Whose launch template and places.
    pub pool: PoolId,
    /// One to [`BATCH_MAX`]; a call that is repeated has the same ones.
    pub tokens: Vec<LaunchToken>,
    /// By which API.
    pub way: Way,
    /// Which place to try, for [`Way::Run`].
    pub place: usize,
}

impl LaunchCall {
    /// EC2's idempotency token: the launch token of a single launch, a digest of several.
    pub fn client_token(&self) -> String {
        let name = match self.tokens.as_slice() {
            [token] => token.to_string(),
            tokens => {
                let mut digest = Sha256::new();
                for token in tokens {
                    digest.update(token.0.to_be_bytes());
                }
                digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
            }
        };
        match self.way {
            Way::Fleet => name,
            Way::Run => format!("{name}-{}", self.place),
        }
    }
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Instances launched, at most one for each token, and why there are not more.
    Launched { handles: Vec<String>, refusals: Vec<LaunchRefusal> },
    /// Done.
    Done,
    /// What bears the plane's tag.
    Listed(Vec<Seen>),
}

/// An instance that bears the plane's tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// EC2's id of it.
    pub handle: String,
    /// The launch it was given to.
    pub token: Option<LaunchToken>,
    /// The launches of the call that made it.
    pub batch: Vec<LaunchToken>,
    /// Whether it runs.
    pub life: Life,
}

/// Whether an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Pending or running: it costs.
    Up,
    /// Stopping or stopped: no worker runs on it, its disks cost.
    Stopped,
    /// Shutting down or terminated.
    Over,
}

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// It was refused; nothing was done.
    #[error("AWS refused: {0:?}")]
    Refused(LaunchRefusal),
    /// Too many calls; nothing was done.
    #[error("EC2 asks for fewer calls (RequestLimitExceeded)")]
    Throttled,
    /// The account may not; nothing was done.
    #[error("{0}")]
    Unauthorized(String),
    /// This API is not to be had here; nothing was done.
    #[error("{0}")]
    Unsupported(String),
    /// An instance is not known, or not yet.
    #[error("EC2 does not know the instance")]
    NotFound,
    /// No answer, or one that nobody understands: it may have been done.
    #[error("no clear answer from EC2: {0}")]
    InDoubt(String),
}

/// Asks EC2, or something that behaves like it.
pub trait Cloud: Send + Sync + 'static {
    /// Makes one call.
    fn call(&self, call: &Call) -> impl Future<Output = Result<Reply, CloudError>> + Send;
}

/// Tokens in one tag value (256 characters at most, 22 of base64 each).
const TAG_TOKENS_MAX: usize = 11;

/// Writes tokens into tag values.
pub fn batch_tags(tokens: &[LaunchToken]) -> Vec<String> {
    use base64::Engine as _;
    let text =
        |token: &LaunchToken| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.0.to_be_bytes());
    tokens.chunks(TAG_TOKENS_MAX).map(|some| some.iter().map(text).collect()).collect()
}

/// Reads tokens from tag values; what is no token is left out.
pub fn batch_tokens<'a>(values: impl Iterator<Item = &'a str>) -> Vec<LaunchToken> {
    use base64::Engine as _;
    let token = |text: &[u8]| {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(LaunchToken(u128::from_be_bytes(bytes.try_into().ok()?)))
    };
    values.flat_map(|value| value.as_bytes().chunks(22).filter_map(token).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_full_batch_fit_into_four_tags_and_come_back() {
        let tokens: Vec<LaunchToken> =
            (0..BATCH_MAX as u128).map(|n| LaunchToken(n << 90 | u128::MAX >> 9)).collect();
        let tags = batch_tags(&tokens);
        assert_eq!(tags.len(), 4);
        assert!(tags.iter().all(|tag| tag.len() <= 256));
        assert_eq!(batch_tokens(tags.iter().map(String::as_str)), tokens);
        assert_eq!(batch_tokens(["short", "!".repeat(44).as_str()].into_iter()), []);
    }

    #[test]
    fn client_token_names_the_launches_and_nothing_else() {
        let call = |tokens: &[u128], way, place| {
            let tokens = tokens.iter().copied().map(LaunchToken).collect();
            LaunchCall { pool: PoolId(0), tokens, way, place }.client_token()
        };
        assert_eq!(call(&[7], Way::Fleet, 0), LaunchToken(7).to_string());
        assert_eq!(call(&[7, 8], Way::Fleet, 0), call(&[7, 8], Way::Fleet, 3));
        assert_ne!(call(&[7, 8], Way::Fleet, 0), call(&[7, 9], Way::Fleet, 0));
        assert_ne!(call(&[7, 8], Way::Run, 0), call(&[7, 8], Way::Run, 1), "another place is another call");
        assert!(call(&[7, 8], Way::Run, 1).len() <= 64, "EC2 takes 64 characters");
    }
}
