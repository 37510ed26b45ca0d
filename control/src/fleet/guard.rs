//! What may be spent. It refuses launches and asks the plane to hold; it lifts nothing.

use std::collections::BTreeMap;

use policy::model::PoolId;
use policy::units::Usd;

use crate::command::{Command, LaunchToken};
use crate::shell::{Busy, Handle};

/// Limits of spending; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpendLimits {
    /// Of all machines together, per hour: a launch that would pass it is refused, and whatever passes it all the same
    /// (a price that rose) holds all launches.
    pub per_hour_max: Option<Usd>,
    /// In the life of the journal: passing it holds all launches.
    pub total_max: Option<Usd>,
}

/// Watches what is spent.
pub(super) struct Guard {
    handle: Handle,
    limits: SpendLimits,
    /// Prices of launches that have no answer yet, billionths of a dollar per hour.
    asked: BTreeMap<LaunchToken, i64>,
}

impl Guard {
    pub(super) fn new(handle: Handle, limits: SpendLimits) -> Self {
        Self { handle, limits, asked: BTreeMap::new() }
    }

    /// Whether a launch stays within the hourly limit, with all that are under way.
    pub(super) async fn admits(&mut self, token: LaunchToken, pool: PoolId) -> Result<bool, Busy> {
        let Some(limit) = self.limits.per_hour_max else { return Ok(true) };
        let look = self.handle.look(move |plane| (plane.burn().as_nanos(), plane.price(pool).as_nanos()));
        let (burn, price) = match look.await {
            Ok(seen) => seen,
            Err(Busy::Full) => return Ok(false),
            Err(Busy::Stopped) => return Err(Busy::Stopped),
        };
        let asked: i64 = self.asked.values().sum();
        let after = burn.saturating_add(asked).saturating_add(price);
        if after > limit.as_nanos() {
            let (after, limit) = (Usd::from_nanos(after), limit);
            tracing::warn!(pool = pool.0, "no launch: {after} an hour would pass the limit of {limit}");
            return Ok(false);
        }
        self.asked.insert(token, price);
        Ok(true)
    }

    /// A launch has its answer.
    pub(super) fn settled(&mut self, token: LaunchToken) {
        self.asked.remove(&token);
    }

    /// Holds all launches once a limit is passed.
    pub(super) async fn look(&self) -> Result<(), Busy> {
        let figures = self.handle.figures();
        if figures.hold.is_some() {
            return Ok(());
        }
        let (spent, burn) = (figures.spent_nanousd, figures.burn_nanousd_per_hour);
        match self.limits.passed(spent, burn) {
            Some(why) => {
                tracing::error!("{why}");
                self.handle.tell(Command::Hold { is_held: true, why }).await
            }
            None => Ok(()),
        }
    }
}

impl SpendLimits {
    /// Which limit is passed, in words.
    fn passed(&self, spent_nanousd: i64, burn_nanousd_per_hour: i64) -> Option<String> {
        let over = |limit: Option<Usd>, nanos: i64| limit.filter(|limit| nanos > limit.as_nanos());
        if let Some(limit) = over(self.total_max, spent_nanousd) {
            let spent = Usd::from_nanos(spent_nanousd);
            return Some(format!(
                "spend guard: {spent} spent, the limit is {limit}; raise it, then lift the hold"
            ));
        }
        let limit = over(self.per_hour_max, burn_nanousd_per_hour)?;
        let burn = Usd::from_nanos(burn_nanousd_per_hour);
        Some(format!("spend guard: {burn} an hour, the limit is {limit}; raise it, then lift the hold"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_limit_is_named() {
        let limits = SpendLimits {
            per_hour_max: Some(Usd::from_nanos(5_000_000_000)),
            total_max: Some(Usd::from_nanos(100_000_000_000)),
        };
        let check = |spent: i64, burn: i64, expected: Option<&str>| {
            let why = limits.passed(spent * 1_000_000_000, burn * 1_000_000_000);
            assert_eq!(why.is_some(), expected.is_some(), "{why:?}");
            assert!(expected.is_none_or(|part| why.is_some_and(|why| why.contains(part))));
        };
        check(100, 5, None);
        check(101, 5, Some("spent"));
        check(100, 6, Some("an hour"));
        assert_eq!(SpendLimits::default().passed(i64::MAX, i64::MAX), None);
    }
}
