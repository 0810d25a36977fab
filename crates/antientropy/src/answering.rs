//! Answering what other nodes ask. A question is judged, the store is looked at, and the answer given;
//! nothing is remembered after that.
//!
//! Invariants: each question is answered exactly once; past a bound of those being answered it is refused
//! before anything is done for it; a stranger's lists are measured before they are used.

use std::collections::BTreeMap;

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    key::KeyHash,
    merkle::{CHILDREN, EntryDigest, HashRange},
    message::{
        repair::{
            CompareKeys, CompareRanges, CompareRoots, KeysDiffer, MAX_KEYS, MAX_RANGES, MAX_ROOTS,
        },
        replica::Refusal,
    },
};

use crate::{
    desk::{Desk, Owner},
    events::{Question, Reply, Report, Ticket, Token},
    exchange::by_hash,
    looking::{Look, Looked, Seen},
    schedule::Held,
    store::{Entries, Entry},
};

/// The most questions that are being answered.
const QUESTIONS_MAX: usize = 64;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Answering {
    questions: BTreeMap<Ticket, Asked>,
}

#[derive(Debug)]
struct Asked {
    token: Token,
    from: Option<NodeId>,
    question: Question,
}

/// What another node has learned of trees that it shares with this one.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) peer: NodeId,
    /// Under which state this node looked at its own; none if it was the other that asked. That one may be
    /// quarantined, and what it holds says nothing then of what it has acknowledged.
    pub(crate) began: Option<Epoch>,
    pub(crate) keyspace: KeyspaceId,
    /// Each with whether it differs.
    pub(crate) partitions: Vec<(PartitionId, bool)>,
}

/// Why a question is not answered.
enum No {
    Refusal(Refusal),
    Malformed(&'static str),
}

impl Answering {
    pub(crate) fn asked(
        &mut self,
        desk: &mut Desk,
        held: &Held,
        token: Token,
        from: Option<NodeId>,
        question: Question,
    ) {
        let look = judge(desk, held, &question).and_then(|look| match self.questions.len() {
            QUESTIONS_MAX.. => Err(No::Refusal(Refusal::Busy)),
            _ => Ok(look),
        });
        match look {
            Ok(look) => {
                let ticket = desk.look(Owner::Answer, look);
                self.questions.insert(ticket, Asked { token, from, question });
            }
            Err(No::Refusal(refusal)) => desk.reply(token, refused(&question, refusal)),
            Err(No::Malformed(sentence)) => desk.reply(token, Reply::Malformed(sentence)),
        }
    }

    /// What was seen in the store; says what the asker learns of roots.
    pub(crate) fn looked(
        &mut self,
        desk: &mut Desk,
        ticket: Ticket,
        looked: Looked,
    ) -> Option<Compared> {
        let Asked { token, from, question } = self.questions.remove(&ticket)?;
        let mut compared = None;
        let reply = match (&question, looked) {
            (Question::Roots(roots), Looked::Roots(own)) => {
                let (differing, partitions) = compare_roots(desk, roots, &own);
                let (began, keyspace) = (None, roots.keyspace);
                compared = from.map(|peer| Compared { peer, began, keyspace, partitions });
                Reply::Roots(Ok(differing))
            }
            (Question::Ranges(ranges), Looked::Ranges(own)) => {
                desk.counts.hashes_compared += (own.len() * CHILDREN) as u64;
                Reply::Ranges(Ok(compare_ranges(ranges, &own)))
            }
            (Question::Keys(keys), Looked::Keys(own)) => {
                desk.counts.hashes_compared += own.entries.len() as u64;
                Reply::Keys(Ok(compare_keys(keys, own)))
            }
            (Question::Ranges(ranges), Looked::Untrusted) => {
                desk.untrusted.insert((ranges.keyspace, ranges.partition));
                refused(&question, Refusal::Busy)
            }
            (question, Looked::Failed(sentence)) => {
                desk.report(Report::StoreFailed(sentence.clone()));
                refused(question, Refusal::Storage(sentence))
            }
            (question, _) => refused(question, Refusal::Busy),
        };
        desk.reply(token, reply);
        compared
    }
}

/// What has to be looked at for an answer, or why there is none.
fn judge(desk: &Desk, held: &Held, question: &Question) -> Result<Look, No> {
    match question {
        Question::Roots(roots) => {
            let partitions = roots.sums.iter().flat_map(|sum| sum.partitions());
            let partitions: Vec<_> = partitions.take(MAX_ROOTS + 1).collect();
            if partitions.len() > MAX_ROOTS {
                return Err(No::Malformed("too many roots"));
            }
            is_current(desk, roots.epoch)?;
            let keyspace = roots.keyspace;
            if !partitions.iter().all(|partition| held.contains((keyspace, *partition))) {
                return Err(No::Refusal(Refusal::NotOwner));
            }
            Ok(Look::Roots { keyspace, partitions })
        }
        Question::Ranges(ranges) => {
            if ranges.ranges.len() > MAX_RANGES {
                return Err(No::Malformed("too many ranges"));
            }
            let CompareRanges { epoch, keyspace, partition, .. } = *ranges;
            let of = is_held(desk, held, epoch, keyspace, partition)?;
            let ranges: Vec<_> = ranges.ranges.iter().map(|(range, _)| *range).collect();
            let are_nodes = ranges
                .iter()
                .all(|range| is_node(*range, partition, of) && range.children().is_some());
            if !are_nodes {
                return Err(No::Malformed("a range that is no node of the tree"));
            }
            Ok(Look::Ranges { keyspace, partition, of, ranges })
        }
        Question::Keys(keys) => {
            if keys.entries.len() > MAX_KEYS {
                return Err(No::Malformed("too many keys"));
            }
            let CompareKeys { epoch, keyspace, partition, range, .. } = *keys;
            let of = is_held(desk, held, epoch, keyspace, partition)?;
            let is_inside = keys.entries.iter().all(|(hash, _)| range.contains(*hash));
            if !is_node(range, partition, of) || !is_inside {
                return Err(No::Malformed("a range that is no node of the tree"));
            }
            Ok(Look::Keys { keyspace, range })
        }
    }
}

fn is_node(range: HashRange, partition: PartitionId, of: u32) -> bool {
    range.level(of).is_some() && HashRange::of_partition(partition, of).contains(range.first())
}

fn is_held(
    desk: &Desk,
    held: &Held,
    epoch: Epoch,
    keyspace: KeyspaceId,
    partition: PartitionId,
) -> Result<u32, No> {
    is_current(desk, epoch)?;
    if !held.contains((keyspace, partition)) {
        return Err(No::Refusal(Refusal::NotOwner));
    }
    if desk.quarantined.contains(&partition) {
        return Err(No::Refusal(Refusal::Quarantined));
    }
    Ok(desk.partitions())
}

fn is_current(desk: &Desk, epoch: Epoch) -> Result<(), No> {
    let own = desk.epoch();
    if epoch < own {
        return Err(No::Refusal(Refusal::StaleEpoch(own)));
    }
    if epoch > own || desk.view.is_none() {
        return Err(No::Refusal(Refusal::Behind(own)));
    }
    Ok(())
}

fn refused(question: &Question, refusal: Refusal) -> Reply {
    match question {
        Question::Roots(_) => Reply::Roots(Err(refusal)),
        Question::Ranges(_) => Reply::Ranges(Err(refusal)),
        Question::Keys(_) => Reply::Keys(Err(refusal)),
    }
}

/// The sums that differ, and what that says of single partitions.
fn compare_roots(
    desk: &mut Desk,
    asked: &CompareRoots,
    own: &[Option<EntryDigest>],
) -> (Vec<PartitionId>, Vec<(PartitionId, bool)>) {
    desk.counts.hashes_compared += asked.sums.len() as u64;
    let mut own = own.iter();
    let mut differing = Vec::new();
    let mut partitions = Vec::with_capacity(own.len());
    for sum in &asked.sums {
        let mut rest = sum.digest;
        let mut is_shown = true;
        for (partition, own) in sum.partitions().zip(&mut own) {
            match own {
                Some(root) => rest.toggle(*root),
                None => drop(desk.untrusted.insert((asked.keyspace, partition))),
            }
            // What is shown to nobody can't be equal.
            is_shown &= own.is_some() && !desk.quarantined.contains(&partition);
        }
        let differs = !is_shown || rest != EntryDigest::default();
        if differs {
            differing.push(sum.first);
        }
        // Which of several differ the other node asks next.
        if !differs || sum.others == 0 {
            partitions.extend(sum.partitions().map(|partition| (partition, differs)));
        }
    }
    (differing, partitions)
}

fn compare_ranges(asked: &CompareRanges, own: &[Seen]) -> Vec<u16> {
    let pairs = asked.ranges.iter().zip(own);
    let mask = |((_, theirs), own): (&(HashRange, [EntryDigest; CHILDREN]), &Seen)| {
        let children = own.children.iter().zip(theirs).enumerate();
        let differing = children.filter(|(_, (own, theirs))| own != theirs);
        differing.fold(0, |mask, (child, _)| mask | 1 << child)
    };
    pairs.map(mask).collect()
}

fn compare_keys(asked: &CompareKeys, own: Entries) -> KeysDiffer {
    let Entries { entries, has_more } = own;
    if has_more && asked.range.children().is_some() {
        return KeysDiffer { lacking: Vec::new(), held: Vec::new(), is_too_large: true };
    }
    let theirs: BTreeMap<KeyHash, EntryDigest> = asked.entries.iter().copied().collect();
    let mine = by_hash(&entries);
    let lacks = |(hash, digest): &(&KeyHash, &EntryDigest)| {
        **digest != EntryDigest::default() && !mine.contains_key(hash)
    };
    let lacking = theirs.iter().filter(lacks).map(|(hash, _)| *hash).collect();
    let differs = |entry: &Entry| {
        let hash = &entry.key.hash;
        let is_asked = asked.is_whole || theirs.contains_key(hash);
        is_asked && mine.get(hash) != theirs.get(hash)
    };
    let differing = entries.into_iter().filter(differs);
    let held = differing.map(|entry| (entry.key.key, entry.key.hash, entry.digest)).collect();
    KeysDiffer { lacking, held, is_too_large: has_more }
}
