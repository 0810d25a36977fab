//! What is checked of a read: that it shows what was sent, as it was sent, the latest of it, and nothing that
//! was deleted and forgotten.

use anello_protocol::{
    causality::{Context, Dot},
    consistency::QuorumKind,
    key::DataKey,
    time::{HybridTime, Moment},
    version::{ConflictRule, Content},
};

use super::{Fate, Model, Strength};

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
    /// Whether stand-ins counted.
    pub quorum: QuorumKind,
    /// Whether it is read when all has been mended, and is to show everything.
    pub is_final: bool,
    /// What was shown.
    pub shown: &'a [Content],
    /// The latest time of what was shown.
    pub latest: HybridTime,
    /// The context that came with it.
    pub context: &'a Context,
}

impl Model {
    /// A read is answered.
    pub fn read(&mut self, read: &ReadSeen<'_>) {
        self.check_shown(read);
        self.check_deleted(read);
        match read.rule {
            ConflictRule::Siblings => {
                self.check_context(read);
                self.check_latest(read);
            }
            ConflictRule::Lww => self.check_lww(read),
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
            .filter(|(_, write)| write.precedes(read))
            .filter(|(_, write)| !write.is_in(read.context) && !self.is_forgotten(write))
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
            let Fate::Acknowledged { strength, floor, is_strong, .. } = &write.fate else {
                continue;
            };
            if !write.precedes(read) || self.is_forgotten(write) {
                continue;
            }
            let Some((shown_id, shown)) = shown else {
                problems.push(format!("{id:?} was acknowledged before, and nothing is shown"));
                continue;
            };
            let overtaken = match &shown.fate {
                // The one shown was done before this one began, so this one is the later. Of one that
                // was issued twice, by a retry, the second time may have been after.
                Fate::Acknowledged {
                    at, strength: of_shown, is_strong: shown_is_strong, ..
                } => {
                    let meet = *is_strong && *shown_is_strong && of_shown.overlaps(strength);
                    *at < write.invoked && meet && shown.issued.len() == 1
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
}

pub(super) fn dots_of(context: &Context) -> impl Iterator<Item = Dot> {
    let vector = context.vector().iter();
    // Bounded: a count that nobody can have reached in a run is reported by its first dots.
    let run = vector.flat_map(|(actor, count)| {
        (1..=count.min(10_000)).map(move |counter| Dot { actor, counter })
    });
    run.chain(context.beyond().iter().copied())
}
