//! What a worker and the plane say to each other over one connection: WebSocket binary messages, each a postcard-encoded
//! list of [`FromWorker`] or [`ToWorker`]. Nothing here decides.

use policy::model::{InstanceId, Lease};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::number::JobNumber;
use crate::submission::{OBJECTS_MAX, RESULT_BYTES_MAX};

/// Version that both sides must speak; it is part of the path, `/v1/workers/connect`.
pub const PROTOCOL_VERSION: u16 = 1;

/// Longest WebSocket message, bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What a connection reads at once, bytes. The buffer is cleared before each read, and each connection has one.
pub(crate) const READ_BYTES: usize = 16 << 10;

/// Bytes from which a list of messages is sent and the next begun. No single message is as long as the rest to
/// [`MESSAGE_BYTES_MAX`].
pub const FRAME_BYTES: usize = 256 << 10;

/// Leases that one worker may hold at once.
pub const LEASES_MAX: usize = 1024;

/// Longest text a worker may send (names, error messages), bytes.
pub const TEXT_BYTES_MAX: usize = 4096;

/// First words of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Must be [`PROTOCOL_VERSION`].
    pub version: u16,
    /// Chosen by the worker process at its start, the same over reconnections (128 random bits in hexadecimal).
    pub name: String,
    /// Pool to serve.
    pub pool: String,
    /// Token of the launch that made this worker, from `HEADROOM_LAUNCH`; `None` for one that joins by itself.
    pub launch: Option<String>,
    /// Jobs it can run at once.
    pub slots: u16,
    /// Models it holds, by name.
    pub models: Vec<String>,
    /// Device, for people.
    pub device: String,
    /// Leases it still works under, or has results for, from before a reconnection.
    pub leases: Vec<Lease>,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Must come first, once.
    Hello(Box<Hello>),
    /// Models are loaded: jobs may come.
    Ready,
    /// It lives, and these leases advance. A lease that is not named is not renewed.
    Beat { alive: Vec<Lease> },
    /// Work under `lease` is at `done` of `of` parts.
    Progress { lease: Lease, job: JobNumber, done: u32, of: u32 },
    /// Work under `lease` ended. It is said again after a reconnection until the plane acknowledges.
    Finished { lease: Lease, job: JobNumber, report: Report },
    /// The machine will be taken away in `seconds`.
    Notice { seconds: u32 },
    /// It stops by itself and holds no work.
    Leaving,
}

/// How work under a lease ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Done, with an inline result (JSON as text, at most [`RESULT_BYTES_MAX`]) and the keys of output objects.
    Done { result: Box<[u8]>, objects: Vec<String> },
    /// It failed. When `again` is false no attempt could succeed (a bad request, a bad model).
    Failed { message: String, again: bool },
}

/// A stage of a job to work on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The right to report on it, once.
    pub lease: Lease,
    /// Which job.
    pub job: JobNumber,
    /// Name of the stage.
    pub stage: String,
    /// How often this stage has been started, this time included.
    pub delivery: u16,
    /// Name of the quality level.
    pub quality: String,
    /// Milliseconds left until the deadline, if there is one.
    pub deadline_ms: Option<u64>,
    /// Payload of the submission.
    pub payload: Box<[u8]>,
    /// Keys of input objects.
    pub inputs: Vec<String>,
    /// Result of the stage before, empty at the first.
    pub carry: Box<[u8]>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// What the plane says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// It is in, as `instance`. It beats every `beat_ms`, and drops all work but that under `keep`.
    Welcome { instance: InstanceId, beat_ms: u32, keep: Vec<Lease> },
    /// Its pool wants no instance now; it keeps the connection and waits.
    Standby,
    /// It may not join; the connection ends.
    Refused { why: String },
    /// Work.
    Start(Box<Start>),
    /// Stop working under this lease; reports under it are void.
    Revoke { lease: Lease },
    /// A report is on disk (`accepted`), or was void; either way it must not be said again.
    Ack { lease: Lease, accepted: bool },
    /// Take no more work; leave once idle.
    Drain,
}

/// A message that breaks the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not decodable.
    #[error("a message of {bytes} bytes is no list of protocol messages")]
    Malformed { bytes: usize },
    /// Larger than allowed.
    #[error("{what} of {size} is too large; at most {max}")]
    TooLarge { what: &'static str, size: usize, max: usize },
}

/// Encodes a list of messages.
pub fn encode<T: Serialize>(messages: &[T]) -> Vec<u8> {
    postcard::to_stdvec(messages).expect("protocol messages hold nothing that postcard cannot encode")
}

/// Encodes messages as few lists, each about [`FRAME_BYTES`] long or of one message.
pub fn frames<T: Serialize>(messages: &[T]) -> Vec<Vec<u8>> {
    let mut frames = Vec::with_capacity(1);
    let mut body = Vec::new();
    let mut first = 0;
    for (index, message) in messages.iter().enumerate() {
        body = postcard::to_extend(message, body).expect("protocol messages encode");
        if body.len() >= FRAME_BYTES || index + 1 == messages.len() {
            let count = index + 1 - first;
            let mut frame = Vec::with_capacity(body.len() + 5);
            frame = postcard::to_extend(&count, frame).expect("a count encodes");
            frame.append(&mut body);
            frames.push(frame);
            first = index + 1;
        }
    }
    frames
}

/// Decodes what a worker sent, and checks every size in it.
///
/// # Errors
/// [`ProtocolError`]; the connection must be closed then.
pub fn decode_from_worker(bytes: &[u8]) -> Result<Vec<FromWorker>, ProtocolError> {
    let messages: Vec<FromWorker> = decode(bytes)?;
    messages.iter().try_for_each(check)?;
    Ok(messages)
}

/// Decodes what the plane sent.
///
/// # Errors
/// [`ProtocolError::Malformed`] or [`ProtocolError::TooLarge`].
pub fn decode_to_worker(bytes: &[u8]) -> Result<Vec<ToWorker>, ProtocolError> {
    decode(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ProtocolError> {
    at_most("a message", bytes.len(), MESSAGE_BYTES_MAX)?;
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(ProtocolError::Malformed { bytes: bytes.len() }),
    }
}

fn check(message: &FromWorker) -> Result<(), ProtocolError> {
    match message {
        FromWorker::Hello(hello) => {
            let texts = [&hello.name, &hello.pool, &hello.device].into_iter();
            for text in texts.chain(&hello.launch).chain(&hello.models) {
                at_most("a text", text.len(), TEXT_BYTES_MAX)?;
            }
            at_most("a list of models", hello.models.len(), LEASES_MAX)?;
            at_most("a list of leases", hello.leases.len(), LEASES_MAX)
        }
        FromWorker::Beat { alive } => at_most("a list of leases", alive.len(), LEASES_MAX),
        FromWorker::Finished { report: Report::Done { result, objects }, .. } => {
            at_most("a result", result.len(), RESULT_BYTES_MAX)?;
            at_most("a list of objects", objects.len(), OBJECTS_MAX)?;
            objects.iter().try_for_each(|key| at_most("a text", key.len(), TEXT_BYTES_MAX))
        }
        FromWorker::Finished { report: Report::Failed { message, .. }, .. } => {
            at_most("a text", message.len(), TEXT_BYTES_MAX)
        }
        FromWorker::Ready | FromWorker::Progress { .. } | FromWorker::Notice { .. } | FromWorker::Leaving => {
            Ok(())
        }
    }
}

fn at_most(what: &'static str, size: usize, max: usize) -> Result<(), ProtocolError> {
    if size > max { Err(ProtocolError::TooLarge { what, size, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(number: u64, bytes: usize) -> FromWorker {
        let lease = Lease { slot: number as u32, token: 1 };
        let report = Report::Done { result: vec![b'x'; bytes].into(), objects: Vec::new() };
        FromWorker::Finished { lease, job: JobNumber(number), report }
    }

    #[test]
    fn frames_are_lists_of_bounded_length_in_order() {
        for (count, bytes) in [(1, 0), (300, 10), (40, RESULT_BYTES_MAX)] {
            let messages: Vec<FromWorker> = (0..count).map(|number| finished(number, bytes)).collect();
            let frames = frames(&messages);
            assert!(frames.iter().all(|frame| frame.len() < FRAME_BYTES + RESULT_BYTES_MAX + 64));
            let decoded: Vec<FromWorker> = frames
                .iter()
                .flat_map(|frame| decode_from_worker(frame).expect("own frames decode"))
                .collect();
            assert_eq!(decoded, messages);
        }
        assert!(frames::<FromWorker>(&[]).is_empty());
        assert_eq!(frames(&[FromWorker::Ready]), [encode(&[FromWorker::Ready])], "one list is encoded alike");
    }

    #[test]
    fn what_is_too_large_or_malformed_is_refused() {
        let too_large = encode(&[finished(1, RESULT_BYTES_MAX + 1)]);
        assert!(matches!(
            decode_from_worker(&too_large),
            Err(ProtocolError::TooLarge { what: "a result", .. })
        ));
        let leases = vec![Lease { slot: 1, token: 1 }; LEASES_MAX + 1];
        assert!(decode_from_worker(&encode(&[FromWorker::Beat { alive: leases }])).is_err());
        let good = encode(&[finished(1, 100), FromWorker::Leaving]);
        for end in 0..good.len() {
            assert!(decode_from_worker(&good[..end]).is_err(), "cut at {end}");
        }
        let longer = [&good[..], &[0]].concat();
        assert_eq!(decode_from_worker(&longer), Err(ProtocolError::Malformed { bytes: longer.len() }));
    }
}
