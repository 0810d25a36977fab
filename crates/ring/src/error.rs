//! Why there is no ring, or no plan, of what was given. Nothing changes on any of them, and trying
//! again with the same input can't succeed.

use anello_protocol::{
    cluster::{MAX_MEMBERS, MAX_PARTITIONS, MAX_WEIGHT},
    id::NodeId,
};
use thiserror::Error;

/// Why a ring can't be built.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum RingError {
    /// The number of partitions is out of bounds.
    #[error("partitions must be a power of two from 1 to {MAX_PARTITIONS}, not {0}")]
    BadPartitions(u32),
    /// Two members have one id.
    #[error("there are two members with the id {0}")]
    DuplicateId(NodeId),
    /// A weight is out of bounds.
    #[error("the weight of {id} must be above 0 and at most {MAX_WEIGHT}, not {weight}")]
    BadWeight {
        /// Whose weight it is.
        id: NodeId,
        /// The weight.
        weight: f64,
    },
    /// More members than a ring holds.
    #[error("a ring has at most {MAX_MEMBERS} members")]
    TooManyMembers,
}

/// Why there is no way from one ring to another.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The rings cut the hash space differently.
    #[error("a ring of {old} partitions can't become one of {new}")]
    PartitionsDiffer {
        /// The partitions of the ring before.
        old: u32,
        /// The partitions of the ring after.
        new: u32,
    },
}
