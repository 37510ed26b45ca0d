//! Webhooks and objects over real HTTP on loopback, on a whole service.

mod house;
mod objects;
mod verifier;
mod webhooks;
