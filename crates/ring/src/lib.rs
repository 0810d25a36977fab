//! Who owns what in an Anello cluster.
//!
//! The hash space of 64 bits is cut into Q = 2^k equal **partitions**. Every datacenter is a full
//! ring: each partition has there a **walk**, the order in which the datacenter's nodes hold it. The
//! first of the walk **owns** the partition, the first N are its **replicas**, the next ones
//! **stand in** for those. A **vnode** is a partition that a node holds.
//!
//! Everything here is a pure function of the members: the same on every node, with no clock, no
//! input or output, no randomness and no memory of earlier rings. What a change of the members
//! moves is the difference between two rings, a [`TransferPlan`]; what it means for a cluster is told by a
//! [`forecast`].
//!
//! ```
//! use anello_protocol::id::{Datacenter, Epoch, NodeId, PartitionId, Rack};
//! use anello_ring::{Ring, RingMember};
//!
//! let eu = Datacenter::new("eu")?;
//! let members = ["a", "b", "c"].map(|rack| RingMember {
//!     id: NodeId::new(&format!("eu-{rack}-1")).expect("a valid name"),
//!     datacenter: eu.clone(),
//!     rack: Rack::new(rack).expect("a valid name"),
//!     weight: 1.0,
//! });
//! let ring = Ring::build(Epoch(1), 256, members)?;
//! assert_eq!(ring.replicas(PartitionId(17), &eu, 3).count(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod claim;
mod draw;
mod error;
pub mod forecast;
mod handover;
mod member;
pub mod placement;
mod plan;
mod preference;
mod ring;
mod select;
mod share;
pub mod view;

pub use error::{PlanError, RingError};
pub use handover::Handover;
pub use member::RingMember;
pub use plan::{Move, Release, TransferPlan};
pub use preference::{PreferenceList, Walk};
pub use ring::{ReplicaCounts, Ring};
