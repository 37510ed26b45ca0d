//! Times requests on this machine: each kind alone, then several replicas at once. Writes nothing.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use gpu_runtime::RuntimeError;
use gpu_runtime::generate::{CancelToken, Request, Start, Timings};
use gpu_runtime::picture::Picture;
use gpu_runtime::residency::{Footprint, Placement, density_max};

use super::account::{Dense, Profile, Row};
use super::spread::Spread;
use super::{ProfileArgs, Size, page_cache};
use crate::commands::animator::Animator;
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
    let (mut animator, kinds, load) = load(model, args)?;
    // A mistake in the last of many kinds is told before the first is measured.
    kinds.iter().try_for_each(|kind| animator.generator.check(kind))?;
    drop(bar);
    animator.note.iter().for_each(|note| screen.note(note));

    let bar = Progress::steps(screen, "requests", kinds.len() as u64);
    let (mut warm_up_s, mut memory_bytes, mut replicas_max) = (0.0, 0, None);
    let mut alone = Vec::with_capacity(kinds.len());
    for kind in &kinds {
        let (row, first_s) = row(&mut animator, kind, args.repetitions)?;
        if alone.is_empty() {
            warm_up_s = (first_s - row.total.median()).max(0.0);
            let memory = animator.generator.memory();
            memory_bytes = memory.used;
            let replica = Footprint { weights: memory.used, ..Footprint::default() };
            replicas_max =
                density_max(replica, Placement::OwnWeights, memory.used.saturating_add(memory.free));
        }
        alone.push(row);
        bar.advance(1);
    }
    drop(bar);
    let (device, host) = (animator.device.clone(), animator.host.clone());
    // Its memory is free for the replicas.
    drop(animator);
    let density =
        replicas_max.map_or(args.density, |max| u32::try_from(max).unwrap_or(u32::MAX).min(args.density));
    if density < args.density {
        screen.note(&format!("the device has memory for {density} replicas, not for {}", args.density));
    }
    let dense = dense(model, &kinds[0], args, density, screen)?;
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
fn timed_load(model: &Path, args: &ProfileArgs) -> Result<(Animator, Vec<Request>, f64), RuntimeError> {
    let started = Instant::now();
    let mut animator = Animator::open(model, &args.parts)?;
    let kinds = kinds(&animator, args);
    let Request { frames, width, height, .. } = kinds[0];
    animator.generator.prepare(frames, width, height, true)?;
    Ok((animator, kinds, started.elapsed().as_secs_f64()))
}

/// Loads it several times and keeps the last.
fn load(model: &Path, args: &ProfileArgs) -> Result<(Animator, Vec<Request>, Spread), RuntimeError> {
    let mut seconds = Vec::new();
    loop {
        let (animator, kinds, elapsed) = timed_load(model, args)?;
        seconds.push(elapsed);
        if seconds.len() as u32 >= args.repetitions.min(LOADS_MAX) {
            return Ok((animator, kinds, Spread::of(seconds)));
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

/// Every combination, the stage's own first: first size, first frames, most steps.
fn kinds(animator: &Animator, args: &ProfileArgs) -> Vec<Request> {
    let mut steps: Vec<u32> = args.steps.iter().map(|steps| steps.get()).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps.dedup();
    let frames: Vec<u32> = args.frames.iter().map(|frames| frames.get()).collect();
    let frames = if frames.is_empty() { vec![animator.frames_default()] } else { frames };
    let sizes = if args.size.is_empty() { vec![animator.size_default()] } else { args.size.clone() };
    let guidance = animator.guidance(&args.parts);
    let mut kinds = Vec::new();
    for &Size { width, height } in &sizes {
        let picture = start_picture();
        for &frames in &frames {
            kinds.extend(steps.iter().map(|&steps| Request {
                prompt: args.prompt.clone(),
                seed: args.seed,
                steps,
                frames,
                width,
                height,
                guidance,
                // At strength 1 every sampler takes all its steps.
                start: Some(Start { picture: picture.clone(), strength: 1.0 }),
                sampler: args.parts.sampler,
            }));
        }
    }
    kinds
}

/// Any picture: what it shows changes no time.
fn start_picture() -> Picture {
    const SIDE: u32 = 64;
    let level = |i: u32| (i % (SIDE * 3) + i / (SIDE * 3)) as u8;
    Picture::new(SIDE, SIDE, (0..SIDE * SIDE * 3).map(level).collect())
}

/// A timed request: its parts, and all of it in seconds.
fn request(animator: &mut Animator, kind: &Request) -> Result<(Timings, f64), RuntimeError> {
    let started = Instant::now();
    let made = animator.generator.generate(kind, &mut |_| {}, &CancelToken::new())?;
    Ok((made.timings, started.elapsed().as_secs_f64()))
}

/// One kind of request, alone on the device; and the seconds of the first one, which is not counted.
fn row(animator: &mut Animator, kind: &Request, repetitions: u32) -> Result<(Row, f64), RuntimeError> {
    let (_, first_s) = request(animator, kind)?;
    let mut samples = Vec::new();
    for _ in 0..repetitions {
        samples.push(request(animator, kind)?);
    }
    let part = |seconds: fn(&Timings) -> f64| Spread::of(samples.iter().map(|(timings, _)| seconds(timings)));
    let steps = f64::from(kind.steps);
    let row = Row {
        steps: kind.steps,
        frames: kind.frames,
        width: kind.width,
        height: kind.height,
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
    kind: &Request,
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
fn at_once(
    model: &Path,
    kind: &Request,
    args: &ProfileArgs,
    replicas: u32,
) -> Result<Vec<f64>, RuntimeError> {
    let start = Barrier::new(replicas as usize);
    let replica = || -> Result<Vec<f64>, RuntimeError> {
        let opened = Animator::open(model, &args.parts);
        let warm = opened.and_then(|mut animator| request(&mut animator, kind).map(|_| animator));
        // All wait here, also one that failed: the others must not wait for it for ever.
        start.wait();
        let mut animator = warm?;
        (0..args.repetitions).map(|_| request(&mut animator, kind).map(|(_, total)| total)).collect()
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
