//! How a write ends: what its client is told, and that it is honest.

use anello_protocol::{
    causality::{Context, token_encode},
    message::{
        client::{Answer, ContextToken, Receipt, RequestError, Written},
        replica::Refusal,
    },
};

use super::{Phase, WriteRequest};
use crate::coordinator::{
    desk::Desk, events::Reply, receipt::receipt_of_nobody, replicate, site::Site,
};

impl WriteRequest {
    /// What another coordinator made of it is the answer, unless that would hide that an earlier
    /// attempt may have been kept.
    pub(super) fn pass_on(&mut self, desk: &mut Desk, answer: Answer<Written>) {
        match answer.result {
            Err(error) => self.fail_with(desk, error, answer.receipt),
            Ok(_) => {
                self.phase = Phase::Over;
                self.reply(desk, answer);
            }
        }
    }

    pub(super) fn succeed(
        &mut self,
        desk: &mut Desk,
        site: &Site,
        context: &Context,
        receipt: Option<Receipt>,
    ) {
        self.phase = Phase::Over;
        self.reply(desk, written(site, context, receipt));
    }

    pub(super) fn give_up(&mut self, desk: &mut Desk) {
        if self.answered {
            self.phase = Phase::Over;
            return;
        }
        if let Phase::Storing(replication) = &self.phase
            && replication.enough()
        {
            // Only the receipt was waited for.
            self.explain_until = Some(desk.moment());
            self.after_storing(desk, replicate::Progress::Going);
            self.phase = Phase::Over;
            return;
        }
        let (required, received) = self.counts(desk);
        self.fail(desk, RequestError::Timeout { required, received });
    }

    fn counts(&self, desk: &Desk) -> (u16, u16) {
        match &self.phase {
            Phase::Storing(replication) | Phase::Waiting(_, Some(replication)) => {
                replication.counts()
            }
            Phase::Reading(read) => read.counts(),
            _ => {
                let required = self.site(desk).map(|site| site.required());
                (required.unwrap_or(1), 0)
            }
        }
    }

    pub(super) fn fail(&mut self, desk: &mut Desk, error: RequestError) {
        let receipt = match &self.phase {
            _ if !self.write.options.explain => None,
            Phase::Storing(replication) | Phase::Waiting(_, Some(replication)) => {
                Some(replication.receipt(desk, &self.head))
            }
            Phase::Reading(read) => Some(read.receipt(desk, &self.head)),
            _ => {
                let site = self.site(desk).ok();
                site.map(|site| receipt_of_nobody(desk, &site, self.head.us(desk)))
            }
        };
        self.fail_with(desk, error, receipt);
    }

    /// Ends it. Once the write may have been kept somewhere, only one error is honest.
    fn fail_with(&mut self, desk: &mut Desk, error: RequestError, receipt: Option<Receipt>) {
        let in_hands = match &self.phase {
            Phase::Forwarding(forwarding) => forwarding.maybe_written(),
            _ => false,
        };
        let error = match error {
            RequestError::Timeout { .. } => error,
            _ if self.maybe_written || in_hands => {
                let (required, received) = self.counts(desk);
                RequestError::Timeout { required, received }
            }
            _ => error,
        };
        self.phase = Phase::Over;
        self.reply(desk, Answer { result: Err(error), receipt });
    }

    /// Hands it back to the coordinator that it came from, which takes every reason but one for a promise
    /// that nothing was written.
    pub(super) fn refuse(&mut self, desk: &mut Desk, refusal: Refusal) {
        let refusal = match refusal {
            Refusal::Storage(_) => refusal,
            _ if self.maybe_written => Refusal::Storage("the write may have been kept".into()),
            _ => refusal,
        };
        self.phase = Phase::Over;
        desk.reply(&self.head, Reply::Forward(Err(refusal)));
    }

    pub(super) fn reply(&self, desk: &mut Desk, answer: Answer<Written>) {
        let reply =
            if self.is_forwarded { Reply::Forward(Ok(answer)) } else { Reply::Write(answer) };
        desk.reply(&self.head, reply);
    }
}

/// The answer to a write that was kept.
pub(super) fn written(site: &Site, context: &Context, receipt: Option<Receipt>) -> Answer<Written> {
    let written = Written { context: ContextToken(token_encode(&site.key, context)) };
    Answer { result: Ok(written), receipt }
}
