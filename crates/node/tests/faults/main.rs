//! Faults, with the real daemon: nodes killed, paused and stopped under load, links cut and made long.
//!
//! Six nodes in two datacenters, each in a network namespace of its own ([`network`]), in namespaces that
//! only this scenario sees ([`isolation`]): as root, or as a user who may have namespaces; where neither
//! works, a scenario says on stderr that it was skipped. A [`load::Load`] keeps account of every request
//! and of all that was acknowledged; [`findings::Findings`] holds that against what is promised.
//!
//! `cargo test -p anello-node --test faults`: one fleet at a time, some five minutes in all.

// A fault test that can't set its world up fails, and says where.
#![allow(unreachable_pub)]

mod account;
mod cluster;
mod distance;
mod door;
mod findings;
#[path = "../fleet/mod.rs"]
mod fleet;
mod isolation;
mod kills;
mod ledger;
mod links;
mod load;
mod network;
mod repair;
mod replicas;
mod stops;
