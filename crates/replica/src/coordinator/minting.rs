//! Having the vnode of this node issue a dot for a write, or its hint store if this node stands in for a
//! replica: again and again while what it refuses for passes by itself.

use anello_protocol::{
    causality::Context,
    id::Epoch,
    message::{
        client::{RequestError, Write},
        hint::MintHint,
        replica::{MintVersion, Minted, Refusal},
    },
    time::{HybridTime, Moment},
};

use super::{
    desk::{Desk, Head},
    events::{CallFailure, Incoming, Outgoing},
    site::Site,
};

/// A dot that is to be issued.
#[derive(Debug)]
pub(super) struct Minting {
    pub(super) site: Site,
    /// The place of the replica that this node stands in for.
    pub(super) stands_for: Option<usize>,
    context: Context,
    later_than: Option<HybridTime>,
    attempt: Option<u32>,
    failures: u32,
    retry_at: Option<Moment>,
}

/// What an answer leads to.
#[derive(Debug)]
pub(super) enum Progress {
    Going,
    /// It is issued, and durable here.
    Minted(Minted),
    /// The vnode knows a newer state.
    Stale(Epoch),
    /// The vnode has too much to do; nothing was written.
    Busy,
    /// No vnode here takes it: it couldn't be opened, or can't be called. This attempt wrote nothing; one
    /// before it may have.
    Missing,
    /// The disk below the vnode is full. As with [`Progress::Missing`].
    DiskFull,
    /// The vnode, or its store, has failed; the write may have been kept.
    Broken(Refusal),
    /// The write can never succeed; nothing was written.
    Hopeless(RequestError),
}

impl Minting {
    /// Asks the vnode for the first time.
    pub(super) fn start(
        desk: &mut Desk,
        head: &mut Head,
        write: &Write,
        site: Site,
        context: Context,
        later_than: Option<HybridTime>,
    ) -> Self {
        let stands_for = site.own_standing(desk);
        let mut minting = Self {
            site,
            stands_for,
            context,
            later_than,
            attempt: None,
            failures: 0,
            retry_at: None,
        };
        minting.ask(desk, head, write);
        minting
    }

    pub(super) fn answered(
        &mut self,
        desk: &Desk,
        head: &Head,
        attempt: u32,
        outcome: Result<Incoming, CallFailure>,
    ) -> Progress {
        if self.attempt != Some(attempt) {
            return Progress::Going;
        }
        self.attempt = None;
        let refusal = match outcome {
            Ok(Incoming::Minted(Ok(minted))) => return Progress::Minted(minted),
            Ok(Incoming::Minted(Err(refusal))) => refusal,
            Err(CallFailure::Busy) => Refusal::Busy,
            Err(CallFailure::Timeout | CallFailure::Closed) => {
                Refusal::Storage("the vnode gave no answer".into())
            }
            Ok(_) | Err(CallFailure::Unreachable | CallFailure::Refused) => Refusal::NotOwner,
        };
        match refusal {
            Refusal::StaleEpoch(newer) => Progress::Stale(newer),
            Refusal::Behind(_) | Refusal::Frozen => {
                self.ask_later(desk, head);
                Progress::Going
            }
            Refusal::NotOwner | Refusal::Quarantined | Refusal::HintsFull => Progress::Missing,
            Refusal::Busy => Progress::Busy,
            Refusal::DiskFull => Progress::DiskFull,
            Refusal::Storage(_) => Progress::Broken(refusal),
            Refusal::ForgedContext => {
                let sentence = "the context claims to have seen writes that were never made";
                Progress::Hopeless(RequestError::BadContext(sentence.into()))
            }
            Refusal::TooManySiblings(count) => {
                let sentence = format!(
                    "the key holds {count} concurrent versions, which is as many as it can: read \
                     it, and write with the context to replace them"
                );
                Progress::Hopeless(RequestError::BadRequest(sentence))
            }
        }
    }

    pub(super) fn time_up(&mut self, desk: &mut Desk, head: &mut Head, write: &Write) {
        if self.retry_at.is_some_and(|at| at <= desk.moment()) {
            self.ask(desk, head, write);
        }
    }

    pub(super) fn due(&self) -> Option<Moment> {
        self.retry_at
    }

    /// Leaves the vnode alone for a while.
    pub(super) fn ask_later(&mut self, desk: &Desk, head: &Head) {
        self.retry_at = Some(desk.retry_at(head, self.failures));
        self.failures += 1;
    }

    fn ask(&mut self, desk: &mut Desk, head: &mut Head, write: &Write) {
        let mint = MintVersion {
            epoch: self.site.view.epoch(),
            key: self.site.key.clone(),
            rule: self.site.rule,
            ruled_since: self.site.ruled_since,
            context: self.context.clone(),
            write_id: write.write_id,
            later_than: self.later_than,
            trace_id: write.options.trace_id,
            content: write.content.clone(),
        };
        let node = desk.node.clone();
        self.retry_at = None;
        let message = match self.stands_for {
            None => Outgoing::Mint(mint),
            Some(owner) => {
                let owner = self.site.placement.replicas[owner].id.clone();
                Outgoing::MintHint(MintHint { owner, mint })
            }
        };
        self.attempt = Some(desk.send(head, &node, message));
    }
}
