//! The lives of a node in one process: it is started, and ended when it is asked to stop, or when its store is
//! in trouble; then it is started again.
//!
//! A store that is damaged is set aside on the way, see [`crate::mending`]; one that has stopped writing is
//! opened anew. To whoever started the node it is the same one: it keeps its ports and its handle.

use std::{
    sync::{Arc, mpsc::SyncSender},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};

use crate::{
    config::Config,
    credentials::Credentials,
    daemon::Daemon,
    mending,
    node::{StartError, Started},
    readiness::Readiness,
    rocks::{RocksStore, Trouble},
};

/// How long a start may be tried anew that follows the end of the node's former self.
const RESTART_MAX: Duration = Duration::from_secs(10);
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// Before a start is tried anew for which the disk had no room.
const PAUSE_WHILE_FULL: Duration = Duration::from_secs(1);

/// Where whoever holds the node is told how it has come to its end.
pub(crate) struct Told {
    /// Why it can't ever serve as it is.
    pub(crate) failure: Arc<watch::Sender<Option<String>>>,
    /// Whether it has left its cluster.
    pub(crate) left: Arc<watch::Sender<bool>>,
}

/// Runs a node until it is asked to stop; says over `started` whether it runs.
pub(crate) fn run(
    mut config: Config,
    credentials: Credentials,
    readiness: Readiness,
    mut asked_to_stop: oneshot::Receiver<()>,
    started: &SyncSender<Result<Started, StartError>>,
) {
    let (failure_in, failure) = watch::channel(None);
    let failure_in = Arc::new(failure_in);
    let (left_in, left) = watch::channel(false);
    let told = Told { failure: failure_in, left: Arc::new(left_in) };
    let mut is_started = false;
    let mut restart_by = None;
    let mut waits_for_room = false;
    loop {
        let run = run_once(&mut config, &credentials, &readiness, &told, async |daemon| {
            if !is_started {
                let (quic, http) = (daemon.listener.local_address(), daemon.http);
                // Whoever started the node has its handle, or has gone and stops it by that.
                let (failure, left) = (failure.clone(), left.clone());
                let _ = started.send(Ok(Started { quic, http, failure, left }));
                is_started = true;
            }
            tokio::select! {
                // Dropping the sender asks as well.
                _ = &mut asked_to_stop => None,
                trouble = in_trouble(&daemon.store) => Some(trouble),
            }
        });
        match run {
            Ok(None) => return,
            Ok(Some(Trouble::Damaged(_) | Trouble::Stuck(_))) => {
                restart_by = Some(Instant::now() + RESTART_MAX);
            }
            Err(error) if error.is_no_space() => {
                if !waits_for_room {
                    tracing::error!("waiting for room on the disk: {error}");
                }
                waits_for_room = true;
                thread::sleep(PAUSE_WHILE_FULL);
            }
            Err(error) => {
                // Its former self may have to let go of a port or of the directory yet.
                let may_pass = matches!(error, StartError::Listen { .. } | StartError::DataDir(_));
                if !may_pass || restart_by.is_none_or(|end| Instant::now() >= end) {
                    match is_started {
                        true => drop(told.failure.send_replace(Some(error.to_string()))),
                        false => drop(started.send(Err(error))),
                    }
                    return;
                }
                thread::sleep(RESTART_PAUSE);
            }
        }
        if !matches!(asked_to_stop.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            return;
        }
    }
}

/// Runs it once, until `end` comes to an end, whose outcome is returned.
fn run_once(
    config: &mut Config,
    credentials: &Credentials,
    readiness: &Readiness,
    told: &Told,
    end: impl AsyncFnOnce(&Daemon) -> Option<Trouble>,
) -> Result<Option<Trouble>, StartError> {
    let (stopped, trouble) = actix::System::new().block_on(async {
        let daemon = Daemon::start(config, credentials, readiness, told).await?;
        // The next start is where the others, and clients, know the node to be.
        (config.listen.http, config.listen.quic) = (daemon.http, daemon.listener.local_address());
        let trouble = end(&daemon).await;
        if let Some(trouble) = &trouble {
            readiness.set(false);
            tracing::warn!("starting again");
            if let Trouble::Damaged(what) = trouble {
                mending::note(&config.node.data_dir, what)?;
            }
        }
        Ok::<_, StartError>((daemon.stop().await, trouble))
    })?;
    // All that ran on this thread is gone.
    match stopped.close() {
        false if trouble.is_some() => {
            Err(StartError::Broken("the store is in trouble, and something still uses it".into()))
        }
        _ => Ok(trouble),
    }
}

/// Waits until the store is in trouble.
async fn in_trouble(store: &RocksStore) -> Trouble {
    let mut told = store.trouble();
    match told.wait_for(Option::is_some).await {
        Ok(trouble) => trouble.clone().expect("it was waited for"),
        Err(_) => unreachable!("the store tells as long as it is there"),
    }
}
