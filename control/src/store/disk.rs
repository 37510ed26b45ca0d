//! A journal on a simulated disk, for tests of crashes: what was written and not synced may be lost, whole or in part;
//! a write may fail, or be torn. The same rules as a real log: a batch is a frame with length and checksum, and recovery
//! stops at the first frame that is not whole.

use std::sync::{Arc, Mutex};

use policy::units::random::mix;

use super::{Archive, Batch, Doing, Forgotten, Mark, Recovered, Store, StoreError, Visit};
use crate::number::JobNumber;

/// What a simulated disk does at the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Refuses for want of room; nothing is written.
    Full,
    /// Writes the first `kept` bytes of the frame and dies.
    Torn { kept: usize },
    /// Writes everything and dies before it says so.
    Unanswered,
}

#[derive(Debug, Default)]
struct Content {
    log: Vec<u8>,
    /// The latest image, and those that stay, by number.
    images: Vec<(Mark, Vec<u8>, bool)>,
    /// Ended jobs whose frames are forgotten.
    ended: Vec<(u64, Vec<u8>)>,
    fault: Option<DiskFault>,
    appends: u64,
}

/// A disk that outlives the stores opened on it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Content>>);

impl Disk {
    /// Has the next append go wrong.
    pub fn fail_next(&self, fault: DiskFault) {
        self.content().fault = Some(fault);
    }

    /// Appends that were asked for.
    pub fn appends(&self) -> u64 {
        self.content().appends
    }

    /// Bytes of the log.
    pub fn len(&self) -> usize {
        self.content().log.len()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes one byte of the log.
    pub fn damage(&self, at: usize) {
        if let Some(byte) = self.content().log.get_mut(at) {
            *byte ^= 0x55;
        }
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A journal on a [`Disk`].
pub struct DiskStore {
    disk: Disk,
}

impl DiskStore {
    /// Opens the journal on `disk`; a torn last frame is cut off.
    pub fn open(disk: &Disk) -> Self {
        let mut content = disk.content();
        let whole = frames(&content.log).last().map_or(0, |frame| frame.end);
        content.log.truncate(whole);
        content.fault = None;
        drop(content);
        Self { disk: disk.clone() }
    }
}

struct Frame<'a> {
    end: usize,
    first: u64,
    count: u64,
    body: &'a [u8],
    ended: Vec<(u64, &'a [u8])>,
}

type Wire<'a> = (u64, u64, &'a [u8], Vec<(u64, &'a [u8])>);

/// Tells a whole frame from a torn or damaged one; nobody forges frames here.
fn checksum(bytes: &[u8]) -> [u8; 8] {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(bytes.len() as u64, |sum, word| mix(sum ^ word)).to_le_bytes()
}

fn frames(log: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = log.get(at..at + 12)?;
        let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
        let bytes = log.get(at + 12..at + 12 + length)?;
        if checksum(bytes) != head[4..12] {
            return None;
        }
        let (first, count, body, ended): Wire<'_> = postcard::from_bytes(bytes).ok()?;
        at += 12 + length;
        Some(Frame { end: at, first, count, body, ended })
    })
}

/// Gives the batches from command `from` on.
fn batches(log: &[u8], from: u64, visit: &mut Visit<'_>) -> Result<(), StoreError> {
    for frame in frames(log).filter(|frame| frame.first >= from) {
        visit(Recovered::Batch { first: frame.first, count: frame.count, body: frame.body.to_vec() })?;
    }
    Ok(())
}

impl Store for DiskStore {
    fn recover(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let content = self.disk.content();
        let mut from = 0;
        if let Some((mark, image, _)) = content.images.last() {
            from = mark.upto + 1;
            visit(Recovered::Image { upto: mark.upto, image: image.clone() })?;
        }
        batches(&content.log, from, visit)
    }

    fn history(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        // A copy: who visits may look into the archive.
        let content = self.disk.content();
        let (log, images) = (content.log.clone(), content.images.clone());
        drop(content);
        let first = frames(&log).next().map_or(0, |frame| frame.first);
        let mut from = 0;
        if first != 1
            && let Some((mark, image, _)) = images.into_iter().find(|(mark, ..)| mark.upto + 1 >= first)
        {
            from = mark.upto + 1;
            visit(Recovered::Image { upto: mark.upto, image })?;
        }
        batches(&log, from, visit)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut content = self.disk.content();
        content.appends += 1;
        let ended: Vec<(u64, &[u8])> = batch.ended.iter().map(|(job, body)| (job.0, &body[..])).collect();
        let wire: Wire<'_> = (batch.first, batch.count, &batch.body, ended);
        let bytes = postcard::to_stdvec(&wire).expect("a batch encodes");
        let mut frame = (bytes.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(&checksum(&bytes));
        frame.extend_from_slice(&bytes);
        let (doing, place) = (Doing::Writing, "the simulated disk".to_owned());
        match content.fault.take() {
            None => {
                content.log.extend_from_slice(&frame);
                Ok(())
            }
            Some(DiskFault::Full) => Err(StoreError::Full { place }),
            Some(DiskFault::Torn { kept }) => {
                let kept = kept.min(frame.len());
                content.log.extend_from_slice(&frame[..kept]);
                Err(StoreError::Failed { doing, place, what: "a torn write".to_owned() })
            }
            Some(DiskFault::Unanswered) => {
                content.log.extend_from_slice(&frame);
                Err(StoreError::Failed { doing, place, what: "no answer".to_owned() })
            }
        }
    }

    fn keep_image(&mut self, mark: Mark, image: &[u8], stays: bool) -> Result<(), StoreError> {
        let images = &mut self.disk.content().images;
        images.retain(|(older, _, stays)| *stays && older.upto != mark.upto);
        images.push((mark, image.to_vec(), stays));
        Ok(())
    }

    fn marks(&mut self) -> Result<Vec<Mark>, StoreError> {
        let content = self.disk.content();
        Ok(content.images.iter().filter(|(.., stays)| *stays).map(|(mark, ..)| *mark).collect())
    }

    fn forget(&mut self, mark: Mark, limit: usize) -> Result<Forgotten, StoreError> {
        let mut content = self.disk.content();
        let old: Vec<_> = frames(&content.log).filter(|frame| frame.first <= mark.upto).take(limit).collect();
        let cut = old.last().map_or(0, |frame| frame.end);
        let owned = |(job, body): &(u64, &[u8])| (*job, body.to_vec());
        let ended: Vec<_> = old.iter().flat_map(|frame| frame.ended.iter().map(owned)).collect();
        let batches = old.len() as u64;
        content.log.drain(..cut);
        content.ended.extend(ended);
        content.images.retain(|(older, ..)| older.upto >= mark.upto);
        // Those in frames that are left can only be forgotten with them.
        let mut jobs = 0;
        content.ended.sort_unstable_by_key(|(job, _)| *job);
        content.ended.retain(|(job, _)| {
            let is_old = *job < mark.ended_below.0 && jobs < limit as u64;
            jobs += u64::from(is_old);
            !is_old
        });
        let is_all = batches < limit as u64 && jobs < limit as u64;
        Ok(Forgotten { batches, jobs, is_all })
    }

    fn archive(&self) -> Box<dyn Archive> {
        Box::new(DiskArchive(self.disk.clone()))
    }

    fn secret(&self) -> [u8; 32] {
        [7; 32]
    }
}

struct DiskArchive(Disk);

impl Archive for DiskArchive {
    fn ended(&mut self, job: JobNumber) -> Result<Option<Vec<u8>>, StoreError> {
        let content = self.0.content();
        let mut ended = ended(&content);
        Ok(ended.find(|(number, _)| *number == job.0).map(|(_, body)| body.to_vec()))
    }

    fn latest(&mut self, before: Option<JobNumber>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let content = self.0.content();
        let mut ended: Vec<_> = ended(&content).collect();
        ended.sort_unstable_by_key(|(job, _)| std::cmp::Reverse(*job));
        let below = ended.into_iter().filter(|(job, _)| before.is_none_or(|before| *job < before.0));
        Ok(below.take(limit).map(|(_, body)| body.to_vec()).collect())
    }
}

fn ended(content: &Content) -> impl Iterator<Item = (u64, &[u8])> {
    let apart = content.ended.iter().map(|(job, body)| (*job, &body[..]));
    apart.chain(frames(&content.log).flat_map(|frame| frame.ended))
}
