//! The ledger alone: who is evicted, and random moves against places and users that are kept by hand.

use proptest::prelude::*;

use super::Bytes;
use super::ledger::{Begin, Ledger, Plan, State, Victim};
use super::order::Eviction;

fn ledger(budget: Bytes, by: Eviction, models: &[Bytes]) -> Ledger {
    let mut ledger = Ledger::new(budget, by);
    for (index, &bytes) in models.iter().enumerate() {
        assert!(ledger.add(&index.to_string(), bytes));
    }
    ledger
}

/// Loads a model that fits, in `cost_s`, and releases it; gives whom it displaced.
fn use_once(ledger: &mut Ledger, model: &str, cost_s: f64) -> Vec<String> {
    let displaced = match ledger.begin(model) {
        Begin::Ready => Vec::new(),
        Begin::Load(plan) => {
            plan.victims.iter().for_each(|victim| ledger.left(&victim.model, victim.keep, model));
            ledger.loaded(model, cost_s);
            plan.victims.into_iter().map(|victim| victim.model).collect()
        }
        other => panic!("{model}: {other:?}"),
    };
    ledger.release(model);
    displaced
}

#[test]
fn recency_evicts_the_idlest_and_credit_the_cheapest_to_load_again() {
    // Sizes 1, 4 and 4 fill the device; loads of 0 are slow, of 1 slow, of 2 quick.
    let models = [1, 4, 4, 4].map(|device| Bytes { device, host: 1 });
    let check = |by: Eviction, expected: &[&str]| {
        let mut ledger = ledger(Bytes { device: 9, host: 0 }, by, &models);
        for (model, cost_s) in [("0", 8.0), ("1", 8.0), ("2", 2.0)] {
            assert_eq!(use_once(&mut ledger, model, cost_s), [""; 0]);
        }
        assert_eq!(use_once(&mut ledger, "3", 8.0), expected, "{by:?}");
    };
    check(Eviction::LeastRecentlyUsed, &["0", "1"]);
    check(Eviction::GreedyDualSize, &["2"]);
}

#[test]
fn credit_of_unused_models_ages() {
    // Model 0 has credit 3; the others have 1 more than the last evicted each, and so outlive it at last.
    let models = [Bytes { device: 1, host: 1 }; 6];
    let mut ledger = ledger(Bytes { device: 2, host: 0 }, Eviction::GreedyDualSize, &models);
    let displaced: Vec<_> = [("0", 3.0), ("1", 1.0), ("2", 1.0), ("3", 1.0), ("4", 1.0), ("5", 1.0)]
        .map(|(model, cost_s)| use_once(&mut ledger, model, cost_s))
        .concat();
    assert_eq!(displaced, ["1", "2", "0", "3"]);
}

#[test]
fn pinned_models_stay() {
    let models = [Bytes { device: 4, host: 1 }; 3];
    let mut ledger = ledger(Bytes { device: 8, host: 0 }, Eviction::LeastRecentlyUsed, &models);
    assert!(ledger.pin("0", true) && !ledger.pin("absent", true));
    for model in ["0", "1"] {
        use_once(&mut ledger, model, 1.0);
    }
    assert_eq!(use_once(&mut ledger, "2", 1.0), ["1"]);
    assert!(ledger.pin("2", true));
    assert_eq!(ledger.begin("1"), Begin::Refused { wanted: 4, free: 0 });
    assert!(ledger.pin("0", false));
    assert_eq!(use_once(&mut ledger, "1", 1.0), ["0"]);
}

#[test]
fn what_an_eviction_frees_belongs_to_the_load_that_it_is_for() {
    let models = [6, 5, 2].map(|device| Bytes { device, host: 1 });
    let mut ledger = ledger(Bytes { device: 6, host: 1 }, Eviction::LeastRecentlyUsed, &models);
    use_once(&mut ledger, "0", 1.0);
    let victims = vec![Victim { model: "0".to_owned(), keep: true }];
    assert_eq!(ledger.begin("1"), Begin::Load(Plan { victims, dropped: Vec::new() }));
    // Nobody else gets anything, neither before nor after.
    assert_eq!(
        [ledger.begin("0"), ledger.begin("2"), ledger.begin("1")],
        [Begin::Wait, Begin::Wait, Begin::Join]
    );
    ledger.left("0", true, "1");
    assert_eq!(ledger.begin("2"), Begin::Refused { wanted: 2, free: 1 });
    assert_eq!(ledger.used(), Bytes { device: 5, host: 1 });
    ledger.loaded("1", 1.0);
    assert_eq!(ledger.states().nth(1), Some(("1", State::Device { users: 2 })));
}

/// A load that is under way in a random run.
struct Flight {
    model: String,
    victims: Vec<Victim>,
}

proptest! {
    #[test]
    fn budgets_hold_and_used_models_stay_whatever_happens(
        sizes in prop::collection::vec((1u64..6, 1u64..6), 1..7),
        budget in (1u64..14, 0u64..10),
        credit in any::<bool>(),
        moves in prop::collection::vec((0u8..6, any::<u8>(), any::<bool>()), 1..200),
    ) {
        let by = if credit { Eviction::GreedyDualSize } else { Eviction::LeastRecentlyUsed };
        let models: Vec<Bytes> = sizes.iter().map(|&(device, host)| Bytes { device, host }).collect();
        let budget = Bytes { device: budget.0, host: budget.1 };
        let mut ledger = ledger(budget, by, &models);
        let mut flights: Vec<Flight> = Vec::new();
        // Who uses what, and where every byte is: kept by hand beside the ledger.
        let mut users = vec![0u32; models.len()];
        let mut joined = vec![0u32; models.len()];
        let (mut device, mut host) = (vec![false; models.len()], vec![false; models.len()]);
        let at = |model: &str| model.parse::<usize>().expect("models are numbered");
        for (kind, pick, chance) in moves {
            let index = usize::from(pick) % models.len();
            let model = index.to_string();
            match kind {
                0 | 1 => match ledger.begin(&model) {
                    Begin::Ready => {
                        prop_assert!(device[index]);
                        users[index] += 1;
                    }
                    Begin::Join => {
                        prop_assert!(flights.iter().any(|flight| flight.model == model));
                        joined[index] += 1;
                    }
                    Begin::Wait => {
                        prop_assert!(flights.iter().any(|flight| !flight.victims.is_empty()));
                    }
                    Begin::Refused { wanted, free } => prop_assert!(wanted > free),
                    Begin::Load(plan) => {
                        prop_assert!(!device[index]);
                        for name in &plan.dropped {
                            prop_assert!(std::mem::take(&mut host[at(name)]));
                        }
                        for victim in &plan.victims {
                            prop_assert_eq!(users[at(&victim.model)], 0);
                            prop_assert!(device[at(&victim.model)]);
                        }
                        flights.push(Flight { model, victims: plan.victims });
                    }
                    Begin::Unknown => prop_assert!(false, "all models are known"),
                },
                2 if users[index] > 0 => {
                    ledger.release(&model);
                    users[index] -= 1;
                }
                3..=5 if !flights.is_empty() => {
                    let place = usize::from(pick) % flights.len();
                    let loading = flights[place].model.clone();
                    let own = at(&loading);
                    let fails = kind == 5 && chance;
                    if let Some(victim) = flights[place].victims.pop().filter(|_| !fails) {
                        // A copy that was promised may not come.
                        ledger.left(&victim.model, chance, &loading);
                        device[at(&victim.model)] = false;
                        host[at(&victim.model)] = chance && victim.keep;
                    } else if fails {
                        let flight = flights.remove(place);
                        // The one just popped, and the others.
                        for (name, state) in ledger.states().map(|(n, s)| (n.to_owned(), s)).collect::<Vec<_>>() {
                            let others = flights.iter().flat_map(|flight| &flight.victims);
                            let mine = matches!(state, State::Leaving { .. })
                                && others.into_iter().all(|victim| victim.model != name);
                            if mine {
                                ledger.stays(&name);
                            }
                        }
                        ledger.failed(&flight.model);
                        joined[own] = 0;
                    } else {
                        flights.remove(place);
                        ledger.loaded(&loading, f64::from(pick));
                        users[own] = 1 + std::mem::take(&mut joined[own]);
                        (device[own], host[own]) = (true, false);
                    }
                }
                _ => {}
            }
            let used = ledger.used();
            prop_assert!(used.device <= budget.device && used.host <= budget.host, "{:?}", used);
            for (name, state) in ledger.states() {
                let index = at(name);
                let on_device = matches!(state, State::Device { .. } | State::Leaving { .. });
                prop_assert_eq!(on_device, device[index], "{}: {:?}", name, state);
                if let State::Device { users: counted } = state {
                    prop_assert_eq!(counted, users[index]);
                } else {
                    prop_assert_eq!(users[index], 0);
                }
                let on_host = matches!(state, State::Host | State::Loading { from_host: true, .. });
                prop_assert_eq!(on_host, host[index], "{}: {:?}", name, state);
            }
            if flights.is_empty() {
                let held = |of: &[bool], size: fn(&Bytes) -> u64| -> u64 {
                    models.iter().zip(of).filter(|(_, is)| **is).map(|(bytes, _)| size(bytes)).sum()
                };
                let sum = Bytes { device: held(&device, |b| b.device), host: held(&host, |b| b.host) };
                prop_assert_eq!(used, sum);
            }
        }
    }
}
