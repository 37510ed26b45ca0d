//! The job API on real connections: what it promises, who may ask, and what happens to those who ask wrongly. Times are
//! generous; nothing here is a claim of speed.

mod bodies;
mod client;
mod description;
mod events;
mod house;
mod jobs;
mod keys;
mod limits;
mod operate;
mod pressure;
mod shutdown;
mod tls;
mod worker;
