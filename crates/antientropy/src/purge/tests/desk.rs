//! A purger, the hand that feeds it, and what it wants done.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anello_protocol::{
    id::NodeId,
    message::{hint::CheckHints, replica::Held},
    time::{HybridTime, Moment, Now},
    version::{ConflictRule, VersionsDigest},
};
use anello_ring::view::View;

use super::bench::{GRACE, NODES, cluster, config, data_key, replicas, view};
use crate::{
    purge::{
        CallFailure, CallNumber, Effect, Incoming, Input, Outgoing, PurgeConfig, Purger, WaitReason,
    },
    store::Tombstone,
};

pub(super) const TOMBSTONES: VersionsDigest = VersionsDigest(7);
pub(super) const NOTHING: VersionsDigest = VersionsDigest(0);
pub(super) const OLD: HybridTime = HybridTime::from_wall_ms(0);

/// The first replica's purger, at a time when what is of time zero is old enough.
pub(super) struct Desk {
    pub(super) purger: Purger,
    pub(super) now: Now,
    pub(super) view: Arc<View>,
    pub(super) node: NodeId,
}

pub(super) type Sent = (CallNumber, NodeId, Outgoing);

impl Desk {
    /// The purger of the replica at this place of the preference list.
    pub(super) fn new(at: usize, config: PurgeConfig) -> Self {
        let view = view(cluster(1, &NODES, ConflictRule::Siblings));
        let node = replicas(&view)[at].clone();
        let wall_ms = 1_000 + u64::try_from(GRACE.as_millis()).expect("it is short");
        let now = Now { moment: Moment(0), wall_ms };
        let purger = Purger::new(node.clone(), config);
        let mut desk = Self { purger, now, view: view.clone(), node };
        desk.handle(Input::ClusterChanged(view));
        desk
    }

    pub(super) fn handle(&mut self, input: Input) {
        self.purger.handle(self.now, input);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.moment = self.now.moment + time;
        self.now.wall_ms += u64::try_from(time.as_millis()).expect("it is short");
        self.handle(Input::TimeUp);
    }

    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.purger.next_effect()).collect()
    }

    pub(super) fn sent(&mut self) -> Vec<Sent> {
        let sent = |effect| match effect {
            Effect::Send { call, to, message, .. } => (call, to, message),
            Effect::List { .. } => panic!("nothing is listed at this moment"),
        };
        self.effects().into_iter().map(sent).collect()
    }

    /// Answers the listing that is under way.
    pub(super) fn list(&mut self, tombstones: Vec<Tombstone>) {
        let listing = |effect| match effect {
            Effect::List { number, .. } => Some(number),
            Effect::Send { .. } => None,
        };
        let number = self.effects().into_iter().find_map(listing).expect("something is listed");
        self.handle(Input::Listed { number, result: Ok(tombstones) });
    }

    pub(super) fn tombstone(&self, key: &str, latest: HybridTime) -> Tombstone {
        Tombstone { key: data_key(&self.view, key), digest: TOMBSTONES, latest }
    }

    pub(super) fn answer(&mut self, call: CallNumber, outcome: Result<Incoming, CallFailure>) {
        self.handle(Input::Answered { call, outcome });
    }

    /// Answers reads: the tombstones, but for some.
    pub(super) fn answer_reads(&mut self, sent: Vec<Sent>, others: &[(&NodeId, VersionsDigest)]) {
        for (call, to, message) in sent {
            assert!(matches!(message, Outgoing::Read(_)), "{message:?}");
            let other = others.iter().find(|(node, _)| **node == to);
            let digest = other.map_or(TOMBSTONES, |(_, digest)| *digest);
            self.answer(call, Ok(Incoming::Read(Ok(Held::Digest(digest)))));
        }
    }

    pub(super) fn answer_checks(&mut self, sent: Vec<Sent>, kept_at: Option<&NodeId>) {
        for (call, to, message) in sent {
            let Outgoing::Check(CheckHints { keys }) = message else { panic!("{message:?}") };
            let kept = vec![kept_at == Some(&to); keys.len()];
            self.answer(call, Ok(Incoming::Checked(Ok(kept))));
        }
    }

    pub(super) fn waiting(&self) -> BTreeMap<WaitReason, u64> {
        self.purger.figures().waiting
    }

    /// Up to the purge of one key at the others.
    pub(super) fn prove(&mut self) -> Vec<Sent> {
        self.list(vec![self.tombstone("k", OLD)]);
        let reads = self.sent();
        self.answer_reads(reads, &[]);
        self.pass(config().settle);
        let checks = self.sent();
        self.answer_checks(checks, None);
        self.pass(config().settle);
        let reads: Vec<_> = self.effects().into_iter().filter(is_send).map(as_sent).collect();
        self.answer_reads(reads, &[]);
        self.sent()
    }
}

pub(super) fn is_send(effect: &Effect) -> bool {
    matches!(effect, Effect::Send { .. })
}

pub(super) fn as_sent(effect: Effect) -> Sent {
    match effect {
        Effect::Send { call, to, message, .. } => (call, to, message),
        Effect::List { .. } => panic!("not a message"),
    }
}
