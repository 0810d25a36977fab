//! Finding and mending what differs between replicas, by Merkle trees; and forgetting what was deleted,
//! once every replica has confirmed it.

pub mod purge;
pub mod quarantine;
pub mod store;
