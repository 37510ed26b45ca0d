//! Paced requests by plain sockets. A thread for each connection sleeps until its request is due, writes it, and reads the
//! answer: nothing is handed from thread to thread, and no timer rounds, so that what is measured is the plane.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Target;

/// Connections: so many requests may be in flight.
const CONNECTIONS: u64 = 128;

/// Longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends `body` to `path` `rate` times a second for `seconds`. Gives the latencies of good answers from their scheduled
/// instants, nanoseconds, and the number of others.
pub(crate) fn paced(target: &Target, path: &str, body: &str, rate: u64, seconds: u64) -> (Vec<u64>, u64) {
    // A sleep may end 50 µs late otherwise; threads inherit it.
    let slack = std::fs::write("/proc/self/timerslack_ns", "1");
    slack.expect("a thread may say how exact its timers are");
    let request = target.plain_request(path, body);
    let request = request.as_bytes();
    let (connections, total) = (CONNECTIONS.min(rate * seconds), rate * seconds);
    let streams: Vec<TcpStream> = (0..connections).map(|_| target.plain_connect()).collect();
    let started = Instant::now() + Duration::from_millis(20);
    let each = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(streams)
            .map(|(first, mut stream)| {
                scope.spawn(move || {
                    let (mut latencies, mut failed) = (Vec::new(), 0);
                    for at in (first..total).step_by(connections as usize) {
                        let due = started + Duration::from_nanos(at * 1_000_000_000 / rate);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        if once(&mut stream, request) {
                            latencies.push(due.elapsed().as_nanos() as u64);
                        } else {
                            failed += 1;
                        }
                    }
                    (latencies, failed)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    let failed = each.iter().map(|(_, failed)| failed).sum();
    (each.into_iter().flat_map(|(latencies, _)| latencies).collect(), failed)
}

/// Whether the request was answered with success.
fn once(stream: &mut TcpStream, request: &[u8]) -> bool {
    if stream.write_all(request).is_err() {
        return false;
    }
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let mut read = 0;
    loop {
        match stream.read(&mut answer[read..]) {
            Ok(0) | Err(_) => return false,
            Ok(count) => read += count,
        }
        if let Some(whole) = length(&answer[..read])
            && read >= whole
        {
            return answer.starts_with(b"HTTP/1.1 2");
        }
    }
}

/// Length of head and body, once the head is there.
fn length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).expect("a head is text").to_ascii_lowercase();
    let body = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    Some(head + body.map_or(0, |body| body.trim().parse::<usize>().expect("a length")))
}
