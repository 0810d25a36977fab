//! Hints: what this node keeps for replicas that can't be reached, until they can (hinted handoff,
//! DeCandia et al., 2007).

pub mod store;
