//! One peer: where it is, and the connection to it, which is made again whenever it is lost.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anello_protocol::id::NodeId;
use tokio::sync::Notify;

use crate::{
    CallError, PeersConfig,
    close::Close,
    dial::{DialError, Dialled, Dialler},
    link::Link,
};

/// A node that is connected to, or would be if its address were known.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) link: Arc<Link>,
    place: Mutex<Place>,
    /// Its address has changed.
    moved: Notify,
}

#[derive(Default)]
struct Place {
    address: Option<String>,
    connected: bool,
    /// Why there is no connection, as it was logged.
    trouble: Option<String>,
}

impl Peer {
    /// A peer that nothing is known of yet.
    pub(crate) fn new(node: NodeId, config: &PeersConfig) -> Arc<Self> {
        Arc::new(Self {
            node,
            link: Link::new(&config.link),
            place: Mutex::default(),
            moved: Notify::new(),
        })
    }

    /// Says where it is, or that it is nowhere.
    pub(crate) fn locate(&self, address: Option<&str>) {
        let mut place = self.place();
        if place.address.as_deref() == address {
            return;
        }
        place.address = address.map(String::from);
        match address {
            // The first calls wait for the first attempt.
            Some(_) => self.link.open(),
            None => self.link.close(&CallError::Closed),
        }
        drop(place);
        self.moved.notify_one();
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.place().connected
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.place().trouble.clone()
    }

    /// Connects, and connects again, for ever.
    pub(crate) async fn drive(self: Arc<Self>, dialler: Arc<Dialler>, config: Arc<PeersConfig>) {
        let _stopping = Stopping(self.clone());
        let mut backoff = Backoff::new(&config);
        let mut last_address = None;
        loop {
            let address = self.place().address.clone();
            let Some(address) = address else {
                last_address = None;
                self.moved.notified().await;
                continue;
            };
            if last_address.as_ref() != Some(&address) {
                last_address = Some(address.clone());
                backoff = Backoff::new(&config);
                self.link.open();
            }
            let dialled = tokio::select! {
                dialled = dialler.dial(&address, Some(&self.node)) => dialled,
                () = self.left(&address) => {
                    self.link.close(&CallError::Unreachable);
                    continue;
                }
            };
            match dialled {
                Ok(dialled) => {
                    let since = Instant::now();
                    self.stay(dialled, &address).await;
                    if since.elapsed() > backoff.max {
                        backoff = Backoff::new(&config);
                    }
                }
                Err(error) => {
                    self.link.close(&CallError::Unreachable);
                    self.note(&address, &error);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.left(&address) => {}
            }
        }
    }

    /// Uses a connection for as long as it lasts and the peer stays where it is.
    async fn stay(&self, dialled: Dialled, address: &str) {
        let Dialled { connection, control, .. } = dialled;
        self.link.open();
        {
            let mut place = self.place();
            place.connected = true;
            place.trouble = None;
        }
        // One of several to this node; whether it can be reached is membership's to tell a person.
        tracing::debug!(peer = %self.node, %address, "connected");
        tokio::select! {
            () = self.link.run(&connection, control) => {}
            () = self.left(address) => {}
        }
        let why = match connection.close_reason() {
            Some(error) => error.to_string(),
            None if self.place().address.is_none() => "it is needed for nothing more".to_string(),
            None => "the peer has another address".to_string(),
        };
        Close::Done.close(&connection, "no longer needed");
        self.place().connected = false;
        self.link.close(&CallError::Closed);
        tracing::debug!(peer = %self.node, %address, %why, "disconnected");
    }

    /// Waits until it is not at that address any more.
    async fn left(&self, address: &str) {
        while self.place().address.as_deref() == Some(address) {
            self.moved.notified().await;
        }
    }

    /// Logs why there is no connection: once, until the reason is another.
    fn note(&self, address: &str, error: &DialError) {
        let why = error.to_string();
        let mut place = self.place();
        if place.trouble.as_ref() == Some(&why) {
            return;
        }
        match error {
            DialError::Refused(_) => {
                tracing::warn!(peer = %self.node, %address, %why, "refused a connection, or was refused");
            }
            _ => tracing::warn!(peer = %self.node, %address, %why, "cannot connect; trying on"),
        }
        place.trouble = Some(why);
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // Nothing panics while it is locked.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves no call waiting when the runtime that drives the peer ends.
struct Stopping(Arc<Peer>);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.place().connected = false;
        self.0.link.close(&CallError::Closed);
    }
}

/// Waits that double up to a bound. Each is drawn from its upper half, so that many who lost one peer
/// don't come back all at once.
struct Backoff {
    wait: Duration,
    max: Duration,
}

impl Backoff {
    fn new(config: &PeersConfig) -> Self {
        let max = Duration::from_millis(config.backoff_max_ms);
        Self { wait: Duration::from_millis(config.backoff_min_ms).min(max), max }
    }

    fn next(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(self.max);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound() {
        let config =
            PeersConfig { backoff_min_ms: 10, backoff_max_ms: 35, ..PeersConfig::default() };
        let mut backoff = Backoff::new(&config);
        for bound in [10, 20, 35, 35, 35] {
            let bound = Duration::from_millis(bound);
            let wait = backoff.next();
            assert!(wait <= bound && wait >= bound / 2, "{wait:?} of {bound:?}");
        }
    }
}
