//! Launches by the ten thousand in a simulated cloud that loses replies, throttles, answers late and incompletely, shows stale lists
//! and takes instances away, while the control plane is killed again and again. At the end every instance belongs to one
//! launch and every launch that the plane counts on has its instance.
//!
//! `HEADROOM_LAUNCHES=100000` sets the count, `HEADROOM_SEED` the seed, `HEADROOM_TRACE` names an instance or launch whose
//! story is printed. The plane and its fleet driver are modelled as far as they matter: what is durable, what is repeated after a restart,
//! what a comparison may end.

mod cloud;
mod world;

use std::collections::BTreeMap;

use control::command::LaunchToken;
use world::World;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn check(seed: u64, wanted: u64, is_idempotent: bool) {
    let mut world = World::new(seed, wanted, is_idempotent);
    world.run();
    let needed: BTreeMap<String, LaunchToken> = world
        .plane
        .iter()
        .filter_map(|(token, durable)| durable.handle.clone().map(|handle| (handle, *token)))
        .collect();
    let open: Vec<_> =
        world.plane.iter().filter(|(_, durable)| durable.handle.is_none() || durable.is_ending).collect();
    assert!(open.is_empty(), "orders without an answer: {open:?}");
    let alive = world.cloud.alive();
    let orphans: Vec<&String> = alive.iter().filter(|handle| !needed.contains_key(*handle)).collect();
    assert!(orphans.is_empty(), "instances that no launch needs: {orphans:?}");
    assert_eq!(needed.len(), world.plane.len(), "an instance has two launches");
    let dead: Vec<_> = needed.iter().filter(|(handle, _)| !alive.contains(*handle)).collect();
    assert!(dead.is_empty(), "the plane counts on what is gone: {dead:?}");
    let foreign = world.cloud.machines.values().filter(|machine| !machine.is_own && machine.over.is_none());
    assert_eq!(foreign.count(), 20);
    let told = world.told.len();
    println!(
        "seed {seed}: {} launches ordered, {} instances made, {told} launches had one, {} refused, {} kills, {} orphans ended by the last process, {:.0} s; at the end {} instances for {} launches; {:?}",
        world.ordered,
        world.cloud.made,
        world.refused,
        world.kills,
        world.roster.health().orphans,
        world.now.as_secs_f64(),
        alive.len(),
        world.plane.len(),
        world.cloud.faults,
    );
    for fault in ["throttled", "no capacity", "partial fleet", "request lost", "reply lost", "reply garbled"]
    {
        let count = world.cloud.faults.get(fault).copied().unwrap_or(0);
        assert!(count > wanted / 2000, "{fault} was tried {count} times only");
    }
    assert!(world.kills > wanted / 1000, "{} kills only", world.kills);
}

#[test]
fn no_launch_is_doubled_or_lost_whatever_fails() {
    check(setting("HEADROOM_SEED", 1), setting("HEADROOM_LAUNCHES", 20_000), true);
}

#[test]
fn no_instance_is_left_over_where_client_tokens_mean_nothing() {
    check(setting("HEADROOM_SEED", 2), setting("HEADROOM_LAUNCHES", 20_000) / 4, false);
}
