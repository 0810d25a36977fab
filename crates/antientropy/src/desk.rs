//! What all parts of anti-entropy work with: the time, what the cluster has agreed on, the budget, what is
//! under way and for whom, and the effects to come.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    codec,
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    time::{Moment, Now},
    version::{ConflictRule, Versions},
};
use anello_ring::view::View;
use anello_transport::{REPLY_BYTES, REQUEST_BYTES};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    budget::Budget,
    events::{CallFailure, Effect, Incoming, Outgoing, Reply, Report, Ticket, Token},
    handover::{Handovers, Word},
    looking::Look,
    witnesses::witnesses,
};

/// How long an answer may take.
const CALL_TIME: Duration = Duration::from_secs(10);
/// What a version weighs in memory beside its value, in bytes.
const VERSION_BYTES: usize = 16;

/// The bounds and delays of anti-entropy.
#[derive(Clone, Debug)]
pub struct AntiEntropyConfig {
    /// How long after a comparison with a node the next one follows, default 60 s. Less costs a digest
    /// a partition each time.
    pub round: Duration,
    /// Within what time every tree is compared with its data, default a day. Less costs reading all
    /// data that often.
    pub scrub: Duration,
    /// How much may be sent, in bytes a second, default 8 MiB, as long as clients don't suffer.
    pub bytes_per_second: u64,
    /// How many trees are walked at once, default 4. More takes memory and disk reads.
    pub units_max: usize,
}

impl Default for AntiEntropyConfig {
    fn default() -> Self {
        Self {
            round: Duration::from_secs(60),
            scrub: Duration::from_secs(24 * 60 * 60),
            bytes_per_second: 8 << 20,
            units_max: 4,
        }
    }
}

/// What a keyspace's agreed settings mean here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) rule: ConflictRule,
    pub(crate) grace_ms: u64,
}

/// For whom something is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A question that is being answered.
    Answer,
    /// The comparison of roots with a node.
    Sweep(NodeId),
    /// The walk of a unit.
    Walk(u64),
    /// A key of a unit.
    Transfer(u64, u64),
    /// A key of a unit that nobody else may hold, asked about at this node.
    Lone(u64, u64, NodeId),
    /// The scrub.
    Scrub,
}

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) keys_pulled: u64,
    pub(crate) keys_pushed: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) hashes_compared: u64,
    pub(crate) trees_scrubbed: u64,
    pub(crate) leaves_mended: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) node: NodeId,
    pub(crate) config: AntiEntropyConfig,
    pub(crate) now: Now,
    pub(crate) view: Option<Arc<View>>,
    pub(crate) budget: Budget,
    pub(crate) counts: Counts,
    pub(crate) quarantined: BTreeSet<PartitionId>,
    /// Whether that is because the store was put back from a copy.
    pub(crate) was_restored: bool,
    /// What has to be proved for the change that is under way.
    pub(crate) handovers: Handovers,
    /// Who was asked about lone keys and is quarantined too, and since when.
    pub(crate) refusing: BTreeMap<NodeId, Moment>,
    /// Trees that were found not to be trusted.
    pub(crate) untrusted: BTreeSet<(KeyspaceId, PartitionId)>,
    /// The bytes of the versions that are at hand or under way.
    pub(crate) bytes_at_hand: usize,
    pub(crate) effects: VecDeque<Effect>,
    terms: BTreeMap<KeyspaceId, Terms>,
    /// Each with whether another node is to answer.
    owners: BTreeMap<Ticket, (Owner, bool)>,
    next_ticket: u64,
    seed: u64,
}

impl Desk {
    pub(crate) fn new(node: NodeId, config: AntiEntropyConfig, seed: u64) -> Self {
        Self {
            node,
            now: Now::default(),
            view: None,
            budget: Budget::new(config.bytes_per_second),
            config,
            counts: Counts::default(),
            quarantined: BTreeSet::new(),
            was_restored: false,
            handovers: Handovers::default(),
            refusing: BTreeMap::new(),
            untrusted: BTreeSet::new(),
            bytes_at_hand: 0,
            effects: VecDeque::new(),
            terms: BTreeMap::new(),
            owners: BTreeMap::new(),
            next_ticket: 0,
            seed,
        }
    }

    pub(crate) fn adopt(&mut self, view: Arc<View>) {
        let terms = view.keyspaces().map(|(_, keyspace)| {
            let grace_ms = keyspace.config.tombstone_grace_s.saturating_mul(1000);
            (keyspace.id, Terms { rule: keyspace.config.conflict, grace_ms })
        });
        self.terms = terms.collect();
        let words = self.handovers.adopt(&self.node, &view);
        self.view = Some(view);
        self.give(words);
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.view.as_ref().map(|view| view.epoch()).unwrap_or_default()
    }

    /// Into how many partitions the hash space is cut.
    pub(crate) fn partitions(&self) -> u32 {
        self.view.as_ref().map_or(1, |view| view.cluster().partitions)
    }

    pub(crate) fn terms(&self, keyspace: KeyspaceId) -> Terms {
        // Only of a keyspace that is gone there are none, and nothing of it is stored then.
        let none = Terms { rule: ConflictRule::Siblings, grace_ms: u64::MAX };
        self.terms.get(&keyspace).copied().unwrap_or(none)
    }

    /// Whether all that is left are tombstones that any replica may have forgotten by now.
    pub(crate) fn is_forgettable(&self, keyspace: KeyspaceId, versions: &Versions) -> bool {
        let until = versions.latest().wall_ms().saturating_add(self.terms(keyspace).grace_ms);
        versions.is_deleted() && until <= self.now.wall_ms
    }

    /// The other replicas of a tree, in all datacenters, that know what was forgotten.
    pub(crate) fn others(&self, keyspace: KeyspaceId, partition: PartitionId) -> Vec<NodeId> {
        let Some(view) = &self.view else { return Vec::new() };
        let Some(keyspace) = view.keyspace_of(keyspace) else { return Vec::new() };
        let others = witnesses(view, keyspace, partition, &self.node);
        others.map(|replica| replica.id.clone()).collect()
    }

    /// When something may be sent, if not at once.
    pub(crate) fn budget_at(&mut self) -> Option<Moment> {
        self.budget.ready_at(self.now.moment)
    }

    pub(crate) fn send(&mut self, owner: Owner, to: &NodeId, message: Outgoing) -> Ticket {
        if *to != self.node {
            self.pay(request_bytes(&message));
        }
        let ticket = self.ticket(owner, *to != self.node);
        let deadline = self.now.moment + CALL_TIME;
        self.effects.push_back(Effect::Send { ticket, to: to.clone(), message, deadline });
        ticket
    }

    fn pay(&mut self, bytes: usize) {
        self.budget.take(self.now.moment, bytes);
        self.counts.bytes_sent += bytes as u64;
    }

    pub(crate) fn look(&mut self, owner: Owner, look: Look) -> Ticket {
        let ticket = self.ticket(owner, false);
        self.effects.push_back(Effect::Look(ticket, look));
        ticket
    }

    pub(crate) fn reply(&mut self, token: Token, reply: Reply) {
        self.pay(reply_bytes(&reply));
        self.effects.push_back(Effect::Reply(token, reply));
    }

    /// A tree is in step with that of a node, which matters to a quarantine that is on.
    pub(crate) fn in_step(
        &mut self,
        (keyspace, partition): (KeyspaceId, PartitionId),
        peer: &NodeId,
    ) {
        if self.quarantined.contains(&partition) {
            let peer = peer.clone();
            self.effects.push_back(Effect::InStep { keyspace, partition, peer });
        }
    }

    /// Tells those who agree on the change that is under way.
    pub(crate) fn give(&mut self, words: impl IntoIterator<Item = Word>) {
        let epoch = self.epoch();
        let told = words.into_iter().map(|Word { change, partition, phase }| Effect::HandedOver {
            change,
            partition,
            phase,
            epoch,
        });
        self.effects.extend(told);
    }

    /// A node shows nothing to anybody, which matters to a quarantine that is on, and to people who wait for
    /// a change.
    pub(crate) fn peer_quarantined(&mut self, peer: &NodeId) {
        self.handovers.peer_quarantined(peer);
        if !self.quarantined.is_empty() {
            self.effects.push_back(Effect::PeerQuarantined(peer.clone()));
        }
    }

    pub(crate) fn report(&mut self, report: Report) {
        self.effects.push_back(Effect::Report(report));
    }

    /// For whom something came back; nothing comes back twice.
    pub(crate) fn owner(&mut self, ticket: Ticket) -> Option<Owner> {
        self.owners.remove(&ticket).map(|(owner, _)| owner)
    }

    /// For whom an answer came, or none. What another node's vnode has answered is counted here: that one
    /// doesn't know what for.
    pub(crate) fn answered(
        &mut self,
        ticket: Ticket,
        outcome: &Result<Incoming, CallFailure>,
    ) -> Option<Owner> {
        let (owner, is_abroad) = self.owners.remove(&ticket)?;
        if let Ok(answer) = outcome
            && is_abroad
        {
            self.pay(answer_bytes(answer));
        }
        Some(owner)
    }

    /// A time between half and one and a half of this one, different every time.
    pub(crate) fn jitter(&mut self, around: Duration) -> Duration {
        self.seed = xxh3_64_with_seed(&self.seed.to_le_bytes(), self.now.moment.0);
        let permille = 500 + u32::try_from(self.seed % 1001).unwrap_or_default();
        around * permille / 1000
    }

    fn ticket(&mut self, owner: Owner, is_abroad: bool) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.owners.insert(ticket, (owner, is_abroad));
        ticket
    }
}

/// How long a message is on the wire, with its frame.
fn request_bytes(message: &Outgoing) -> usize {
    let bytes = match message {
        Outgoing::Roots(it) => codec::encoded_len(it),
        Outgoing::Ranges(it) => codec::encoded_len(it),
        Outgoing::Keys(it) => codec::encoded_len(it),
        Outgoing::Read(it) => codec::encoded_len(it),
        Outgoing::Purge(it) => codec::encoded_len(it),
        Outgoing::Store(it) => codec::encoded_len(it),
    };
    REQUEST_BYTES + bytes
}

/// How long the answer to another node is on the wire, with its frame.
fn reply_bytes(reply: &Reply) -> usize {
    let bytes = match reply {
        Reply::Roots(it) => codec::encoded_len(it),
        Reply::Ranges(it) => codec::encoded_len(it),
        Reply::Keys(it) => codec::encoded_len(it),
        Reply::Malformed(sentence) => sentence.len(),
        // That goes to an operator.
        Reply::Started(_) => return 0,
    };
    REPLY_BYTES + bytes
}

/// How long a vnode's answer was on the wire, with its frame; the answers of anti-entropy are counted where
/// they are sent.
fn answer_bytes(answer: &Incoming) -> usize {
    let bytes = match answer {
        Incoming::Read(it) => codec::encoded_len(it),
        Incoming::Stored(it) => codec::encoded_len(it),
        Incoming::Purged(it) => codec::encoded_len(it),
        Incoming::Roots(_) | Incoming::Ranges(_) | Incoming::Keys(_) => return 0,
    };
    REPLY_BYTES + bytes
}

/// What versions weigh in memory, in bytes.
pub(crate) fn bytes_of(versions: &Versions) -> usize {
    versions.value_bytes() + versions.len() * VERSION_BYTES
}
