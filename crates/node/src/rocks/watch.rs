//! Watches the disk below a store, on a thread of its own: how much room there is, and whether the store
//! writes again after it could not.
//!
//! RocksDB stops taking writes when one of its own fails in the background, and says so only to the next
//! one. So when it has counted such a failure, or a write has failed for want of room, a small record is
//! written to see. RocksDB recovers from a full disk by itself a few seconds after there is room; where it
//! doesn't, the store has to be opened anew.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    room::{Change, Look, is_no_space},
    shared::Shared,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long a store may be unable to write though there is room; RocksDB looks every 5 s.
const STUCK_MAX: Duration = Duration::from_secs(30);

/// The thread. Dropping it ends it.
pub(super) struct Watch {
    ends: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks once, so that nothing is taken before, then begins to watch.
    pub(super) fn start(shared: Arc<Shared>, path: &Path) -> io::Result<Self> {
        let mut watcher = Watcher { shared, path: path.into(), failures: 0, stuck_since: None };
        watcher.look();
        let ends = Arc::<(Mutex<bool>, Condvar)>::default();
        let thread = thread::Builder::new().name("disk".into()).spawn({
            let ends = Arc::clone(&ends);
            move || {
                while !waited_for_end(&ends) {
                    watcher.look();
                }
            }
        })?;
        Ok(Self { ends, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.ends.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ends.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Waits until the next look is due; true if there is to be none.
fn waited_for_end(ends: &(Mutex<bool>, Condvar)) -> bool {
    let guard = ends.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = ends.1.wait_timeout_while(guard, EVERY, |ends| !*ends);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}

struct Watcher {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Failures in the background that RocksDB has counted.
    failures: u64,
    stuck_since: Option<Instant>,
}

impl Watcher {
    fn look(&mut self) {
        let look = match self.seen() {
            Ok(look) => look,
            // Then only the disk itself can say no, which it does to each write.
            Err(error) => {
                tracing::warn!("can't tell how much room there is on the disk: {error}");
                return;
            }
        };
        self.probe(look);
        match self.shared.room.looked(look) {
            Some(Change::Full) => tracing::error!(
                free_mib = look.free >> 20,
                reserve_mib = look.reserve() >> 20,
                "the disk of {} is full: writes are refused, reads are served; make room, and writes \
                 are taken again by themselves",
                self.path.display()
            ),
            Some(Change::Room) => {
                tracing::info!(free_mib = look.free >> 20, "there is room: writes are taken again");
            }
            None => {}
        }
    }

    fn seen(&self) -> io::Result<Look> {
        let disk = rustix::fs::statvfs(&self.path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Look {
            total: bytes(disk.f_blocks),
            free: bytes(disk.f_bavail),
            unwritten: self.shared.unwritten(),
        })
    }

    /// Finds out whether the store writes, where there is a doubt.
    fn probe(&mut self, look: Look) {
        let failures = self.shared.background_failures();
        let is_new = failures > std::mem::replace(&mut self.failures, failures);
        if !self.shared.room.has_failed() && !is_new {
            self.stuck_since = None;
            return;
        }
        match self.shared.write_run() {
            Ok(()) => {
                self.stuck_since = None;
                self.shared.room.writes_again();
            }
            // Damage is told to whoever waits for it.
            Err(error) => {
                if is_new {
                    tracing::error!("the store can't write: {error}");
                }
                // Until it writes again nothing is taken that it could not keep.
                self.shared.room.ran_out();
                self.stuck(look, &error);
            }
        }
    }

    fn stuck(&mut self, look: Look, error: &str) {
        if look.free < look.enough() {
            self.stuck_since = None;
            return;
        }
        let since = *self.stuck_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= STUCK_MAX {
            let cause = if is_no_space(error) { "a full disk" } else { "a failure" };
            self.shared.stuck(format!("the store does not recover from {cause}: {error}"));
        }
    }
}
