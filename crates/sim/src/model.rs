//! The reference model: what clients asked, what was answered, what replicas made durable; and
//! whether all of it keeps the promises.
//!
//! It knows no protocol. It watches three things only: requests and answers at clients, versions
//! as they become durable on any node, and who holds what durably at the moment of an
//! acknowledgement. The promises are those of the design: A no acknowledged write is lost, E errors are
//! honest, F a write replaces what its context covers and nothing else, G overlapping quorums
//! see the latest write.

use std::collections::{BTreeMap, BTreeSet};

use anello_protocol::{
    causality::{Context, Dot},
    id::{Datacenter, NodeId},
    key::DataKey,
    time::{HybridTime, Moment},
    version::{ConflictRule, Content, Version, Versions, WriteId},
};

/// How many replicas an answer stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strength {
    /// That many of all N.
    Total {
        /// How many.
        count: usize,
        /// N.
        of: usize,
    },
    /// That many in one datacenter.
    Local {
        /// Where.
        datacenter: Datacenter,
        /// How many.
        count: usize,
        /// How many there are.
        of: usize,
    },
    /// A majority in each datacenter.
    Each {
        /// How many there are, by datacenter.
        of: BTreeMap<Datacenter, usize>,
    },
}

impl Strength {
    /// Whether every set of replicas behind the one shares a replica with every set behind the other.
    pub fn overlaps(&self, other: &Strength) -> bool {
        match (self, other) {
            (Strength::Total { count: r, of }, Strength::Total { count: w, .. }) => r + w > *of,
            (
                Strength::Local { datacenter: here, count: r, of },
                Strength::Local { datacenter: there, count: w, .. },
            ) => here == there && r + w > *of,
            (Strength::Local { count: local, .. }, Strength::Total { count, of })
            | (Strength::Total { count, of }, Strength::Local { count: local, .. }) => {
                count + local > *of
            }
            (Strength::Each { of: each }, Strength::Local { datacenter, count, of })
            | (Strength::Local { datacenter, count, of }, Strength::Each { of: each }) => {
                each.get(datacenter).is_some_and(|all| count + all / 2 + 1 > *of)
            }
            (Strength::Each { of: each }, Strength::Total { count, of })
            | (Strength::Total { count, of }, Strength::Each { of: each }) => {
                count + each.values().map(|all| all / 2 + 1).sum::<usize>() > *of
            }
            (Strength::Each { .. }, Strength::Each { .. }) => true,
        }
    }

    /// Whether these are as many as it takes.
    fn is_met_by(&self, holders: &BTreeMap<NodeId, Datacenter>) -> bool {
        let within = |place: &Datacenter| holders.values().filter(|at| *at == place).count();
        match self {
            Strength::Total { count, .. } => holders.len() >= *count,
            Strength::Local { datacenter, count, .. } => within(datacenter) >= *count,
            Strength::Each { of } => of.iter().all(|(at, all)| within(at) > all / 2),
        }
    }
}

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
    /// `floor` is the time of the version that was acknowledged, where that is known.
    Acknowledged {
        at: Moment,
        strength: Strength,
        floor: HybridTime,
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

/// A read's answer.
#[derive(Clone, Debug)]
pub struct ReadSeen<'a> {
    /// The key.
    pub key: &'a DataKey,
    /// The keyspace's rule.
    pub rule: ConflictRule,
    /// When the client asked.
    pub invoked: Moment,
    /// When it was answered.
    pub at: Moment,
    /// How many replicas the answer stands for.
    pub strength: &'a Strength,
    /// What was shown.
    pub shown: &'a [Content],
    /// The latest time of what was shown.
    pub latest: HybridTime,
    /// The context that came with it.
    pub context: &'a Context,
}

/// Everything that happened in a run, seen from outside.
#[derive(Debug, Default)]
pub struct Model {
    writes: BTreeMap<WriteId, Written>,
    /// Which write each dot of a key was issued for.
    dots: BTreeMap<(DataKey, Dot), WriteId>,
    by_key: BTreeMap<DataKey, BTreeSet<WriteId>>,
    violations: Vec<Violation>,
}

impl Model {
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
        let known = self.dots.entry((key.clone(), version.dot)).or_insert(id);
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
    }

    /// A client is told that its write is done; `holders` have it, or what replaced it, durably, and
    /// `context` came with the answer.
    pub fn write_acknowledged(
        &mut self,
        id: WriteId,
        strength: Strength,
        holders: &BTreeMap<NodeId, Datacenter>,
        context: &Context,
        at: Moment,
    ) {
        if !strength.is_met_by(holders) {
            let what = format!("{id:?} acknowledged as {strength:?} while {holders:?} hold it");
            self.report("A: acknowledged means durable on W", at, what);
        }
        if let Some(write) = self.writes.get_mut(&id) {
            let own = write.issued.iter().filter(|(dot, _)| context.covers(**dot));
            let floor = own.map(|(_, issued)| issued.time).min().unwrap_or_default();
            write.fate = Fate::Acknowledged { at, strength, floor };
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
                first.is_some_and(|first| !held.is_empty() && held.latest() >= first)
            }
        }
    }

    /// A read is answered.
    pub fn read(&mut self, read: &ReadSeen<'_>) {
        self.check_shown(read);
        match read.rule {
            ConflictRule::Siblings => {
                self.check_context(read);
                self.check_latest(read);
            }
            ConflictRule::Lww => self.check_lww(read),
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

    /// What is shown was sent by somebody, and once.
    fn check_shown(&mut self, read: &ReadSeen<'_>) {
        let ids = self.by_key.get(read.key);
        let mut problems = Vec::new();
        for content in read.shown.iter().filter(|content| matches!(content, Content::Value(_))) {
            let sent = ids.is_some_and(|ids| {
                ids.iter().any(|id| {
                    self.writes[id].content == *content && !self.writes[id].issued.is_empty()
                })
            });
            if !sent {
                problems.push(("nothing is made up", format!("{content:?} was shown")));
            }
            if read.shown.iter().filter(|other| *other == content).count() > 1 {
                problems.push(("F: a write is one event", format!("{content:?} was shown twice")));
            }
        }
        if read.rule == ConflictRule::Lww && read.shown.len() > 1 {
            problems.push(("lww shows one version", format!("{:?}", read.shown)));
        }
        for (check, what) in problems {
            self.report(check, read.at, what);
        }
    }

    /// The context is what was seen and no more; and what it covers was shown or replaced.
    fn check_context(&mut self, read: &ReadSeen<'_>) {
        let mut problems = Vec::new();
        for dot in dots_of(read.context) {
            if !self.dots.contains_key(&(read.key.clone(), dot)) {
                problems.push(("F: contexts are exact", format!("{dot:?} was never issued")));
            }
        }
        let covered: Vec<_> =
            self.writes_of(read.key).filter(|(_, w)| w.is_in(read.context)).collect();
        for (id, write) in &covered {
            // Of several tombstones a reader is shown one, and beside a value perhaps none.
            let shown = write.content == Content::Tombstone || read.shown.contains(&write.content);
            let replaced = covered.iter().any(|(other, by)| other != id && by.replaces(write));
            if !shown && !replaced {
                let what =
                    format!("{id:?} is covered by the context, and neither shown nor replaced");
                problems.push(("F: nothing vanishes", what));
            }
        }
        for (check, what) in problems {
            self.report(check, read.at, what);
        }
    }

    /// Every write that was acknowledged before the read began is in what the read stands for.
    fn check_latest(&mut self, read: &ReadSeen<'_>) {
        let missed: Vec<_> = self
            .writes_of(read.key)
            .filter(|(_, write)| write.precedes(read.invoked, read.strength))
            .filter(|(_, write)| !write.is_in(read.context))
            .map(|(id, _)| {
                format!("{id:?} was acknowledged before, and is not in {:?}", read.context)
            })
            .collect();
        for what in missed {
            self.report("A, G: acknowledged writes are read", read.at, what);
        }
    }

    /// Under last-write-wins what is shown is no older than any write acknowledged before.
    fn check_lww(&mut self, read: &ReadSeen<'_>) {
        let shown = self.writes_of(read.key).find(|(_, write)| {
            read.shown.contains(&write.content)
                && write.issued.keys().any(|dot| read.context.covers(*dot))
        });
        let mut problems = Vec::new();
        for (id, write) in self.writes_of(read.key) {
            let Fate::Acknowledged { strength, floor, .. } = &write.fate else { continue };
            if !write.precedes(read.invoked, read.strength) {
                continue;
            }
            let Some((shown_id, shown)) = shown else {
                problems.push(format!("{id:?} was acknowledged before, and nothing is shown"));
                continue;
            };
            let overtaken = match &shown.fate {
                // The one shown was done before this one began, so this one is the later. Of one that
                // was issued twice, by a retry, the second time may have been after.
                Fate::Acknowledged { at, strength: of_shown, .. } => {
                    *at < write.invoked && of_shown.overlaps(strength) && shown.issued.len() == 1
                }
                _ => false,
            };
            if id != shown_id && (overtaken || read.latest < *floor) {
                problems.push(format!("{id:?} is later than {shown_id:?}, which is shown"));
            }
        }
        for what in problems {
            self.report("A, G: the latest lww write is read", read.at, what);
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

    /// Whether it was acknowledged before a moment, by replicas that a read of this strength meets.
    fn precedes(&self, moment: Moment, read: &Strength) -> bool {
        match &self.fate {
            Fate::Acknowledged { at, strength, .. } => *at < moment && strength.overlaps(read),
            _ => false,
        }
    }
}

fn dots_of(context: &Context) -> impl Iterator<Item = Dot> {
    let vector = context.vector().iter();
    // Bounded: a count that nobody can have reached in a run is reported by its first dots.
    let run = vector.flat_map(|(actor, count)| {
        (1..=count.min(10_000)).map(move |counter| Dot { actor, counter })
    });
    run.chain(context.beyond().iter().copied())
}
