//! Receipts: who took part in a request, and how.

use anello_protocol::message::{
    client::{Receipt, ReplicaOutcome, ReplicaReceipt, Role},
    replica::Refusal,
};

use super::{desk::Desk, events::CallFailure, site::Site};

/// The receipt of a request that this coordinator has carried out. `parts` says of each replica, by
/// its place, what it did and after how many microseconds; nothing of one that wasn't asked.
pub(super) fn receipt(
    desk: &Desk,
    site: &Site,
    parts: impl Iterator<Item = Option<(ReplicaOutcome, u64)>>,
) -> Receipt {
    let replicas = site.placement.replicas.iter().zip(parts).filter_map(|(place, part)| {
        let (outcome, us) = part?;
        Some(ReplicaReceipt {
            id: place.id.clone(),
            datacenter: place.datacenter.clone(),
            rack: place.rack.clone(),
            role: Role::Replica,
            outcome,
            us,
        })
    });
    Receipt {
        epoch: site.view.epoch(),
        partition: site.placement.partition,
        coordinator: desk.node.clone(),
        replicas: replicas.collect(),
    }
}

/// The receipt of a request that came to nothing before this coordinator had sent anything to replicas
/// but the order to carry it out: it names those that can't be reached.
pub(super) fn receipt_of_nobody(desk: &Desk, site: &Site, us: u64) -> Receipt {
    let unreachable = site.placement.replicas.iter().map(|place| {
        let is_gone = place.id != desk.node && !desk.peers.is_reachable(&place.id);
        is_gone.then_some((ReplicaOutcome::Unreachable, us))
    });
    receipt(desk, site, unreachable)
}

/// How a failed call looks in a receipt.
pub(super) fn outcome_of_failure(failure: CallFailure) -> ReplicaOutcome {
    match failure {
        CallFailure::Timeout => ReplicaOutcome::Timeout,
        CallFailure::Closed | CallFailure::Unreachable => ReplicaOutcome::Unreachable,
        CallFailure::Busy | CallFailure::Refused => ReplicaOutcome::Refused,
    }
}

/// Whether what a replica refuses for will pass by itself in a moment.
pub(super) fn passes(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::StaleEpoch(_)
        | Refusal::Behind(_)
        | Refusal::NotOwner
        | Refusal::Frozen
        | Refusal::Busy => true,
        Refusal::Storage(_)
        | Refusal::ForgedContext
        | Refusal::TooManySiblings(_)
        | Refusal::Quarantined
        | Refusal::HintsFull
        | Refusal::DiskFull => false,
    }
}
