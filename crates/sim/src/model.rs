//! The reference model: what clients asked, what was answered, what replicas made durable; and
//! whether all of it keeps the promises.
//!
//! It knows no protocol. It watches four things only: requests and answers at clients, versions
//! as they become durable on any node, keys that a node forgets, and who holds what durably at the moment
//! of an acknowledgement. The promises are those of the design: A no acknowledged write is lost, B the
//! deleted stay deleted, E errors are honest, F a write replaces what its context covers and nothing
//! else, G overlapping strict quorums see the latest write.

mod forgetting;
mod reads;
mod strength;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anello_protocol::{
    causality::{Context, Dot},
    consistency::QuorumKind,
    id::{Datacenter, NodeId},
    key::DataKey,
    time::{HybridTime, Moment},
    version::{ConflictRule, Content, Version, Versions, WriteId},
};

use self::forgetting::Forgotten;
pub use self::{reads::ReadSeen, strength::Strength};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which check noticed.
    pub check: &'static str,
    /// When, in virtual time.
    pub at: Moment,
    /// What was seen.
    pub what: String,
}

/// What became of a write, as its client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    /// `floor` is the time of the version that was acknowledged, where that is known. `is_strong` says that
    /// enough of the key's own replicas had it, and not stand-ins.
    Acknowledged {
        at: Moment,
        strength: Strength,
        floor: HybridTime,
        is_strong: bool,
    },
    NothingWritten,
}

#[derive(Clone, Debug)]
struct Written {
    key: DataKey,
    rule: ConflictRule,
    content: Content,
    /// What the client sent; `None` for a delete that leaves it to the coordinator.
    context: Option<Context>,
    invoked: Moment,
    fate: Fate,
    /// Every version that was issued for it.
    issued: BTreeMap<Dot, Issued>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Issued {
    past: Context,
    time: HybridTime,
}

/// Who has a write, or what replaced it, durably.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// The key's own replicas.
    pub replicas: BTreeMap<NodeId, Datacenter>,
    /// Those of them that had it while nobody had what has replaced it: a later write meets it there.
    pub met: BTreeMap<NodeId, Datacenter>,
    /// Nodes that keep a hint of it for one of them, and are none.
    pub stand_ins: BTreeMap<NodeId, Datacenter>,
}

impl Holders {
    /// All of them.
    fn all(&self) -> BTreeMap<NodeId, Datacenter> {
        let all = self.replicas.iter().chain(&self.stand_ins);
        all.map(|(node, datacenter)| (node.clone(), datacenter.clone())).collect()
    }
}

/// Everything that happened in a run, seen from outside.
#[derive(Debug, Default)]
pub struct Model {
    writes: BTreeMap<WriteId, Written>,
    /// Which write each dot of a key was issued for, and when it was first durable.
    dots: BTreeMap<(DataKey, Dot), (WriteId, Moment)>,
    by_key: BTreeMap<DataKey, BTreeSet<WriteId>>,
    forgotten: Forgotten,
    violations: Vec<Violation>,
}

impl Model {
    /// A model of keyspaces in which tombstones of less than `grace` may not be forgotten, if that can be told
    /// because the clocks are right.
    pub fn new(grace: Option<Duration>) -> Self {
        Self { forgotten: Forgotten::new(grace), ..Self::default() }
    }

    /// What was broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Notes a violation that something else than the model noticed.
    pub fn report(&mut self, check: &'static str, at: Moment, what: String) {
        self.violations.push(Violation { check, at, what });
    }

    /// A client sends a write.
    pub fn write_invoked(
        &mut self,
        id: WriteId,
        key: &DataKey,
        rule: ConflictRule,
        content: Content,
        context: Option<Context>,
        at: Moment,
    ) {
        self.by_key.entry(key.clone()).or_default().insert(id);
        let key = key.clone();
        let (fate, issued) = (Fate::Unknown, BTreeMap::new());
        self.writes.insert(id, Written { key, rule, content, context, invoked: at, fate, issued });
    }

    /// A version has become durable on a node.
    pub fn durable(&mut self, node: &NodeId, key: &DataKey, version: &Version, at: Moment) {
        let id = version.write_id;
        let (known, _) = self.dots.entry((key.clone(), version.dot)).or_insert((id, at));
        if *known != id {
            let what = format!("{node} holds {:?} for {id:?}, issued for {known:?}", version.dot);
            return self.report("a dot is issued once", at, what);
        }
        let Some(write) = self.writes.get_mut(&id) else {
            let what = format!("{node} holds {id:?}, which no client sent");
            return self.report("nothing is made up", at, what);
        };
        if write.content != version.content || write.key != *key {
            let what = format!("{node} holds other content for {id:?} than was sent");
            return self.report("nothing is made up", at, what);
        }
        let issued = Issued { past: version.past.clone(), time: version.time };
        let first = write.issued.entry(version.dot).or_insert(issued.clone());
        if *first != issued {
            let what = format!("{:?} of {id:?} differs on {node}", version.dot);
            return self.report("a version never changes", at, what);
        }
        let exact = write.rule == ConflictRule::Lww
            || write.context.as_ref().is_none_or(|sent| *sent == version.past);
        if !exact {
            let what =
                format!("{id:?} was sent with {:?}, kept as {:?}", write.context, version.past);
            self.report("F: contexts are exact", at, what);
        }
        self.check_extinct(node, key, version, at);
    }

    /// A client is told that its write is done; `holders` have it, or what replaced it, durably, and
    /// `context` came with the answer. In a strict quorum only replicas count.
    pub fn write_acknowledged(
        &mut self,
        id: WriteId,
        (strength, quorum): (Strength, QuorumKind),
        holders: &Holders,
        context: &Context,
        at: Moment,
    ) {
        let is_strong = strength.is_met_by(&holders.met);
        let is_met = match quorum {
            QuorumKind::Strict => strength.is_met_by(&holders.replicas),
            QuorumKind::Sloppy => strength.is_met_by(&holders.all()),
        };
        if !is_met {
            let what =
                format!("{id:?} acknowledged as {quorum:?} {strength:?} while {holders:?} hold it");
            self.report("A: acknowledged means durable on W", at, what);
        }
        if let Some(write) = self.writes.get_mut(&id) {
            let own = write.issued.iter().filter(|(dot, _)| context.covers(**dot));
            let floor = own.map(|(_, issued)| issued.time).min().unwrap_or_default();
            write.fate = Fate::Acknowledged { at, strength, floor, is_strong };
        }
    }

    /// A client is told that nothing was written.
    pub fn write_refused(&mut self, id: WriteId) {
        if let Some(write) = self.writes.get_mut(&id) {
            write.fate = Fate::NothingWritten;
        }
    }

    /// Whether a node that durably holds `held` has a write, or what replaced it.
    pub fn is_in(&self, id: WriteId, held: &Versions) -> bool {
        let Some(write) = self.writes.get(&id) else { return false };
        match write.rule {
            ConflictRule::Siblings => write.is_in(&held.context()),
            ConflictRule::Lww => {
                let first = write.issued.values().map(|issued| issued.time).min();
                // It may have been replaced before it was durable anywhere, by a write that knew of it.
                first.is_some_and(|first| !held.is_empty() && held.latest() >= first)
                    || held.iter().any(|version| version.absorbed.contains(&id))
            }
        }
    }

    /// The same, but under last-write-wins not by a version that was there before the write was sent, and wins
    /// over it by the time of a clock that is ahead; nor by one that won over it only until it was issued
    /// anew.
    pub fn is_met_in(&self, id: WriteId, key: &DataKey, held: &Versions) -> bool {
        let Some(write) = self.writes.get(&id) else { return false };
        let latest = write.issued.values().map(|issued| issued.time).max().unwrap_or_default();
        let is_later = |version: &Version| {
            let known = self.dots.get(&(key.clone(), version.dot));
            let is_of_its_time = |(of, since): &(_, _)| *of == id || *since >= write.invoked;
            version.time >= latest && known.is_some_and(is_of_its_time)
        };
        match write.rule {
            ConflictRule::Siblings => self.is_in(id, held),
            ConflictRule::Lww => self.is_in(id, held) && held.iter().all(is_later),
        }
    }

    /// The run is over: no more can become durable.
    pub fn finish(&mut self, at: Moment) {
        let lies = self
            .writes
            .iter()
            .filter(|(_, write)| write.fate == Fate::NothingWritten && !write.issued.is_empty());
        let lies: Vec<_> =
            lies.map(|(id, _)| format!("{id:?} was said not to be written")).collect();
        for what in lies {
            self.report("E: errors are honest", at, what);
        }
    }

    fn writes_of(&self, key: &DataKey) -> impl Iterator<Item = (WriteId, &Written)> {
        let ids = self.by_key.get(key).into_iter().flatten();
        ids.map(|id| (*id, &self.writes[id]))
    }
}

impl Written {
    fn is_in(&self, context: &Context) -> bool {
        self.issued.keys().any(|dot| context.covers(*dot))
    }

    fn replaces(&self, other: &Written) -> bool {
        self.issued.values().any(|issued| other.is_in(&issued.past))
    }

    /// Whether it was acknowledged before a read began, by replicas that the read meets.
    fn precedes(&self, read: &ReadSeen<'_>) -> bool {
        match &self.fate {
            Fate::Acknowledged { at, .. } if read.is_final => *at < read.invoked,
            Fate::Acknowledged { at, strength, is_strong, .. } => {
                let meets = *is_strong && read.quorum == QuorumKind::Strict;
                *at < read.invoked && meets && strength.overlaps(read.strength)
            }
            Fate::Unknown | Fate::NothingWritten => false,
        }
    }
}
