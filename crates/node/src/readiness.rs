//! Whether the node serves: told by membership, waited for by whoever started it.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Whether the node serves. Clones speak of the same node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<(Mutex<bool>, Condvar)>);

impl Readiness {
    /// From here on it does, or doesn't.
    pub(crate) fn set(&self, is_ready: bool) {
        let (state, changed) = &*self.0;
        *state.lock().unwrap_or_else(PoisonError::into_inner) = is_ready;
        changed.notify_all();
    }

    /// Waits until it does; false if that takes longer.
    pub(crate) fn wait(&self, within: Duration) -> bool {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(state, within, |is_ready| !*is_ready);
        let (is_ready, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *is_ready
    }
}
