//! What the dispatcher does, told as short stories: one behaviour each, on the smallest system that shows it.

mod desk;
mod fleet;
mod jobs;
#[path = "../systems/mod.rs"]
mod systems;
