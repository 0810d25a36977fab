//! The walk of a unit: from the root of the tree to the keys that differ.

use std::collections::{BTreeMap, BTreeSet};

use anello_protocol::{
    id::KeyspaceId,
    key::{DataKey, KeyHash},
    merkle::{EntryDigest, HashRange},
    message::repair::{CompareKeys, CompareRanges, KeysDiffer, MAX_KEYS, MAX_RANGES},
    version::VersionsDigest,
};

use super::{Differing, Exchange, Failure, SETTLE, Suspect, expect, transfer::Move};
use crate::{
    desk::{Desk, Owner},
    events::{CallFailure, Incoming, Outgoing, Report},
    looking::{FEW_KEYS, Look, Looked, digest_of},
    store::Entry,
};

/// The most ranges whose keys wait for a second look.
const SUSPECTS_MAX: usize = 64;
/// The most ranges that wait for their keys to be compared, before a batch adds to them.
const BY_KEYS_MAX: usize = 256;
/// The most keys that wait to be moved, before a range adds to them.
const MOVES_MAX: usize = 1024;
/// How often a range is looked at before what still changes is left to the next comparison.
const LOOKS_MAX: u8 = 4;
/// A range of few enough keys is compared by all of them if more than so many of its children differ.
const MOST_CHILDREN: u32 = 8;

/// What the walk waits for.
#[derive(Debug)]
pub(super) enum Step {
    Idle,
    /// What these ranges hold here.
    Looking(Vec<HashRange>),
    /// Which children differ there; with how many keys there are here, as far as they were counted.
    Comparing(Vec<(HashRange, Option<usize>)>),
    /// Which keys a range has here.
    LookingAtKeys(Probe),
    /// Which keys differ there, from these.
    ComparingKeys(Probe, Vec<Entry>),
}

/// A look at the keys of a range.
#[derive(Debug)]
pub(super) struct Probe {
    range: HashRange,
    /// How often it has been looked at.
    looks: u8,
    /// What differed the last time.
    seen: Differing,
}

impl Exchange {
    /// Asks the next question of the walk, if there is one and room for its answer.
    pub(super) fn step(&mut self, desk: &mut Desk) {
        if !self.may_walk() {
            return;
        }
        let owner = Owner::Walk(self.id);
        let keyspace = self.keyspace;
        if let Some(suspect) = self.suspects.pop_front_if(|it| it.due <= desk.now.moment) {
            let Suspect { range, looks, seen, .. } = suspect;
            desk.look(owner, Look::Keys { keyspace, range });
            self.step = Step::LookingAtKeys(Probe { range, looks, seen });
        } else if self.suspects.len() < SUSPECTS_MAX
            && let Some(range) = self.by_keys.pop()
        {
            desk.look(owner, Look::Keys { keyspace, range });
            self.step = Step::LookingAtKeys(Probe { range, looks: 0, seen: Differing::default() });
        } else if self.by_keys.len() < BY_KEYS_MAX && !self.frontier.is_empty() {
            let from = self.frontier.len().saturating_sub(MAX_RANGES);
            let ranges = self.frontier.split_off(from);
            let of = desk.partitions();
            let partition = self.partition;
            desk.look(owner, Look::Ranges { keyspace, partition, of, ranges: ranges.clone() });
            self.step = Step::Looking(ranges);
        }
    }

    /// Whether there is room for what another question may find.
    pub(super) fn may_walk(&self) -> bool {
        matches!(self.step, Step::Idle) && self.moves.len() < MOVES_MAX
    }

    /// The store has been looked at.
    pub(crate) fn looked(&mut self, desk: &mut Desk, looked: Looked) {
        match (std::mem::replace(&mut self.step, Step::Idle), looked) {
            (Step::Looking(ranges), Looked::Ranges(seen)) => {
                let mut asked = Vec::new();
                let mut message = Vec::new();
                for (range, seen) in ranges.into_iter().zip(seen) {
                    let is_small = seen.keys.is_some_and(|keys| keys <= FEW_KEYS);
                    if is_small || range.children().is_none() {
                        self.by_keys.push(range);
                    } else {
                        asked.push((range, seen.keys));
                        message.push((range, seen.children));
                    }
                }
                self.compare(desk, asked, message);
            }
            (Step::LookingAtKeys(probe), Looked::Keys(found)) => {
                if found.has_more && probe.range.children().is_some() {
                    // It has grown, or was never counted.
                    self.frontier.push(probe.range);
                    return;
                }
                self.compare_keys(desk, probe, found.entries);
            }
            (step, Looked::Untrusted) => {
                desk.untrusted.insert((self.keyspace, self.partition));
                self.put_back(desk, step);
                self.failed(desk, &Failure::Here);
            }
            (step, looked) => {
                if let Looked::Failed(sentence) = looked {
                    desk.report(Report::StoreFailed(sentence));
                }
                self.put_back(desk, step);
                self.failed(desk, &Failure::Here);
            }
        }
    }

    /// The other side has answered, or not.
    pub(crate) fn answered(&mut self, desk: &mut Desk, outcome: Result<Incoming, CallFailure>) {
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Comparing(asked) => {
                let masks = expect(outcome, |incoming| match incoming {
                    Incoming::Ranges(masks) => Some(masks),
                    _ => None,
                });
                match masks {
                    Ok(masks) if masks.len() == asked.len() => self.compared(asked, masks),
                    Ok(_) => self.retry(desk, Step::Comparing(asked), &Failure::Here),
                    Err(failure) => self.retry(desk, Step::Comparing(asked), &failure),
                }
            }
            Step::ComparingKeys(probe, entries) => {
                let differ = expect(outcome, |incoming| match incoming {
                    Incoming::Keys(differ) => Some(differ),
                    _ => None,
                });
                match differ {
                    Ok(differ) if is_sound(&differ, &probe) => {
                        self.failures = 0;
                        self.keys_compared(desk, probe, entries, differ);
                    }
                    Ok(_) => self.retry(desk, Step::LookingAtKeys(probe), &Failure::Here),
                    Err(failure) => self.retry(desk, Step::LookingAtKeys(probe), &failure),
                }
            }
            step => self.step = step,
        }
    }

    fn compare(
        &mut self,
        desk: &mut Desk,
        asked: Vec<(HashRange, Option<usize>)>,
        ranges: Vec<(HashRange, [EntryDigest; anello_protocol::merkle::CHILDREN])>,
    ) {
        if asked.is_empty() {
            return;
        }
        desk.counts.hashes_compared += ranges.len() as u64 * 16;
        let (epoch, keyspace, partition) = (desk.epoch(), self.keyspace, self.partition);
        let message = CompareRanges { epoch, keyspace, partition, ranges };
        desk.send(Owner::Walk(self.id), &self.peer, Outgoing::Ranges(message));
        self.step = Step::Comparing(asked);
    }

    fn compared(&mut self, asked: Vec<(HashRange, Option<usize>)>, masks: Vec<u16>) {
        self.failures = 0;
        for ((range, keys), mask) in asked.into_iter().zip(masks) {
            let children = range.children().into_iter().flatten().enumerate();
            let differing = children.filter(|(child, _)| mask & 1 << child != 0);
            match keys {
                // One question about all keys is less than one about each child's.
                Some(_) if mask.count_ones() > MOST_CHILDREN => self.by_keys.push(range),
                _ => self.frontier.extend(differing.map(|(_, child)| child)),
            }
        }
    }

    fn compare_keys(&mut self, desk: &mut Desk, mut probe: Probe, found: Vec<Entry>) {
        let mut mine = by_hash(&found);
        let is_whole = probe.looks == 0;
        if !is_whole {
            self.move_missing(&mut probe.seen, &mine);
            if probe.seen.digests.is_empty() {
                return;
            }
            let of = |hash| (hash, mine.get(&hash).copied().unwrap_or_default());
            mine = probe.seen.digests.keys().copied().map(of).collect();
        }
        desk.counts.hashes_compared += mine.len() as u64;
        let (epoch, keyspace, partition) = (desk.epoch(), self.keyspace, self.partition);
        let (range, entries) = (probe.range, mine.into_iter().collect());
        let keys = CompareKeys { epoch, keyspace, partition, range, entries, is_whole };
        desk.send(Owner::Walk(self.id), &self.peer, Outgoing::Keys(keys));
        self.step = Step::ComparingKeys(probe, found);
    }

    /// What the other side held at the last look, and is not here yet, is no question any more.
    fn move_missing(&mut self, seen: &mut Differing, mine: &BTreeMap<KeyHash, EntryDigest>) {
        for (key, theirs) in std::mem::take(&mut seen.missing) {
            if !mine.contains_key(&key.hash) {
                seen.digests.remove(&key.hash);
                self.moves.push_back(Move::new(key, None, Some(theirs)));
            }
        }
    }

    fn keys_compared(
        &mut self,
        desk: &mut Desk,
        probe: Probe,
        entries: Vec<Entry>,
        differ: KeysDiffer,
    ) {
        if differ.is_too_large && probe.range.children().is_some() {
            return self.too_large(desk, probe.range, &entries);
        }
        // More keys of one hash than can be told apart: only somebody who looks for them finds them.
        self.is_unresolved |= differ.is_too_large;
        let mine = by_hash(&entries);
        let theirs = held_by_hash(self.keyspace, &differ);
        let pair = |hash: &KeyHash| {
            let of = |side: &BTreeMap<KeyHash, EntryDigest>| side.get(hash).copied();
            (of(&mine).unwrap_or_default(), of(&theirs).unwrap_or_default())
        };
        // Where nothing is held yet, next to all of it was there for long.
        let is_bare = self.is_filling && probe.looks == 0 && entries.is_empty();
        let mut moving = BTreeSet::new();
        let mut left = BTreeMap::new();
        for hash in differ.lacking.iter().chain(theirs.keys()) {
            let pair = pair(hash);
            if is_bare || probe.seen.digests.get(hash) == Some(&pair) {
                // The same as before: nothing is on its way.
                moving.insert(*hash);
            } else {
                left.insert(*hash, pair);
            }
        }
        let looks = probe.looks + 1;
        let is_last = looks >= LOOKS_MAX;
        if is_last && (self.is_filling || desk.quarantined.contains(&self.partition)) {
            // A quarantine must end under writes as well, and so must a change of the ring. What is written
            // from here on comes here by itself, so it is enough to have what the other side holds at this
            // moment.
            moving.extend(std::mem::take(&mut left).into_keys());
        }
        self.moves.extend(moves(self.keyspace, &entries, &differ, |hash| moving.contains(&hash)));
        if left.is_empty() {
            return;
        }
        if is_last {
            self.is_unsettled = true;
            return;
        }
        let is_missing = |hash: &KeyHash| left.contains_key(hash) && !mine.contains_key(hash);
        let missing = differ.held.into_iter().filter(|(_, hash, _)| is_missing(hash));
        let keyspace = self.keyspace;
        let missing =
            missing.map(|(key, hash, digest)| (DataKey { hash, keyspace, key }, digest)).collect();
        let (due, seen) = (desk.now.moment + SETTLE, Differing { digests: left, missing });
        self.suspects.push_back(Suspect { range: probe.range, due, looks, seen });
    }

    /// There is more on the other side than fits into an answer: its parts are compared.
    fn too_large(&mut self, desk: &mut Desk, range: HashRange, entries: &[Entry]) {
        let mut children = [EntryDigest::default(); anello_protocol::merkle::CHILDREN];
        for entry in entries {
            children[range.child_of(entry.key.hash)].toggle(digest_of(entry));
        }
        self.compare(desk, vec![(range, None)], vec![(range, children)]);
    }

    fn retry(&mut self, desk: &mut Desk, step: Step, failure: &Failure) {
        self.put_back(desk, step);
        self.failed(desk, failure);
    }

    /// What a question was about is asked again later.
    fn put_back(&mut self, desk: &Desk, step: Step) {
        match step {
            Step::Idle => {}
            Step::Looking(ranges) => self.frontier.extend(ranges),
            Step::Comparing(asked) => self.frontier.extend(asked.into_iter().map(|(it, _)| it)),
            Step::LookingAtKeys(probe) | Step::ComparingKeys(probe, _) => match probe.looks {
                0 => self.by_keys.push(probe.range),
                looks => {
                    let Probe { range, seen, .. } = probe;
                    let due = desk.now.moment;
                    self.suspects.push_front(Suspect { range, due, looks, seen });
                }
            },
        }
    }
}

/// Which keys are to be moved, of those hashes that differ.
fn moves(
    keyspace: KeyspaceId,
    entries: &[Entry],
    differ: &KeysDiffer,
    is_moving: impl Fn(KeyHash) -> bool,
) -> Vec<Move> {
    let mut keys: BTreeMap<DataKey, (Option<VersionsDigest>, Option<VersionsDigest>)> =
        BTreeMap::new();
    for entry in entries.iter().filter(|entry| is_moving(entry.key.hash)) {
        keys.entry(entry.key.clone()).or_default().0 = Some(entry.digest);
    }
    for (key, hash, digest) in differ.held.iter().filter(|(_, hash, _)| is_moving(*hash)) {
        let key = DataKey { hash: *hash, keyspace, key: key.clone() };
        keys.entry(key).or_default().1 = Some(*digest);
    }
    let differing = keys.into_iter().filter(|(_, (mine, theirs))| mine != theirs);
    differing.map(|(key, (mine, theirs))| Move::new(key, mine, theirs)).collect()
}

/// The digests of the keys of each hash, together.
pub(crate) fn by_hash(entries: &[Entry]) -> BTreeMap<KeyHash, EntryDigest> {
    let mut hashes: BTreeMap<KeyHash, EntryDigest> = BTreeMap::new();
    for entry in entries {
        hashes.entry(entry.key.hash).or_default().toggle(digest_of(entry));
    }
    hashes
}

fn held_by_hash(keyspace: KeyspaceId, differ: &KeysDiffer) -> BTreeMap<KeyHash, EntryDigest> {
    let mut hashes: BTreeMap<KeyHash, EntryDigest> = BTreeMap::new();
    for (key, hash, digest) in &differ.held {
        let key = DataKey { hash: *hash, keyspace, key: key.clone() };
        hashes.entry(*hash).or_default().toggle(EntryDigest::of(&key, *digest));
    }
    hashes
}

/// Whether an answer is about what was asked, and within its bounds.
fn is_sound(differ: &KeysDiffer, probe: &Probe) -> bool {
    let is_asked = |hash: &KeyHash| match probe.looks {
        0 => probe.range.contains(*hash),
        _ => probe.seen.digests.contains_key(hash),
    };
    differ.lacking.len() <= MAX_KEYS
        && differ.held.len() <= MAX_KEYS
        && differ.lacking.iter().all(is_asked)
        && differ.held.iter().all(|(_, hash, _)| is_asked(hash))
}
