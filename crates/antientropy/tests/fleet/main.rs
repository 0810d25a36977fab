//! Fleets of anti-entropy machines with stores in memory, in virtual time, under a seed.

mod busy;
mod content;
mod economy;
mod handover;
mod laws;
mod quarantine;
mod stories;
mod world;
