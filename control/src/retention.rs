//! How long a plane keeps what is over: ended jobs, and the journal that tells of them.
//!
//! From time to time the image of a moment stays: a mark. When a mark is old enough, everything before it goes, and the
//! journal can be read from the mark on. So what is over is kept for the wished time, and up to an eighth longer.

use policy::units::{Duration, Instant};

use crate::store::{Forgotten, Mark};

/// Marks in the time that is kept.
const MARKS: u64 = 8;

/// Batches, and as many ended jobs, that go at once: some milliseconds.
pub const AT_ONCE: usize = 2000;

/// Between two such goes.
pub const PAUSE: Duration = Duration::from_millis(50);

/// After a go, or an image, for which there was no room.
const PAUSE_WITHOUT_ROOM: Duration = Duration::from_secs(60);

/// What is kept, and what is about to go.
#[derive(Clone, Debug)]
pub struct Retention {
    keep: Duration,
    /// By time. Before the first there may be something to forget.
    marks: Vec<Mark>,
    /// Nothing lies before the first.
    is_clean: bool,
    mark_from: Instant,
    forget_from: Instant,
    total: Forgotten,
}

/// What became of an attempt to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgetting {
    /// Nothing is old enough.
    Idle,
    /// There is more, after a pause.
    UnderWay,
    /// So much went; nothing is left before the mark.
    Over { mark: Mark, total: Forgotten },
}

impl Retention {
    /// Keeps what is younger than `keep`; `marks` are the store's.
    pub fn new(keep: Duration, marks: Vec<Mark>) -> Self {
        let (mark_from, forget_from) = (Instant::START, Instant::START);
        Self { keep, marks, is_clean: false, mark_from, forget_from, total: Forgotten::default() }
    }

    /// Whether the image of this moment is to stay.
    pub fn is_mark_due(&self, now: Instant) -> bool {
        let every = Duration::from_nanos(self.keep.as_nanos() / MARKS);
        now >= self.mark_from && self.marks.last().is_none_or(|last| now.since(last.at) >= every)
    }

    /// An image is about to be made into a mark: should it fail, the next is due later.
    pub fn begin_mark(&mut self, now: Instant) {
        self.mark_from = now + PAUSE_WITHOUT_ROOM;
    }

    /// A mark was made.
    pub fn marked(&mut self, mark: Mark) {
        self.marks.push(mark);
        self.mark_from = mark.at;
    }

    /// The mark before which everything is to go, if there is anything; `clock` says when it may.
    pub fn due(&self, now: Instant, clock: Instant) -> Option<Mark> {
        let at = self.marks.iter().rposition(|mark| now.since(mark.at) >= self.keep)?;
        (clock >= self.forget_from && (at > 0 || !self.is_clean)).then(|| self.marks[at])
    }

    /// The store is about to be asked to forget: should it fail, it is asked again later.
    pub fn begin_forgetting(&mut self, clock: Instant) {
        self.forget_from = clock + PAUSE_WITHOUT_ROOM;
    }

    /// The store forgot a part of what lies before `mark`.
    pub fn forgot(&mut self, mark: Mark, part: Forgotten, clock: Instant) -> Forgetting {
        self.marks.retain(|other| other.upto >= mark.upto);
        self.total.batches += part.batches;
        self.total.jobs += part.jobs;
        self.is_clean = part.batches < AT_ONCE as u64 && part.jobs < AT_ONCE as u64;
        self.forget_from = if self.is_clean { clock } else { clock + PAUSE };
        if !self.is_clean {
            return Forgetting::UnderWay;
        }
        Forgetting::Over { mark, total: std::mem::take(&mut self.total) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::JobNumber;

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    fn mark(upto: u64, seconds: u64) -> Mark {
        Mark { upto, at: at(seconds), ended_below: JobNumber(upto) }
    }

    #[test]
    fn eight_marks_stand_in_the_time_that_is_kept() {
        let mut retention = Retention::new(Duration::from_secs(800), Vec::new());
        let mut made = Vec::new();
        for second in 0..=1000 {
            if retention.is_mark_due(at(second)) {
                retention.begin_mark(at(second));
                retention.marked(mark(second + 1, second));
                made.push(second);
            }
        }
        assert_eq!(made, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
        assert_eq!(retention.due(at(799), at(799)), None);
        assert_eq!(retention.due(at(1000), at(1000)), Some(mark(201, 200)), "the latest that is old enough");
    }

    #[test]
    fn what_goes_goes_in_parts_and_once() {
        let marks = vec![mark(10, 0), mark(20, 100), mark(30, 200)];
        let mut retention = Retention::new(Duration::from_secs(100), marks);
        let old = retention.due(at(200), at(200)).unwrap();
        assert_eq!(old, mark(20, 100));
        let part = Forgotten { batches: AT_ONCE as u64, jobs: 3 };
        assert_eq!(retention.forgot(old, part, at(200)), Forgetting::UnderWay);
        assert_eq!(retention.due(at(200), at(200)), None, "after a pause");
        assert_eq!(retention.due(at(200), at(200) + PAUSE), Some(old));
        let total = Forgotten { batches: AT_ONCE as u64 + 1, jobs: 3 };
        let rest = Forgotten { batches: 1, jobs: 0 };
        assert_eq!(retention.forgot(old, rest, at(201)), Forgetting::Over { mark: old, total });
        assert_eq!(retention.due(at(250), at(250)), None);
        assert_eq!(retention.due(at(300), at(300)), Some(mark(30, 200)));
    }

    #[test]
    fn without_room_both_are_tried_again_later() {
        let mut retention = Retention::new(Duration::from_secs(80), vec![mark(10, 0)]);
        retention.begin_mark(at(100));
        retention.begin_forgetting(at(100));
        assert!(!retention.is_mark_due(at(159)) && retention.due(at(159), at(159)).is_none());
        assert!(retention.is_mark_due(at(160)) && retention.due(at(160), at(160)).is_some());
    }
}
