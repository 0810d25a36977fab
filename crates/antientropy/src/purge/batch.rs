//! One page of a partition's tombstones on its way through the proof: what is asked of whom, what the
//! answers mean, and which step comes next. Why these steps are a proof is said in the parent's head.
//!
//! Invariants: a step begins once every question of the one before has its answer, so the moment at which
//! it begins is that of the last answer; a key whose answers are not as they must be leaves the batch, and
//! nothing more is asked for it.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    message::{
        hint::CheckHints,
        repair::{PurgeVersions, Purged},
        replica::{Held, ReadVersions, Want},
    },
    time::Moment,
    version::VersionsDigest,
};
use anello_ring::view::Placement;

use super::{
    config::PurgeConfig,
    events::{CallFailure, Incoming, Outgoing},
    figures::WaitReason,
};
use crate::store::Tombstone;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) place: (KeyspaceId, PartitionId),
    epoch: Epoch,
    placement: Arc<Placement>,
    /// Which of the replicas this node is.
    own: usize,
    /// Whoever could keep a hint.
    members: Arc<[NodeId]>,
    step: Step,
    began: Moment,
    keys: Vec<Doomed>,
    /// What has no answer yet.
    asks: BTreeMap<u32, Ask>,
    next_ask: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Up to t0.
    Confirm,
    Settle,
    /// Up to t1.
    CheckHints,
    SettleAgain,
    /// Up to t2.
    ConfirmAgain,
    PurgeOthers,
    PurgeOwn,
}

/// A key that may go.
#[derive(Debug)]
struct Doomed {
    tombstone: Tombstone,
    /// Which replicas held the tombstones at t0; the others held nothing.
    held: Vec<bool>,
    /// Whether it is still on its way through the proof.
    is_in: bool,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Read { key: usize, replica: usize },
    Check { member: usize },
    Purge { key: usize, replica: usize },
}

#[derive(Debug)]
struct Ask {
    question: Question,
    failures: u32,
}

/// What follows from an answer.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Ask again at that moment.
    pub(super) retry_at: Option<Moment>,
    /// Keys that leave the batch, and why.
    pub(super) waits: Option<(WaitReason, u64)>,
    /// Keys that every replica has forgotten.
    pub(super) purged: u64,
}

/// What a batch does once its step is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// These questions.
    Ask(Vec<u32>),
    /// Nothing until then.
    Settle(Moment),
    /// Nothing ever.
    End,
}

impl Batch {
    /// A batch that has done nothing yet; [`Batch::proceed`] begins it.
    pub(super) fn new(
        place: (KeyspaceId, PartitionId),
        epoch: Epoch,
        placement: Arc<Placement>,
        own: usize,
        members: Arc<[NodeId]>,
        tombstones: Vec<Tombstone>,
    ) -> Self {
        let replicas = placement.replicas.len();
        let doomed = |tombstone| Doomed { tombstone, held: vec![false; replicas], is_in: true };
        Self {
            place,
            epoch,
            placement,
            own,
            members,
            step: Step::Confirm,
            began: Moment::default(),
            keys: tombstones.into_iter().map(doomed).collect(),
            asks: BTreeMap::new(),
            next_ask: 0,
        }
    }

    /// How many keys are on their way through it.
    pub(super) fn len(&self) -> u64 {
        self.keys.iter().filter(|key| key.is_in).count() as u64
    }

    /// Begins the first step.
    pub(super) fn begin(&mut self, now: Moment, config: &PurgeConfig) -> Next {
        self.enter(now, config, Step::Confirm)
    }

    /// Whether the step's questions all have their answers.
    pub(super) fn is_step_over(&self) -> bool {
        self.asks.is_empty()
    }

    /// Goes on to the next step, once this one is over.
    pub(super) fn proceed(&mut self, now: Moment, config: &PurgeConfig) -> Next {
        let next = match self.step {
            Step::Confirm => Step::Settle,
            Step::Settle => Step::CheckHints,
            Step::CheckHints => Step::SettleAgain,
            Step::SettleAgain => Step::ConfirmAgain,
            Step::ConfirmAgain => Step::PurgeOthers,
            Step::PurgeOthers => Step::PurgeOwn,
            Step::PurgeOwn => return Next::End,
        };
        self.enter(now, config, next)
    }

    fn enter(&mut self, now: Moment, config: &PurgeConfig, step: Step) -> Next {
        self.step = step;
        self.began = now;
        if self.len() == 0 {
            return Next::End;
        }
        let keys = 0..self.keys.len();
        let replicas = 0..self.placement.replicas.len();
        let (own, is_in) = (self.own, |key: &usize| self.keys[*key].is_in);
        let questions: Vec<Question> = match step {
            Step::Settle | Step::SettleAgain => return Next::Settle(now + config.settle),
            Step::Confirm | Step::ConfirmAgain => keys
                .filter(is_in)
                .flat_map(|key| {
                    replicas.clone().map(move |replica| Question::Read { key, replica })
                })
                .collect(),
            Step::CheckHints => {
                (0..self.members.len()).map(|member| Question::Check { member }).collect()
            }
            Step::PurgeOthers => keys
                .filter(is_in)
                .flat_map(|key| {
                    let others = replicas.clone().filter(move |replica| *replica != own);
                    others.map(move |replica| Question::Purge { key, replica })
                })
                .collect(),
            Step::PurgeOwn => {
                keys.filter(is_in).map(|key| Question::Purge { key, replica: own }).collect()
            }
        };
        if questions.is_empty() {
            // There are no other replicas.
            return self.proceed(now, config);
        }
        let mut asked = Vec::with_capacity(questions.len());
        for question in questions {
            self.asks.insert(self.next_ask, Ask { question, failures: 0 });
            asked.push(self.next_ask);
            self.next_ask += 1;
        }
        Next::Ask(asked)
    }

    /// The message of a question, and to whom; nothing if the answer is of no use any more.
    pub(super) fn message(&self, ask: u32) -> Option<(NodeId, Outgoing)> {
        let (epoch, replicas) = (self.epoch, &self.placement.replicas);
        let tombstone = |key: usize| &self.keys[key].tombstone;
        Some(match self.asks.get(&ask)?.question {
            Question::Read { key, replica } => {
                let key = tombstone(key).key.clone();
                let read = ReadVersions { epoch, key, want: Want::Digest };
                (replicas[replica].id.clone(), Outgoing::Read(read))
            }
            Question::Check { member } => {
                let keys = self.keys.iter().filter(|key| key.is_in);
                let keys = keys.map(|key| key.tombstone.key.clone()).collect();
                (self.members[member].clone(), Outgoing::Check(CheckHints { keys }))
            }
            Question::Purge { key, replica } => {
                let Tombstone { key, digest, .. } = tombstone(key).clone();
                let purge = PurgeVersions { epoch, key, digest };
                (replicas[replica].id.clone(), Outgoing::Purge(purge))
            }
        })
    }

    /// Whether a question still needs its answer.
    pub(super) fn waits_for(&self, ask: u32) -> bool {
        self.asks.contains_key(&ask)
    }

    /// Takes an answer in. `about` are the keys that a check was about, see [`Batch::checked_keys`].
    pub(super) fn answered(
        &mut self,
        now: Moment,
        config: &PurgeConfig,
        ask: u32,
        about: &[usize],
        outcome: Result<Incoming, CallFailure>,
    ) -> Outcome {
        let Some(Ask { question, failures }) = self.asks.remove(&ask) else {
            return Outcome::default();
        };
        match (question, outcome) {
            (Question::Read { key, replica }, Ok(Incoming::Read(Ok(held)))) => {
                self.read(key, replica, held)
            }
            (Question::Check { member }, Ok(Incoming::Checked(Ok(kept))))
                if kept.len() == about.len() =>
            {
                let of = about.iter().zip(kept).filter(|(_, is_kept)| *is_kept);
                let keys: Vec<_> = of.map(|(key, _)| *key).collect();
                self.take_out(&keys, WaitReason::HintKept(self.members[member].clone()))
            }
            (Question::Purge { key, replica }, Ok(Incoming::Purged(Ok(purged)))) => {
                self.purged(key, replica, purged)
            }
            (question, outcome) => self.failed(now, config, ask, question, failures + 1, &outcome),
        }
    }

    /// The keys that a check which is sent at this moment is about.
    pub(super) fn checked_keys(&self) -> Vec<usize> {
        (0..self.keys.len()).filter(|key| self.keys[*key].is_in).collect()
    }

    fn read(&mut self, key: usize, replica: usize, held: Held) -> Outcome {
        let digest = match held {
            Held::Digest(digest) => digest,
            Held::Full(versions) => versions.digest(),
        };
        let doomed = &mut self.keys[key];
        let is_same = digest == doomed.tombstone.digest;
        let is_nothing = digest == VersionsDigest::default();
        let is_confirmed = match self.step {
            Step::Confirm => {
                doomed.held[replica] = is_same;
                is_same || is_nothing
            }
            // What has come in between says nothing of what was there before it.
            _ => is_nothing || (is_same && doomed.held[replica]),
        };
        match is_confirmed {
            true => Outcome::default(),
            false => {
                let node = self.placement.replicas[replica].id.clone();
                self.take_out(&[key], WaitReason::HoldsElse(node))
            }
        }
    }

    fn purged(&mut self, key: usize, replica: usize, purged: Purged) -> Outcome {
        match purged {
            Purged::Kept => {
                let node = self.placement.replicas[replica].id.clone();
                self.take_out(&[key], WaitReason::HoldsElse(node))
            }
            Purged::Gone if self.step == Step::PurgeOwn => {
                self.keys[key].is_in = false;
                Outcome { purged: 1, ..Outcome::default() }
            }
            Purged::Gone => Outcome::default(),
        }
    }

    /// Asks again, or gives up until the next pass.
    fn failed(
        &mut self,
        now: Moment,
        config: &PurgeConfig,
        ask: u32,
        question: Question,
        failures: u32,
        outcome: &Result<Incoming, CallFailure>,
    ) -> Outcome {
        let again = now + config.backoff_after(failures);
        if again <= self.began + config.persistence {
            self.asks.insert(ask, Ask { question, failures });
            return Outcome { retry_at: Some(again), ..Outcome::default() };
        }
        match question {
            Question::Read { key, replica } | Question::Purge { key, replica } => {
                let node = self.placement.replicas[replica].id.clone();
                let reason = match outcome {
                    Err(CallFailure::Silent | CallFailure::Unreachable) => {
                        WaitReason::ReplicaUnreachable(node)
                    }
                    _ => WaitReason::ReplicaRefuses(node),
                };
                self.take_out(&[key], reason)
            }
            Question::Check { member } => {
                let reason = WaitReason::HintsUnknown(self.members[member].clone());
                self.take_out(&self.checked_keys(), reason)
            }
        }
    }

    /// These keys wait for the next pass.
    fn take_out(&mut self, keys: &[usize], reason: WaitReason) -> Outcome {
        let mut count = 0;
        for key in keys {
            count += u64::from(self.keys[*key].is_in);
            self.keys[*key].is_in = false;
        }
        let (doomed, nobody_left) = (&self.keys, self.len() == 0);
        self.asks.retain(|_, ask| match ask.question {
            Question::Read { key, .. } | Question::Purge { key, .. } => doomed[key].is_in,
            Question::Check { .. } => !nobody_left,
        });
        Outcome { waits: (count > 0).then_some((reason, count)), ..Outcome::default() }
    }
}
