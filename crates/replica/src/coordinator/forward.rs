//! Handing a write to a replica, which alone may issue dots: one after the other, until one takes it.
//!
//! Whether the write may have been kept by one that gave no clear answer is remembered, so that what
//! the client is told in the end is honest.

use anello_protocol::{
    id::{Epoch, NodeId},
    message::{
        client::{Answer, RequestError, Write, Written},
        replica::{ForwardWrite, Refusal},
    },
    time::Moment,
};

use super::{
    desk::{Desk, Head, earliest},
    events::{CallFailure, Incoming, Outgoing},
};

/// A write in the hands of replicas.
#[derive(Debug)]
pub(super) struct Forwarding {
    /// The replicas, in the order in which they are asked.
    replicas: Vec<NodeId>,
    /// The next to ask.
    next: usize,
    /// How often all of them have been asked in vain.
    rounds: u32,
    /// Those that have not answered: under which attempt, since when, and whether another one was
    /// asked in their place.
    asked: Vec<(u32, Moment, bool)>,
    /// When to begin with the first again.
    retry_at: Option<Moment>,
    /// Why the last one that gave a reason would not.
    refused: Option<RequestError>,
    /// Whether one that gave no clear answer may have kept the write.
    maybe_written: bool,
}

/// What an answer leads to.
#[derive(Debug)]
pub(super) enum Progress {
    Going,
    /// A replica has carried it out, or says why it can't be.
    Answered(Answer<Written>),
    /// Nobody takes it.
    Refused(RequestError),
    /// The replicas know a newer state.
    Stale(Epoch),
}

impl Forwarding {
    /// Asks the first of the replicas.
    pub(super) fn start(
        desk: &mut Desk,
        head: &mut Head,
        write: &Write,
        replicas: Vec<NodeId>,
    ) -> Self {
        let mut forwarding = Self {
            replicas,
            next: 0,
            rounds: 0,
            asked: Vec::new(),
            retry_at: None,
            refused: None,
            maybe_written: false,
        };
        forwarding.ask_next(desk, head, write);
        forwarding
    }

    /// Whether the write may have been kept.
    pub(super) fn maybe_written(&self) -> bool {
        self.maybe_written || !self.asked.is_empty()
    }

    pub(super) fn answered(
        &mut self,
        desk: &mut Desk,
        head: &mut Head,
        write: &Write,
        attempt: u32,
        outcome: Result<Incoming, CallFailure>,
    ) -> Progress {
        let Some(at) = self.asked.iter().position(|(own, ..)| *own == attempt) else {
            return Progress::Going;
        };
        self.asked.swap_remove(at);
        match outcome {
            Ok(Incoming::Forwarded(Ok(answer))) => match answer.result {
                Err(
                    error @ (RequestError::Overloaded { .. }
                    | RequestError::Unavailable { .. }
                    | RequestError::DiskFull { .. }),
                ) => {
                    self.refused = Some(error);
                }
                Ok(_) | Err(_) => return Progress::Answered(answer),
            },
            Ok(Incoming::Forwarded(Err(refusal))) => match refusal {
                Refusal::StaleEpoch(newer) => return Progress::Stale(newer),
                Refusal::Busy => self.refused = Some(overloaded()),
                Refusal::Storage(_) => self.maybe_written = true,
                Refusal::Behind(_)
                | Refusal::NotOwner
                | Refusal::Frozen
                | Refusal::Quarantined
                | Refusal::HintsFull
                | Refusal::ForgedContext
                | Refusal::TooManySiblings(_)
                // A coordinator whose own disk is full answers as one that finds too few replicas.
                | Refusal::DiskFull => {}
            },
            Ok(_) => {}
            Err(failure) => self.maybe_written |= failure.may_have_been_handled(),
        }
        // Somebody who was asked in its place may be at work on it.
        if self.asked.iter().any(|(_, _, silent)| !silent) {
            return Progress::Going;
        }
        self.ask_next(desk, head, write);
        match self.refused.take_if(|_| self.retry_at.is_some()) {
            Some(error) => Progress::Refused(error),
            None => Progress::Going,
        }
    }

    /// Looks after replicas that are silent, and begins again after a while.
    pub(super) fn time_up(&mut self, desk: &mut Desk, head: &mut Head, write: &Write) {
        let (now, silence) = (desk.moment(), desk.config.forward_silence);
        let mut fell_silent = false;
        for (_, at, silent) in &mut self.asked {
            if !*silent && now >= *at + silence {
                *silent = true;
                fell_silent = true;
            }
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.next = 0;
            self.ask_next(desk, head, write);
        } else if fell_silent && self.next < self.replicas.len() {
            self.ask_next(desk, head, write);
        }
    }

    pub(super) fn due(&self, desk: &Desk) -> Option<Moment> {
        let silent = self.asked.iter().filter(|(_, _, silent)| !silent);
        let silence = silent.map(|(_, at, _)| *at + desk.config.forward_silence).min();
        earliest(silence, self.retry_at)
    }

    fn ask_next(&mut self, desk: &mut Desk, head: &mut Head, write: &Write) {
        let Some(to) = self.replicas.get(self.next).cloned() else {
            self.retry_at = Some(desk.retry_at(head, self.rounds));
            self.rounds += 1;
            return;
        };
        self.next += 1;
        let mut write = write.clone();
        write.options.timeout_ms = head.left_ms(desk);
        let message = ForwardWrite { epoch: desk.epoch(), write };
        let attempt = desk.send(head, &to, Outgoing::Forward(message));
        self.asked.push((attempt, desk.moment(), false));
    }
}

/// What a client is told when the node that it asked, or all that could do it, shed load.
pub(super) fn overloaded() -> RequestError {
    RequestError::Overloaded { retry_after_ms: 100 }
}
