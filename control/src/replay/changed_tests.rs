//! Planes that are started with another scenario than the one before.

use super::tests::{SCENARIO, Script};
use super::*;
use crate::effect::Effect;
use crate::engine::{Engine, OpenError, fold};
use crate::plane::{Patience, PlaneImage, ScenarioText, Served};
use crate::store::{Disk, DiskStore, SqliteStore};

/// Rules with their text: `count` machines of the pool, held.
fn served(count: u32) -> Rules {
    of(&text(count))
}

fn text(count: u32) -> String {
    SCENARIO.replace("count = 2", &format!("count = {count}\ncount_min = {count}\ncount_max = {count}"))
}

fn of(text: &str) -> Rules {
    let loaded = scenarios::load_str("t", text, std::path::Path::new("/"), &[]).unwrap();
    let mut rules = Rules::new(&loaded.scenario, 0, [0; 32], Patience::default()).unwrap();
    rules.joined.insert(rules.pool("own").unwrap());
    rules.text = Some(ScenarioText { toml: loaded.resolved_toml, compress: 1.0 });
    rules
}

/// A plane's state without timers that are void already.
fn state(plane: &Plane) -> Vec<u8> {
    let image = PlaneImage::decode(&plane.image().encode()).unwrap();
    Plane::restore(plane.rules().clone(), image).unwrap().image().encode()
}

/// Ten jobs on the two machines of the first scenario; two are still inside at the end.
fn first_day<S: Store>(store: S, rules: Rules) -> Engine<S> {
    let mut script = Script::new(store, rules, 1_000);
    script.join(1);
    script.join(2);
    for job in 0..10_u64 {
        script.until(100 + job * 250, None);
        script.submit(None);
    }
    script.until(6_000, None);
    assert!(script.engine().plane().jobs_in_system() > 0);
    script.into_engine()
}

/// Where the planes of a journal were told what they are started with: command numbers.
fn told(store: &mut dyn Store) -> Vec<u64> {
    let mut told = Vec::new();
    let mut look = |number, _, command| {
        if matches!(command, Command::Served(_)) {
            told.push(number);
        }
        Ok(())
    };
    crate::journal::history(store, &mut look).unwrap();
    told
}

/// Jobs under one scenario, a stop, a start under another.
fn check<S: Store>(open: impl Fn() -> S) {
    let before = state(first_day(open(), served(2)).plane());
    let (folded, ..) = fold(&mut open(), served(3)).unwrap();
    assert!(state(&folded) == before, "the history is folded under the rules that it was made under");
    assert_eq!(folded.rules().system.pools[0].count_max, 2);

    let mut later = Script::new(open(), served(3), 1_010);
    assert_eq!(later.engine().plane().rules().system.pools[0].count_max, 3, "from here on the new ones");
    assert_eq!(later.engine().plane().jobs_in_system(), folded.jobs_in_system());
    for session in [11, 12, 13] {
        later.join(session);
    }
    later.until(11_000, None);
    later.submit(None);
    later.until(60_000, None);
    assert_eq!(later.engine().plane().figures(later.now()).pools[0].1, 3, "a third machine is there");
    assert_eq!(later.engine().plane().figures(later.now()).totals.done, 11);
    let (end, next) = (state(later.engine().plane()), later.engine().next());
    drop(later);

    let verdict = verify(&mut open(), &[]).unwrap();
    assert_eq!((verdict.difference, verdict.epochs), (None, 2));
    assert_eq!(verdict.commands, next - 1);
    let (folded, ..) = fold(&mut open(), served(2)).unwrap();
    assert!(state(&folded) == end, "and the whole history under both");

    // Once more under the same: nothing new is told. Under what cannot follow: refused, and nothing is written.
    drop(Script::new(open(), served(3), 1_100));
    assert_eq!(told(&mut open()).len(), 2);
    let other = of(&format!("{}[fleet.pool.second]\nclass = \"own\"\nprice = \"1 USD/h\"\n", text(3)));
    match Engine::open(open(), other, 1_200_000) {
        Err(error @ OpenError::OtherScenario { .. }) => {
            let text = error.to_string();
            assert!(
                text.contains("cannot go on under scenario `t`") && text.contains("pool `second`"),
                "{text}"
            );
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a plane with other pools goes on"),
    }
    assert_eq!(told(&mut open()).len(), 2);
}

#[test]
fn a_changed_scenario_acts_from_its_start_on_and_not_on_what_was_before() {
    let disk = Disk::default();
    check(|| DiskStore::open(&disk));
    let folder = tempfile::tempdir().unwrap();
    check(|| SqliteStore::open(folder.path()).unwrap());
}

#[test]
fn what_was_reloaded_at_work_outlives_a_restart_with_and_without_an_image() {
    for has_image in [false, true] {
        let disk = Disk::default();
        let open = || DiskStore::open(&disk);
        let mut script = Script::new(open(), served(2), 1_000);
        script.join(1);
        let text = served(4).text.unwrap().toml;
        script.tell(Command::Reload { scenario: text });
        let mut engine = script.into_engine();
        assert!(engine.plane().is_reloaded());
        assert_eq!(engine.plane().rules().system.pools[0].count_max, 4);
        if has_image {
            engine.keep_image().unwrap();
        }
        let before = state(engine.plane());
        drop(engine);

        let (folded, _, recovery) = fold(&mut open(), served(2)).unwrap();
        assert_eq!(recovery.from_image, has_image);
        assert!(state(&folded) == before);
        let again = Engine::open(open(), served(2), 1_100_000).unwrap();
        assert_eq!(again.plane().rules().system.pools[0].count_max, 4, "the start was the same, so it stays");
        let changed = Engine::open(open(), served(3), 1_200_000).unwrap();
        assert_eq!(changed.plane().rules().system.pools[0].count_max, 3, "the start was another");
        assert!(!changed.plane().is_reloaded());
    }
}

#[test]
fn the_seed_of_a_scenario_that_comes_later_does_not_change_chance() {
    let disk = Disk::default();
    let open = || DiskStore::open(&disk);
    drop(first_day(open(), served(2)));
    let text = format!("{}\n[run]\nseed = 77\n", text(2));
    let mut engine = Engine::open(open(), of(&text), 1_100_000).unwrap();
    let other = of(&text).seed;
    assert_eq!((other, served(2).seed, engine.plane().rules().seed), (77, 1, 1));
    engine.commit(&mut Vec::<Effect>::new()).unwrap();
    engine.keep_image().unwrap();
    let (folded, ..) = fold(&mut open(), of(&text)).unwrap();
    assert_eq!(folded.rules().seed, 1);
}

#[test]
fn a_journal_that_does_not_say_its_rules_is_folded_under_those_noted_beside_it() {
    let disk = Disk::default();
    let open = || DiskStore::open(&disk);
    let before = first_day(open(), Rules { text: None, ..served(2) });
    assert_eq!(told(&mut open()), [] as [u64; 0]);
    let (jobs, totals) = (before.plane().jobs_in_system(), before.plane().dispatcher().totals());
    drop(before);
    let noted = Served::of(&served(2)).unwrap();
    let mut engine = Engine::open_noted(open(), served(3), Some(&noted), 1_100_000).unwrap();
    assert_eq!(engine.plane().jobs_in_system(), jobs);
    assert_eq!(engine.plane().dispatcher().totals(), totals);
    assert_eq!(engine.plane().rules().system.pools[0].count_max, 3);
    engine.commit(&mut Vec::new()).unwrap();
    // From then on the rules of what came before are still those beside it.
    let mut rules = served(2);
    rules.secret = open().secret();
    let verdict = verify(&mut open(), &[Origin { epoch: 1, rules }]).unwrap();
    assert_eq!((verdict.difference, verdict.epochs), (None, 2));
}
