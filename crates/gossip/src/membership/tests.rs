//! Membership machines in fleets: what must come about, how soon, and what must never.

mod agreeing;
mod fleet;
mod forming;
mod noticing;
mod reshaping;
mod telling_apart;
