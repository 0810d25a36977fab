//! One operation: attempts at one node after the other until there is an outcome.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anello_protocol::message::Message;
use anello_transport::{CallContext, TraceContext};
use tokio::time::sleep_until;

use crate::{
    error::{Error, ErrorKind},
    fleet::{About, Fleet},
    judge::{Reply, ended},
    request::Options,
    retry::{Attempts, Failure, Retry, Verdict},
    routing::{Choice, Target},
};

/// How long a seed is waited for where the members are known.
const SEED_PATIENCE: Duration = Duration::from_millis(500);

/// An operation that is about to begin.
pub(crate) struct Operation<'a> {
    pub(crate) fleet: &'a Arc<Fleet>,
    pub(crate) about: About<'a>,
    /// Ask this one and nobody else.
    pub(crate) pin: Option<&'a Target>,
    /// Whether it changes anything.
    pub(crate) writes: bool,
    /// Whether it is the same to do it twice.
    pub(crate) repeatable: bool,
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) trace: Option<&'a TraceContext>,
}

impl<'a> Operation<'a> {
    pub(crate) fn new(
        fleet: &'a Arc<Fleet>,
        about: About<'a>,
        pin: Option<&'a Target>,
        options: &'a Options,
    ) -> Self {
        Self {
            fleet,
            about,
            pin,
            writes: false,
            repeatable: true,
            timeout: options.timeout,
            attempt_timeout: options.attempt_timeout,
            trace: options.trace.as_ref(),
        }
    }

    /// The same, but it changes something.
    pub(crate) fn writing(self) -> Self {
        Self { writes: true, ..self }
    }

    /// The same, but it changes something and is not to be done twice.
    pub(crate) fn once(self) -> Self {
        Self { writes: true, repeatable: false, ..self }
    }

    /// Runs it. `message` makes each attempt's message, told how long its answer is awaited.
    pub(crate) async fn run<M>(
        self,
        message: impl Fn(Duration) -> M,
    ) -> Result<<M::Reply as Reply>::Outcome, Error>
    where
        M: Message,
        M::Reply: Reply,
    {
        let fleet = self.fleet;
        let deadline = Instant::now() + self.timeout;
        let mut attempts = Attempts::new(self.attempt_timeout, self.writes, deadline);
        let mut tried = Vec::new();
        fleet.operation();
        loop {
            let target = self.next(&mut tried, &attempts).await?;
            let now = Instant::now();
            let until = attempts.begin(now).min(now + self.patience(&target));
            let context = CallContext { deadline: until, trace: self.trace.cloned() };
            let under_way = fleet.begin(&target, now);
            let lane = fleet.lane(self.about);
            let message = message(until.saturating_duration_since(now));
            let outcome = fleet.call(lane, &target, message, context).await.map(Reply::judge);
            under_way.end(ended(&outcome));
            let failure = match outcome {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) => self.in_view(failure),
                Err(error) => Failure::of_call(&error, &target, fleet.trouble(&target)),
            };
            let again =
                if failure.in_doubt && !self.repeatable { Retry::Never } else { failure.retry };
            let failure = Failure { retry: again, ..failure };
            tracing::debug!(%target, reason = %failure.kind, "an attempt failed");
            if failure.hints_at_change() {
                fleet.hints.notify_one();
            }
            match fleet.failed(&mut attempts, failure, Instant::now()) {
                Verdict::Again(at) => sleep_until(at.into()).await,
                Verdict::GiveUp(error) => return Err(error),
            }
            tried.push(target);
        }
    }

    /// Whom to ask next, once it may be asked.
    async fn next(&self, tried: &mut Vec<Target>, attempts: &Attempts) -> Result<Target, Error> {
        let now = Instant::now();
        let Some(choice) = self.fleet.choose(self.about, self.pin, tried, now) else {
            let why = "there is no node to ask: no seeds were given".to_owned();
            return Err(attempts.give_up(ErrorKind::Unreachable(why)));
        };
        let Choice { target, not_before } = choice;
        if let Some(at) = not_before {
            if at >= attempts.deadline() {
                let retry_after = at.saturating_duration_since(now);
                return Err(attempts.give_up(ErrorKind::Overloaded { retry_after }));
            }
            // All that wait for it must not come at the same moment.
            let spread = at.saturating_duration_since(now).mul_f64(rand::random::<f64>() / 4.0);
            sleep_until((at + spread).min(attempts.deadline()).into()).await;
        }
        Ok(target)
    }

    /// How long to wait for this one at most. Where the members are known, a seed is asked because none
    /// of them can be reached, and one of them may be back before the seed is.
    fn patience(&self, target: &Target) -> Duration {
        match target {
            Target::Seed(_)
                if self.repeatable && self.pin.is_none() && self.fleet.view().is_some() =>
            {
                SEED_PATIENCE
            }
            _ => self.attempt_timeout,
        }
    }

    /// What a failure means to somebody who knows the ring: a node that denies a keyspace which the
    /// cluster has agreed on is behind, and another one is not, or it itself in a moment.
    fn in_view(&self, failure: Failure) -> Failure {
        let view = self.fleet.view();
        match &failure.kind {
            ErrorKind::NoSuchKeyspace(name)
                if matches!(self.about, About::Key(..))
                    && view.is_some_and(|view| view.knows(name)) =>
            {
                Failure { retry: Retry::Paid, ..failure }
            }
            _ => failure,
        }
    }
}
