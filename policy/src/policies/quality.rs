//! Quality: which level of the ladder a job gets when its turn comes.

use crate::model::QualityId;

/// Which level of the quality ladder a job gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Quality {
    /// Always the same level.
    Fixed(QualityId),
    /// One level down for each threshold that the load (jobs waiting and running per ready slot) has passed; back up
    /// once the load has fallen below `recover` times the threshold.
    Ladder { thresholds: Vec<f64>, recover: f64 },
}

/// Where one group stands on the ladder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct QualityState {
    level: u16,
}

impl Quality {
    /// Brings a state that came about under other thresholds onto this ladder.
    pub fn settle(&self, state: &mut QualityState) {
        let levels = if let Self::Ladder { thresholds, .. } = self { thresholds.len() } else { 0 };
        state.level = state.level.min(levels as u16);
    }

    /// The level for a job that starts now in a group with this load.
    #[inline]
    pub fn level(&self, state: &mut QualityState, load: f64) -> QualityId {
        match self {
            Self::Fixed(level) => *level,
            Self::Ladder { thresholds, recover } => {
                while thresholds.get(state.level as usize).is_some_and(|up| load > *up) {
                    state.level += 1;
                }
                while state.level > 0 && load < thresholds[state.level as usize - 1] * recover {
                    state.level -= 1;
                }
                QualityId(state.level)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ladder_steps_down_under_load_and_recovers_with_hysteresis() {
        let ladder = Quality::Ladder { thresholds: vec![1.5, 3.0], recover: 0.8 };
        let mut state = QualityState::default();
        let levels: Vec<u16> =
            [1.0, 1.6, 1.3, 1.1, 5.0, 2.5, 2.3].map(|load| ladder.level(&mut state, load).0).to_vec();
        assert_eq!(levels, [0, 1, 1, 0, 2, 2, 1]);
    }
}
