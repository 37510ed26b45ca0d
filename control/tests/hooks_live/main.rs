//! Webhooks and objects over real HTTP on loopback, on a whole service.

mod house;
mod objects;
mod retention;
#[path = "../scene/mod.rs"]
mod scene;
mod verifier;
mod webhooks;
