//! Transcripts of a coordinator: inputs in, effects compared; and its promises by property, with a
//! small fleet of real machines on a bad network.

mod bench;
mod changes;
mod doubts;
mod fleet;
mod forwarding;
mod reads;
mod relays;
mod stand_ins;
mod writes;
