//! A node as the ring knows it, and the rules for a set of them.

use std::collections::BTreeSet;

use anello_protocol::{
    cluster::{MAX_MEMBERS, MAX_WEIGHT},
    id::{Datacenter, NodeId, Rack},
};

use crate::error::RingError;

/// Members' places are kept in 16 bits.
const _: () = assert!(MAX_MEMBERS <= 1 << 16);
/// A weight below this counts as this.
const LEAST_WEIGHT: f64 = 0.001;

/// A node that has a share of the ring.
#[derive(Clone, Debug, PartialEq)]
pub struct RingMember {
    /// Its name.
    pub id: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its rack there. Racks of one name in two datacenters are two racks.
    pub rack: Rack,
    /// Its share relative to the datacenter's other nodes, above 0, at most [`MAX_WEIGHT`]. Below a
    /// thousandth counts as a thousandth.
    pub weight: f64,
}

impl RingMember {
    pub(crate) fn effective_weight(&self) -> f64 {
        self.weight.max(LEAST_WEIGHT)
    }
}

/// Checks the members and puts them in the order of their ids.
pub(crate) fn checked(
    members: impl IntoIterator<Item = RingMember>,
) -> Result<Vec<RingMember>, RingError> {
    let mut ids = BTreeSet::new();
    let mut checked = Vec::new();
    for member in members {
        if checked.len() == MAX_MEMBERS {
            return Err(RingError::TooManyMembers);
        }
        if !(member.weight > 0.0 && member.weight <= MAX_WEIGHT) {
            return Err(RingError::BadWeight { id: member.id, weight: member.weight });
        }
        if !ids.insert(member.id.clone()) {
            return Err(RingError::DuplicateId(member.id));
        }
        checked.push(member);
    }
    checked.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(checked)
}
