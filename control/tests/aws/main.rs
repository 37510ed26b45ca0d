//! Amazon: the provider, prices and the ingress against a small Amazon of our own, always; and against moto where
//! `HEADROOM_MOTO_URL` names a server (`tests/aws/run` starts one).
#![cfg(feature = "aws")]

mod fake;
mod fake_sqs;
mod faults;
mod form;
mod ingress;
mod moto;
mod place;
mod prices;
mod setup;
mod suite;
mod warnings;
