//! How long a plane keeps what is over: ended jobs, and the journal that tells of them.
//!
//! From time to time the image of a moment stays: a mark. When a mark is old enough, everything before it goes, and the
//! journal can be read from the mark on. So what is over is kept for the wished time, and up to a seventh longer.

use policy::units::{Duration, Instant};

use crate::store::{Forgotten, Mark};

/// Marks in the time that is kept.
const MARKS: u64 = 8;

/// A mark is old enough when it is older than what is kept by this part of it: idempotency keys of a day, which go by the
/// minute, have gone before their jobs.
const SLACK: u64 = 64;

/// Batches, and as many ended jobs, that go at once at most.
pub const AT_ONCE: usize = 2000;

/// Between two such goes.
pub const PAUSE: Duration = Duration::from_millis(50);

/// After a start: a plane that took over has better to do.
const PAUSE_AT_START: Duration = Duration::from_secs(5);

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
    /// Keeps what is younger than `keep`, from `now` on; `marks` are the store's.
    pub fn new(keep: Duration, marks: Vec<Mark>, now: Instant) -> Self {
        let (mark_from, forget_from) = (Instant::START, now + PAUSE_AT_START);
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

    /// The mark before which everything is to go, if there is anything.
    pub fn due(&self, now: Instant) -> Option<Mark> {
        let age = Duration::from_nanos(self.keep.as_nanos() + self.keep.as_nanos() / SLACK);
        let at = self.marks.iter().rposition(|mark| now.since(mark.at) >= age)?;
        (at > 0 || !self.is_clean).then(|| self.marks[at])
    }

    /// Whether the next part may go.
    pub fn may_forget(&self, clock: Instant) -> bool {
        clock >= self.forget_from
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
        self.is_clean = part.is_all;
        self.forget_from = if self.is_clean { clock } else { clock + PAUSE };
        if !self.is_clean {
            return Forgetting::UnderWay;
        }
        Forgetting::Over { mark, total: Forgotten { is_all: true, ..std::mem::take(&mut self.total) } }
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
        let mut retention = Retention::new(Duration::from_secs(640), Vec::new(), at(0));
        let mut made = Vec::new();
        for second in 0..=800 {
            if retention.is_mark_due(at(second)) {
                retention.begin_mark(at(second));
                retention.marked(mark(second + 1, second));
                made.push(second);
            }
        }
        assert_eq!(made, [0, 80, 160, 240, 320, 400, 480, 560, 640, 720, 800]);
        assert_eq!(retention.due(at(649)), None);
        assert_eq!(retention.due(at(650)), Some(mark(1, 0)), "a sixty-fourth later");
        assert_eq!(retention.due(at(815)), Some(mark(161, 160)), "the latest that is old enough");
    }

    #[test]
    fn what_goes_goes_in_parts_and_once() {
        let marks = vec![mark(10, 0), mark(20, 100), mark(30, 200)];
        let mut retention = Retention::new(Duration::from_secs(64), marks, at(160));
        assert!(!retention.may_forget(at(164)) && retention.may_forget(at(165)), "not at once after a start");
        let old = retention.due(at(165)).unwrap();
        assert_eq!(old, mark(20, 100));
        let part = Forgotten { batches: 64, jobs: 3, is_all: false };
        assert_eq!(retention.forgot(old, part, at(165)), Forgetting::UnderWay);
        assert!(!retention.may_forget(at(165)) && retention.may_forget(at(165) + PAUSE), "after a pause");
        assert_eq!(retention.due(at(165)), Some(old));
        let total = Forgotten { batches: 65, jobs: 3, is_all: true };
        let rest = Forgotten { batches: 1, jobs: 0, is_all: true };
        assert_eq!(retention.forgot(old, rest, at(166)), Forgetting::Over { mark: old, total });
        assert_eq!(retention.due(at(250)), None);
        assert_eq!(retention.due(at(265)), Some(mark(30, 200)));
    }

    #[test]
    fn without_room_both_are_tried_again_later() {
        let mut retention = Retention::new(Duration::from_secs(64), vec![mark(10, 0)], at(0));
        retention.begin_mark(at(100));
        retention.begin_forgetting(at(100));
        assert!(!retention.is_mark_due(at(159)) && !retention.may_forget(at(159)));
        assert!(retention.is_mark_due(at(160)) && retention.may_forget(at(160)));
    }
}
