//! Which recorded zone drives which spot pool. Pure: knows names, reads no file.

/// Where a spot pool stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpotPool {
    pub(crate) name: String,
    pub(crate) region: String,
    /// Empty where the pool states none; a full zone or its letter alone.
    pub(crate) zone: String,
}

/// How a file was chosen for a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It is the pool's own zone.
    SameZone,
    /// It is the next one that no pool had.
    NextFree,
    /// All files have a pool already.
    Shared,
}

/// The file of each pool, as its position in `zones`, and why. Pools whose zone is recorded get it; the others get the
/// files that are left, in order, and when none is left all of them in turn. Without files there is no choice.
pub(crate) fn assign(pools: &[SpotPool], zones: &[&str]) -> Vec<Option<(usize, Choice)>> {
    let own = |pool: &SpotPool| zones.iter().position(|zone| pool.stands_in(zone));
    let mut chosen: Vec<Option<(usize, Choice)>> =
        pools.iter().map(|pool| own(pool).map(|zone| (zone, Choice::SameZone))).collect();
    let mut free: Vec<usize> =
        (0..zones.len()).filter(|zone| !chosen.iter().flatten().any(|(taken, _)| taken == zone)).collect();
    free.reverse();
    let mut shared = (0..zones.len()).cycle();
    for choice in chosen.iter_mut().filter(|choice| choice.is_none()) {
        let next = free.pop().map(|zone| (zone, Choice::NextFree));
        *choice = next.or_else(|| shared.next().map(|zone| (zone, Choice::Shared)));
    }
    chosen
}

impl SpotPool {
    fn stands_in(&self, zone: &str) -> bool {
        if self.zone.is_empty() {
            self.region == zone
        } else {
            self.zone == zone || format!("{}{}", self.region, self.zone) == zone
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pools: &[(&str, &str)], zones: &[&str], expected: &[Option<(usize, Choice)>]) {
        let pool = |(region, zone): &(&str, &str)| SpotPool {
            name: "p".into(),
            region: (*region).into(),
            zone: (*zone).into(),
        };
        let pools: Vec<SpotPool> = pools.iter().map(pool).collect();
        assert_eq!(assign(&pools, zones), expected, "{pools:?} {zones:?}");
    }

    #[test]
    fn pools_get_their_zone_and_the_others_what_is_left() {
        let zones = ["us-east-1a", "us-east-1c", "us-west-2b"];
        let (same, next) = (Choice::SameZone, Choice::NextFree);
        check(&[("us-west-2", "us-west-2b")], &zones, &[Some((2, same))]);
        check(&[("us-west-2", "b")], &zones, &[Some((2, same))]);
        check(
            &[("eu-west-1", ""), ("us-east-1", "a"), ("eu-west-1", "c")],
            &zones,
            &[Some((1, next)), Some((0, same)), Some((2, next))],
        );
    }

    #[test]
    fn files_are_shared_when_there_are_too_few() {
        let (same, next, shared) = (Choice::SameZone, Choice::NextFree, Choice::Shared);
        check(
            &[("r", ""), ("r", ""), ("r", "")],
            &["z"],
            &[Some((0, next)), Some((0, shared)), Some((0, shared))],
        );
        check(&[("r", "z"), ("r", "z")], &["rz"], &[Some((0, same)), Some((0, same))]);
        check(&[("r", "")], &[], &[None]);
    }
}
