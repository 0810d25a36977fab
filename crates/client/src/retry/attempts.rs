//! One operation's attempts: when the next begins, how long it may take, when to give up and with what
//! error.

use std::time::{Duration, Instant};

use super::{RetryBudget, pause};
use crate::error::{Error, ErrorKind};

/// Whether and when another attempt makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would fail in the same way.
    Never,
    /// At another node, once or twice: this one won't have it, and most likely no other will.
    Seldom,
    /// At another node. It costs nobody anything: this attempt did not reach its node.
    Free,
    /// At another node, on the budget: a node had work with this attempt.
    Paid,
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Why.
    pub(crate) kind: ErrorKind,
    /// Whether the node may have carried it out all the same.
    pub(crate) in_doubt: bool,
    /// Whether to try again.
    pub(crate) retry: Retry,
}

/// What to do after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again at that time.
    Again(Instant),
    /// That is the outcome.
    GiveUp(Error),
}

/// The attempts of one operation.
#[derive(Debug)]
pub(crate) struct Attempts {
    attempt_timeout: Duration,
    deadline: Instant,
    writes: bool,
    failed: u32,
    in_doubt: bool,
    /// How many replicas there were, as a coordinator said last.
    account: Option<ErrorKind>,
}

impl Attempts {
    /// An operation begins; `writes` if it changes anything.
    pub(crate) fn new(attempt_timeout: Duration, writes: bool, deadline: Instant) -> Self {
        Self { attempt_timeout, deadline, writes, failed: 0, in_doubt: false, account: None }
    }

    /// An attempt begins: until when its answer is awaited.
    pub(crate) fn begin(&self, now: Instant) -> Instant {
        self.deadline.min(now + self.attempt_timeout)
    }

    /// An attempt failed. `dice` is random in `0.0..1.0`.
    pub(crate) fn failed(
        &mut self,
        failure: Failure,
        now: Instant,
        budget: &mut RetryBudget,
        dice: f64,
    ) -> Verdict {
        self.failed = self.failed.saturating_add(1);
        self.in_doubt |= self.writes && failure.in_doubt;
        let at = now + pause(self.failed, dice);
        let allowed = at < self.deadline
            && match failure.retry {
                Retry::Never => false,
                Retry::Seldom => self.failed <= 2 && budget.take(now),
                Retry::Free => true,
                Retry::Paid => budget.take(now),
            };
        if let ErrorKind::Unavailable { .. } | ErrorKind::Timeout { tally: Some(_) } = failure.kind
        {
            self.account = Some(failure.kind.clone());
        }
        if allowed { Verdict::Again(at) } else { Verdict::GiveUp(self.give_up(failure.kind)) }
    }

    /// The error of an operation that ends here.
    pub(crate) fn give_up(&self, kind: ErrorKind) -> Error {
        Error::new(self.telling(kind), self.in_doubt)
    }

    /// The reason, or the account of the replicas that was given before if this one is only about the
    /// node that was asked last: where replicas are down, retries end at nodes that are down as well.
    fn telling(&self, kind: ErrorKind) -> ErrorKind {
        match kind {
            ErrorKind::Timeout { tally: None }
            | ErrorKind::Unreachable(_)
            | ErrorKind::Refused(_) => self.account.clone().unwrap_or(kind),
            kind => kind,
        }
    }

    /// When the operation is over, whatever has come of it.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{error::Tally, retry::LONGEST_PAUSE};

    fn operation(writes: bool, now: Instant) -> Attempts {
        Attempts::new(Duration::from_secs(2), writes, now + Duration::from_secs(5))
    }

    fn failure(in_doubt: bool, retry: Retry) -> Failure {
        Failure { kind: ErrorKind::Timeout { tally: None }, in_doubt, retry }
    }

    #[test]
    fn doubt_outlasts_a_certain_failure() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let mut attempts = operation(true, now);
        let cut_off = attempts.failed(failure(true, Retry::Paid), now, &mut budget, 0.0);
        assert_eq!(cut_off, Verdict::Again(now));
        let refused = Failure {
            kind: ErrorKind::Unavailable { required: 2, alive: 1 },
            in_doubt: false,
            retry: Retry::Never,
        };
        let Verdict::GiveUp(error) = attempts.failed(refused, now, &mut budget, 0.0) else {
            panic!("a failure that repeats itself is final");
        };
        assert!(error.may_have_happened());
        assert_eq!(*error.kind(), ErrorKind::Unavailable { required: 2, alive: 1 });
    }

    #[test]
    fn an_attempt_that_is_cut_off_hides_no_account_of_the_replicas() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let mut attempts = operation(true, now);
        let unavailable = ErrorKind::Unavailable { required: 2, alive: 1 };
        let refused = Failure { kind: unavailable.clone(), in_doubt: false, retry: Retry::Paid };
        assert!(matches!(attempts.failed(refused, now, &mut budget, 0.5), Verdict::Again(_)));
        let end = attempts.deadline();
        let cut_off = attempts.failed(failure(true, Retry::Paid), end, &mut budget, 0.5);
        let Verdict::GiveUp(error) = cut_off else { panic!("the time is over") };
        assert_eq!((error.kind(), error.may_have_happened()), (&unavailable, true));
    }

    #[test]
    fn a_node_that_gives_no_account_hides_none() {
        let now = Instant::now();
        let counted = ErrorKind::Timeout { tally: Some(Tally { required: 6, received: 5 }) };
        let others =
            [ErrorKind::Unreachable("it is down".into()), ErrorKind::Refused("another CA".into())];
        for kind in others {
            let mut budget = RetryBudget::new(now);
            let mut attempts = operation(true, now);
            assert_eq!(*attempts.give_up(kind.clone()).kind(), kind, "there is no account yet");
            let first = Failure { kind: counted.clone(), in_doubt: true, retry: Retry::Paid };
            assert!(matches!(attempts.failed(first, now, &mut budget, 0.5), Verdict::Again(_)));
            let last = Failure { kind: kind.clone(), in_doubt: false, retry: Retry::Free };
            let ended = attempts.failed(last, attempts.deadline(), &mut budget, 0.5);
            let Verdict::GiveUp(error) = ended else { panic!("the time is over") };
            assert_eq!((error.kind(), error.may_have_happened()), (&counted, true));
            assert_eq!(*attempts.give_up(kind).kind(), counted, "nobody is left to be asked");
        }
    }

    #[test]
    fn a_coordinators_last_word_counts_whatever_came_before() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let mut attempts = operation(true, now);
        let kind = ErrorKind::Unavailable { required: 2, alive: 1 };
        let refused = Failure { kind, in_doubt: false, retry: Retry::Paid };
        assert!(matches!(attempts.failed(refused, now, &mut budget, 0.5), Verdict::Again(_)));
        let invalid = ErrorKind::Invalid("a context of another key".into());
        let overloaded = ErrorKind::Overloaded { retry_after: Duration::ZERO };
        for last in [invalid, overloaded] {
            assert_eq!(*attempts.give_up(last.clone()).kind(), last);
        }
    }

    #[test]
    fn a_read_is_never_in_doubt() {
        let now = Instant::now();
        let mut attempts = operation(false, now);
        let verdict =
            attempts.failed(failure(true, Retry::Never), now, &mut RetryBudget::new(now), 0.0);
        assert!(matches!(verdict, Verdict::GiveUp(error) if !error.may_have_happened()));
    }

    #[test]
    fn a_refusal_is_checked_with_two_others() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let mut attempts = operation(true, now);
        let mut refused = || attempts.failed(failure(false, Retry::Seldom), now, &mut budget, 0.5);
        assert!(matches!(refused(), Verdict::Again(_)));
        assert!(matches!(refused(), Verdict::Again(_)));
        assert!(matches!(refused(), Verdict::GiveUp(_)));
    }

    #[test]
    fn an_empty_budget_ends_paid_retries_only() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        while budget.take(now) {}
        let mut attempts = operation(true, now);
        let free = attempts.failed(failure(false, Retry::Free), now, &mut budget, 0.5);
        assert!(matches!(free, Verdict::Again(_)));
        let paid = attempts.failed(failure(false, Retry::Paid), now, &mut budget, 0.5);
        assert!(matches!(paid, Verdict::GiveUp(_)));
    }

    proptest! {
        #[test]
        fn deadlines_hold(
            timeout_ms in 1..10_000u64,
            attempt_ms in 1..10_000u64,
            steps in prop::collection::vec((0..3_000u64, 0.0..1.0f64), 1..40),
        ) {
            let start = Instant::now();
            let attempt_timeout = Duration::from_millis(attempt_ms);
            let deadline = start + Duration::from_millis(timeout_ms);
            let mut budget = RetryBudget::new(start);
            let mut attempts = Attempts::new(attempt_timeout, true, deadline);
            let mut now = start;
            for (took_ms, dice) in steps {
                let until = attempts.begin(now);
                prop_assert!(until <= deadline && until <= now + attempt_timeout);
                now = until.min(now + Duration::from_millis(took_ms));
                match attempts.failed(failure(true, Retry::Free), now, &mut budget, dice) {
                    Verdict::Again(at) => {
                        prop_assert!(now <= at && at < deadline);
                        prop_assert!(at - now <= LONGEST_PAUSE);
                        now = at;
                    }
                    Verdict::GiveUp(error) => {
                        prop_assert!(error.may_have_happened());
                        break;
                    }
                }
            }
        }

        #[test]
        fn pauses_grow_up_to_their_bound(failed in 1..200u32, dice in 0.0..1.0f64) {
            let (this, next) = (pause(failed, 1.0), pause(failed + 1, 1.0));
            prop_assert!(this <= next && next <= LONGEST_PAUSE);
            prop_assert!(pause(failed, dice) <= this);
        }
    }
}
