//! What becomes of a run when the owner answers, or doesn't.

use std::time::Duration;

use anello_protocol::{
    id::NodeId,
    key::DataKey,
    message::{hint::Credit, replica::Refusal},
    time::{Moment, Now},
};

use super::{
    CallFailure,
    delivering::{LURKING, Purpose, Sending},
    events::{CallNumber, Incoming, PageNumber},
    machine::HintStore,
    open::{Removal, Why},
    owner::RunState,
    store::Hint,
};

/// The pause when a node takes nothing more in, or is about to learn what this one knows.
const PAUSE_BUSY: Duration = Duration::from_millis(250);
/// The least and the longest that an owner can have itself not be asked.
const RETRY_MS: std::ops::RangeInclusive<u32> = 50..=5_000;

/// What an answer to a hint means.
enum Verdict {
    /// It is durable there.
    Stored,
    /// Not this one, and not now.
    OneFailed,
    /// None, for at least so long.
    AllFailed(Duration),
}

impl HintStore {
    pub(super) fn answered(
        &mut self,
        now: Now,
        call: CallNumber,
        outcome: Result<Incoming, CallFailure>,
    ) {
        let Some(Sending { owner: id, what }) = self.delivery.calls.remove(&call) else { return };
        match what {
            Purpose::Credit => {
                let is_awaited = self.owner(&id).run.state == RunState::Asking(call);
                match outcome {
                    Ok(Incoming::Credit(credit)) if is_awaited => self.granted(now, &id, credit),
                    _ if is_awaited => self.fail_run(now, &id, Duration::ZERO),
                    _ => {}
                }
            }
            Purpose::Marks => {
                let has_heard = outcome == Ok(Incoming::Marked);
                self.owner(&id).marks_told(now.moment, call, has_heard);
                self.delivery.is_run_due = true;
            }
            Purpose::Hint { number, deadline } => {
                self.hint_answered(now, &id, number, deadline, outcome);
            }
        }
    }

    /// The owner has said how much it can take.
    fn granted(&mut self, now: Now, id: &NodeId, Credit { bytes, retry_ms }: Credit) {
        let run = &mut self.owner(id).run;
        let bytes = u64::from(bytes);
        let wanted = run.queue.front().map_or(0, |(key, hint)| hint.weight(key));
        // What is too little for the first hint is saved up, and the owner is never sent more than it has
        // granted; otherwise only the last grant holds.
        run.balance = if bytes >= wanted { bytes } else { run.balance + bytes };
        if run.balance >= wanted {
            run.state = RunState::Going;
            return self.drive(now, id);
        }
        let pause = retry_ms.clamp(*RETRY_MS.start(), *RETRY_MS.end());
        run.rest(Some(now.moment + Duration::from_millis(pause.into())));
        self.delivery.is_run_due = true;
    }

    fn hint_answered(
        &mut self,
        now: Now,
        id: &NodeId,
        number: u64,
        deadline: Moment,
        outcome: Result<Incoming, CallFailure>,
    ) {
        let Some(sent) = self.owner(id).run.in_flight.get_mut(&number) else { return };
        let verdict = verdict(&outcome);
        sent.waiting -= 1;
        sent.is_stored |= matches!(verdict, Verdict::Stored);
        let (key, digest) = (sent.key.clone(), sent.digest);
        let (is_last, is_stored, is_handover) =
            (sent.waiting == 0, sent.is_stored, sent.is_handover);
        if outcome.is_err_and(CallFailure::may_have_been_handled) {
            self.lurk(&key, deadline);
        }
        if !is_last {
            return;
        }
        if is_stored {
            // It stays in flight until it is removed, so no run sends it again. Only then its failures are
            // forgotten: if the shelf does not take the removal, the pauses grow.
            let removal = Removal { number, why: Why::Delivered(digest) };
            return self.remove_when_known(now, &(id.clone(), key), removal);
        }
        self.owner(id).run.in_flight.remove(&number);
        match verdict {
            // One of several replicas says nothing about the owner's other hints.
            Verdict::AllFailed(pause) if !is_handover => {
                self.fail_run(now, id, pause);
                // It may be this one that the owner dies of: the others go first next time.
                self.fail_one(now, id, number);
            }
            _ => self.fail_one(now, id, number),
        }
        self.drive(now, id);
    }

    /// A message had no answer: it may be handled as long as it is on its way or in a queue there. It is
    /// handed on with the time that is left, so that ends.
    fn lurk(&mut self, key: &DataKey, deadline: Moment) {
        self.delivery.lurking.insert(key.clone(), deadline + LURKING);
    }

    /// A page has been read.
    pub(super) fn paged(
        &mut self,
        now: Now,
        page: PageNumber,
        found: Result<Vec<(DataKey, Hint)>, String>,
    ) {
        if self.sweeper.is_reading(page) {
            return self.sweep_page(now, found);
        }
        let mut owners = self.owners.iter_mut();
        let Some((id, owner)) = owners.find(|(_, owner)| owner.run.paging == Some(page)) else {
            return;
        };
        let id = id.clone();
        match found {
            Ok(entries) => {
                if let (0, Some((_, first))) = (owner.run.cursor, entries.first()) {
                    owner.totals.oldest_ms = first.since_ms;
                }
                owner.run.read(entries);
                self.drive(now, &id);
            }
            Err(_) => self.fail_run(now, &id, Duration::ZERO),
        }
    }
}

fn verdict(outcome: &Result<Incoming, CallFailure>) -> Verdict {
    let refusal = match outcome {
        Ok(Incoming::Stored(Ok(_))) => return Verdict::Stored,
        Ok(Incoming::Stored(Err(refusal))) => refusal,
        // Nothing else answers it; what can't be delivered stays.
        Ok(_) | Err(CallFailure::Refused) => return Verdict::OneFailed,
        Err(CallFailure::Busy) => return Verdict::AllFailed(PAUSE_BUSY),
        Err(CallFailure::Timeout | CallFailure::Closed | CallFailure::Unreachable) => {
            return Verdict::AllFailed(Duration::ZERO);
        }
    };
    match refusal {
        Refusal::StaleEpoch(_) | Refusal::Behind(_) | Refusal::Frozen | Refusal::Busy => {
            Verdict::AllFailed(PAUSE_BUSY)
        }
        // Where it goes is looked up again each time: if the owner is a replica under this node's state,
        // its vnode is only about to begin.
        Refusal::NotOwner
        | Refusal::Storage(_)
        | Refusal::ForgedContext
        | Refusal::TooManySiblings(_)
        | Refusal::Quarantined
        | Refusal::HintsFull => Verdict::OneFailed,
        Refusal::DiskFull => Verdict::AllFailed(Duration::ZERO),
    }
}
