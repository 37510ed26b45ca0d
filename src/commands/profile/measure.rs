//! Times requests on this machine: each kind alone, then several replicas at once. Writes nothing.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use gpu_runtime::RuntimeError;
use gpu_runtime::generate::Timings;
use gpu_runtime::residency::{Footprint, Placement, density_max};

use super::account::{Dense, Profile, Row};
use super::spread::Spread;
use super::subject::{Kind, Subject};
use super::{ProfileArgs, page_cache};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::screen::Screen;

/// Times that the model is loaded: reading the files again and again tells little more.
const LOADS_MAX: u32 = 3;

/// Measures a model as the flags say.
///
/// # Errors
/// What the runtime says about the device, the model or a request.
pub(super) fn profile(model: &Path, args: &ProfileArgs, screen: &Screen) -> Result<Profile, Failure> {
    let bar = Progress::spinner(screen, &format!("loading {}", model.display()));
    let load_from_disk = load_from_disk(model, args)?;
    let (mut subject, kinds, load) = load(model, args)?;
    // A mistake in the last of many kinds is told before the first is measured.
    kinds.iter().try_for_each(|kind| subject.check(*kind))?;
    drop(bar);
    subject.note.iter().for_each(|note| screen.note(note));

    let bar = Progress::steps(screen, "requests", kinds.len() as u64);
    let (mut warm_up_s, mut memory_bytes, mut replicas_max) = (0.0, 0, None);
    let mut alone = Vec::with_capacity(kinds.len());
    for &kind in &kinds {
        let (row, first_s) = row(&mut subject, kind, args.repetitions)?;
        if alone.is_empty() {
            warm_up_s = (first_s - row.total.median()).max(0.0);
            let memory = subject.memory();
            memory_bytes = memory.used;
            let replica = Footprint { weights: memory.used, ..Footprint::default() };
            replicas_max =
                density_max(replica, Placement::OwnWeights, memory.used.saturating_add(memory.free));
        }
        alone.push(row);
        bar.advance(1);
    }
    drop(bar);
    let (device, host) = (subject.device.clone(), subject.host.clone());
    // Its memory is free for the replicas.
    drop(subject);
    let density =
        replicas_max.map_or(args.density, |max| u32::try_from(max).unwrap_or(u32::MAX).min(args.density));
    if density < args.density {
        screen.note(&format!("the device has memory for {density} replicas, not for {}", args.density));
    }
    let dense = dense(model, kinds[0], args, density, screen)?;
    Ok(Profile {
        model: model.display().to_string(),
        device,
        host,
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        version: env!("CARGO_PKG_VERSION"),
        seed: args.seed,
        memory_bytes,
        replicas_max,
        load,
        load_from_disk,
        warm_up_s,
        alone,
        dense,
    })
}

/// Loads the model with the programs of the stage's own kind; also gives every kind, and the seconds.
fn timed_load(model: &Path, args: &ProfileArgs) -> Result<(Subject, Vec<Kind>, f64), RuntimeError> {
    let started = Instant::now();
    let mut subject = Subject::open(model, args)?;
    let kinds = subject.kinds(args);
    subject.prepare(kinds[0])?;
    Ok((subject, kinds, started.elapsed().as_secs_f64()))
}

/// Loads it several times and keeps the last.
fn load(model: &Path, args: &ProfileArgs) -> Result<(Subject, Vec<Kind>, Spread), RuntimeError> {
    let mut seconds = Vec::new();
    loop {
        let (subject, kinds, elapsed) = timed_load(model, args)?;
        seconds.push(elapsed);
        if seconds.len() as u32 >= args.repetitions.min(LOADS_MAX) {
            return Ok((subject, kinds, Spread::of(seconds)));
        }
    }
}

/// Loads it with its files out of the page cache; `None` where they cannot be taken out.
fn load_from_disk(model: &Path, args: &ProfileArgs) -> Result<Option<Spread>, RuntimeError> {
    let source = args.parts.source(model);
    let adapters = source.adapters.iter().map(|(path, _)| path);
    let paths: Vec<&PathBuf> =
        [&source.folder].into_iter().chain(&source.motion_adapter).chain(adapters).collect();
    let mut seconds = Vec::new();
    for _ in 0..args.repetitions.min(LOADS_MAX) {
        // What cannot be read is told by the load itself, with the remedy.
        if !paths.iter().all(|path| page_cache::forget(path).unwrap_or(false)) {
            break;
        }
        seconds.push(timed_load(model, args)?.2);
    }
    Ok((!seconds.is_empty()).then(|| Spread::of(seconds)))
}

/// One kind of request, alone on the device; and the seconds of the first one, which is not counted.
fn row(subject: &mut Subject, kind: Kind, repetitions: u32) -> Result<(Row, f64), RuntimeError> {
    let (_, first_s) = subject.serve(kind)?;
    let mut samples = Vec::new();
    for _ in 0..repetitions {
        samples.push(subject.serve(kind)?);
    }
    let part = |seconds: fn(&Timings) -> f64| Spread::of(samples.iter().map(|(timings, _)| seconds(timings)));
    let steps = f64::from(kind.steps);
    let row = Row {
        steps: kind.steps,
        frames: kind.frames,
        width: kind.size.width,
        height: kind.size.height,
        text: part(|timings| timings.text.as_secs_f64()),
        encode: part(|timings| timings.encode.as_secs_f64()),
        step: Spread::of(samples.iter().map(|(timings, _)| timings.steps.as_secs_f64() / steps)),
        decode: part(|timings| timings.decode.as_secs_f64()),
        total: Spread::of(samples.iter().map(|(_, total)| *total)),
    };
    Ok((row, first_s))
}

/// One, two, ... replicas at once; nothing where one is all that was asked for.
fn dense(
    model: &Path,
    kind: Kind,
    args: &ProfileArgs,
    density: u32,
    screen: &Screen,
) -> Result<Vec<Dense>, Failure> {
    if density < 2 {
        return Ok(Vec::new());
    }
    let bar = Progress::steps(screen, "replicas", u64::from(density));
    let mut found: Vec<Dense> = Vec::new();
    for replicas in 1..=density {
        let total = Spread::of(at_once(model, kind, args, replicas)?);
        let alone = found.first().map_or(total.median(), |first: &Dense| first.total.median());
        let slowdown = (total.median() / alone).max(1.0);
        found.push(Dense { replicas, total, slowdown });
        bar.advance(1);
    }
    Ok(found)
}

/// Seconds of every request of so many replicas, which all begin at one moment; a device is opened on its own thread.
fn at_once(model: &Path, kind: Kind, args: &ProfileArgs, replicas: u32) -> Result<Vec<f64>, RuntimeError> {
    let start = Barrier::new(replicas as usize);
    let replica = || -> Result<Vec<f64>, RuntimeError> {
        let opened = Subject::open(model, args);
        let warm = opened.and_then(|mut subject| subject.serve(kind).map(|_| subject));
        // All wait here, also one that failed: the others must not wait for it for ever.
        start.wait();
        let mut subject = warm?;
        (0..args.repetitions).map(|_| subject.serve(kind).map(|(_, total)| total)).collect()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..replicas).map(|_| scope.spawn(replica)).collect();
        let mut seconds = Vec::new();
        for thread in threads {
            seconds.extend(thread.join().expect("a replica ends with a result")?);
        }
        Ok(seconds)
    })
}
