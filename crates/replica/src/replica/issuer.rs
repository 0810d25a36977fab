//! Who issues a vnode's dots: its incarnation, and the births of keys within it.
//!
//! Invariants: no birth number is given out twice under one incarnation, also across restarts, because
//! a restart goes on behind the last block that was reserved; and every commit that holds a fresh dot
//! carries the record that proves so, until one that carried it is known to be durable.

use anello_protocol::{
    causality::Incarnation,
    id::{Epoch, NodeId, PartitionId},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::store::VnodeRecord;

/// How many birth numbers are reserved at a time.
const BIRTHS_PER_BLOCK: u64 = 1024;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// What incarnations are drawn from.
    seed: u64,
    /// How many incarnations have been drawn.
    drawn: u64,
    /// What must be remembered for the dots that are issued.
    record: VnodeRecord,
    /// What is known to be remembered.
    durable: Option<VnodeRecord>,
    /// The next birth number.
    next_birth: u64,
}

impl Issuer {
    /// Goes on from what the store remembers; without that, in a new incarnation.
    ///
    /// The seed must be random: it is what keeps incarnations of several lives apart. The names keep
    /// those of several vnodes apart, however alike their seeds.
    pub(crate) fn new(
        node: &NodeId,
        partition: PartitionId,
        seed: u64,
        remembered: Option<VnodeRecord>,
    ) -> Self {
        let mut name = node.as_str().as_bytes().to_vec();
        name.extend_from_slice(&partition.0.to_le_bytes());
        let unborn = VnodeRecord { incarnation: Incarnation(0), births_reserved: 0 };
        let record = remembered.unwrap_or(unborn);
        let mut issuer = Self {
            seed: xxh3_64_with_seed(&name, seed),
            drawn: 0,
            record,
            durable: remembered,
            next_birth: record.births_reserved,
        };
        if remembered.is_none() {
            issuer.renew();
        }
        issuer
    }

    /// Under which life dots are issued; [`Issuer::incarnation`] has the keyspace's rule in it.
    pub(crate) fn life(&self) -> Incarnation {
        self.record.incarnation
    }

    /// Ends a life, because what the store holds of it can't be known. The one that may have begun since
    /// is not concerned: however many commits of a life fail, each of its keys gets one actor more.
    pub(crate) fn end(&mut self, life: Incarnation) {
        if self.life() == life {
            self.renew();
        }
    }

    fn renew(&mut self) {
        self.drawn += 1;
        let incarnation = Incarnation(xxh3_64_with_seed(&self.drawn.to_le_bytes(), self.seed));
        self.record = VnodeRecord { incarnation, births_reserved: 0 };
        self.next_birth = 0;
    }

    /// Under whose name dots are issued in a keyspace whose rule dates from `ruled_since`.
    pub(crate) fn incarnation(&self, ruled_since: Epoch) -> Incarnation {
        self.record.incarnation.under(ruled_since)
    }

    /// A birth number that was never used.
    pub(crate) fn birth(&mut self) -> u64 {
        if self.next_birth >= self.record.births_reserved {
            self.record.births_reserved = self.next_birth + BIRTHS_PER_BLOCK;
        }
        self.next_birth += 1;
        self.next_birth - 1
    }

    /// Whether a birth number may have been given out.
    pub(crate) fn has_given(&self, birth: u64) -> bool {
        birth < self.next_birth
    }

    /// What a commit that holds a fresh dot has to carry.
    pub(crate) fn record_to_commit(&self) -> Option<VnodeRecord> {
        (self.durable != Some(self.record)).then_some(self.record)
    }

    /// A commit that carried this record is durable.
    pub(crate) fn committed(&mut self, record: VnodeRecord) {
        self.durable = Some(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(partition: u32, remembered: Option<VnodeRecord>) -> Issuer {
        let node = NodeId::new("eu-a-1").expect("a good name");
        Issuer::new(&node, PartitionId(partition), 7, remembered)
    }

    #[test]
    fn births_go_on_behind_what_was_reserved() {
        let mut first = issuer(0, None);
        assert_eq!((first.birth(), first.birth()), (0, 1));
        let record = first.record_to_commit().expect("nothing is durable yet");
        assert_eq!(record.births_reserved, BIRTHS_PER_BLOCK);
        assert_eq!(first.record_to_commit(), Some(record), "until it is known to be durable");
        first.committed(record);
        assert_eq!(first.record_to_commit(), None);

        let mut second = issuer(0, Some(record));
        assert!(second.has_given(BIRTHS_PER_BLOCK - 1), "a crash may have forgotten which");
        assert_eq!(second.birth(), BIRTHS_PER_BLOCK);
        let next = second.record_to_commit().expect("a new block has to be remembered");
        assert_eq!(next.incarnation, record.incarnation);
        assert_eq!(next.births_reserved, 2 * BIRTHS_PER_BLOCK);
    }

    /// T5: two vnodes started at the same instant.
    #[test]
    fn vnodes_differ_by_construction() {
        let epoch = Epoch(1);
        assert_ne!(issuer(0, None).incarnation(epoch), issuer(1, None).incarnation(epoch));
        let mut renewed = issuer(0, None);
        renewed.renew();
        assert_ne!(renewed.incarnation(epoch), issuer(0, None).incarnation(epoch));
    }
}
