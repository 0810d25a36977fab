//! The place where a call's outcome is put and waited for: a oneshot whose putting side can forget the
//! type of the reply, so that one table can hold the calls of all messages at a single allocation each.
//!
//! Whatever comes first stays: a reply, a failure, or the waiting side's going away.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use anello_protocol::codec;
use serde::de::DeserializeOwned;

use crate::CallError;

/// Takes the outcome of a call that came back over a wire.
pub(crate) trait Complete: Send + Sync {
    /// Takes an encoded reply.
    fn reply(&self, body: &[u8]);
    /// Takes a failure.
    fn fail(&self, error: CallError);
}

/// Where one call's outcome goes.
pub(crate) struct Slot<R> {
    state: Mutex<State<R>>,
}

enum State<R> {
    /// No outcome yet; who to wake.
    Waiting(Option<Waker>),
    /// The outcome, not yet fetched.
    Done(Result<R, CallError>),
    /// Fetched, or nobody is interested.
    Over,
}

impl<R> Slot<R> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::Waiting(None)) }
    }

    /// Puts the outcome, unless there is one, or nobody waits.
    pub(crate) fn put(&self, outcome: Result<R, CallError>) {
        let mut state = self.state();
        let State::Waiting(waker) = &mut *state else { return };
        let waker = waker.take();
        *state = State::Done(outcome);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Fetches the outcome, or remembers who waits for it.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<R, CallError>> {
        let mut state = self.state();
        match &mut *state {
            State::Waiting(Some(waker)) => waker.clone_from(context.waker()),
            State::Waiting(waker) => *waker = Some(context.waker().clone()),
            State::Done(_) | State::Over => {
                return match std::mem::replace(&mut *state, State::Over) {
                    State::Done(outcome) => Poll::Ready(outcome),
                    State::Waiting(_) | State::Over => Poll::Ready(Err(CallError::Closed)),
                };
            }
        }
        Poll::Pending
    }

    /// Gives up waiting: a later outcome is dropped.
    pub(crate) fn leave(&self) {
        *self.state() = State::Over;
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        // Nothing panics while it is locked, and any state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: DeserializeOwned + Send> Complete for Slot<R> {
    fn reply(&self, body: &[u8]) {
        self.put(decode_reply(body));
    }

    fn fail(&self, error: CallError) {
        self.put(Err(error));
    }
}

/// Decodes a reply. One that can't be decoded tells nothing of what was done, so it counts as lost.
pub(crate) fn decode_reply<R: DeserializeOwned>(body: &[u8]) -> Result<R, CallError> {
    codec::decode(body).map_err(|error| {
        tracing::warn!(%error, "a reply could not be decoded");
        CallError::Closed
    })
}
