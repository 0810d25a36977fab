//! A node as the program, tests and examples hold it: started, waited for, stopped.
//!
//! Everything runs on threads of the node's own; a process may hold several nodes.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anello_protocol::id::NodeId;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::{
    config::{Config, ConfigError, Problem},
    credentials::Credentials,
    data_dir::{DataDir, DataDirError, Identity},
    lives,
    mending::MendError,
    readiness::Readiness,
    rocks::OpenError,
};

/// Why a node does not start, as one line for each thing that is wrong.
#[derive(Debug, Error)]
pub enum StartError {
    /// The settings, or the files that they name, are not as expected.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The data directory can't be used.
    #[error(transparent)]
    DataDir(DataDirError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store is damaged, and no other can be put in its place.
    #[error(transparent)]
    Mend(#[from] MendError),
    /// A port can't be listened at.
    #[error("{place}: can't listen at {address}: {source}")]
    Listen {
        /// The setting.
        place: String,
        /// Its value.
        address: SocketAddr,
        /// What is in the way.
        source: io::Error,
    },
    /// A thread or a runtime can't be made.
    #[error("can't start a thread: {0}")]
    Runtime(io::Error),
    /// Part of the node failed as it started.
    #[error("can't start: {0}")]
    Broken(String),
}

impl StartError {
    /// A data directory that can't be there is a bad setting, and named as one.
    pub(crate) fn of_data_dir(error: DataDirError, config: &Config) -> Self {
        match error {
            DataDirError::NotADirectory(path) => {
                let place = config.source.place("node.data_dir");
                let what = format!(
                    "expected the path of a directory, found {path:?}, which is a file or below one"
                );
                Self::Settings(ConfigError(vec![Problem { place, what }]))
            }
            error => Self::DataDir(error),
        }
    }

    /// Whether there is too little room on the disk to start: it may be tried again.
    pub(crate) fn is_no_space(&self) -> bool {
        let is_full = |source: &io::Error| {
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Store(error) | Self::Mend(MendError::Store(error)) => error.is_no_space(),
            Self::DataDir(DataDirError::Io { source, .. })
            | Self::Mend(MendError::Io { source, .. }) => is_full(source),
            _ => false,
        }
    }

    /// Whether it is for the settings to be changed, and not a matter of the machine or of the moment.
    pub fn is_about_settings(&self) -> bool {
        match self {
            Self::Settings(_) | Self::DataDir(DataDirError::OtherIdentity { .. }) => true,
            Self::DataDir(_)
            | Self::Store(_)
            | Self::Mend(_)
            | Self::Listen { .. }
            | Self::Runtime(_)
            | Self::Broken(_) => false,
        }
    }
}

/// A node that runs. Dropping it stops it.
pub struct Node {
    id: NodeId,
    quic: SocketAddr,
    http: SocketAddr,
    readiness: Readiness,
    failure: watch::Receiver<Option<String>>,
    left: watch::Receiver<bool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the node's threads say once they run.
pub(crate) struct Started {
    pub(crate) quic: SocketAddr,
    pub(crate) http: SocketAddr,
    /// Why the node can't ever serve, once that is known.
    pub(crate) failure: watch::Receiver<Option<String>>,
    /// Whether the node has left its cluster.
    pub(crate) left: watch::Receiver<bool>,
}

impl Node {
    /// Looks at all that can be looked at without starting anything.
    pub fn check(config: &Config) -> Result<(), StartError> {
        Credentials::load(config)?;
        let checked = DataDir::check(&config.node.data_dir, &Identity::of(config));
        checked.map(drop).map_err(|error| StartError::of_data_dir(error, config))
    }

    /// Starts a node. It listens when this returns; it serves once it belongs to a cluster, see
    /// [`Node::wait_ready`].
    pub fn start(config: Config) -> Result<Self, StartError> {
        let credentials = Credentials::load(&config)?;
        let id = config.node.id.clone();
        let readiness = Readiness::default();
        let (stop, asked_to_stop) = oneshot::channel();
        let (started_in, started) = mpsc::sync_channel(1);
        let run = {
            let readiness = readiness.clone();
            move || lives::run(config, credentials, readiness, asked_to_stop, &started_in)
        };
        let name = thread::Builder::new().name("control".into());
        let thread = name.spawn(run).map_err(StartError::Runtime)?;
        let ended = |_| StartError::Broken("the control thread ended".into());
        match started.recv().map_err(ended).flatten() {
            Ok(Started { quic, http, failure, left }) => {
                let (stop, thread) = (Some(stop), Some(thread));
                Ok(Self { id, quic, http, readiness, failure, left, stop, thread })
            }
            Err(error) => {
                // What had been started goes first, so that another attempt finds nothing in its way.
                let _ = thread.join();
                Err(error)
            }
        }
    }

    /// Its name.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Where nodes and clients reach it; with the port that was found, if the settings said 0.
    pub fn quic_address(&self) -> SocketAddr {
        self.quic
    }

    /// Where its HTTP API is; with the port that was found, if the settings said 0.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Waits until it serves; false if it doesn't within the time.
    pub fn wait_ready(&self, within: Duration) -> bool {
        self.readiness.wait(within)
    }

    /// Waits until it turns out that the node can't ever serve as it is, which is never for most, and says
    /// why. Such a node is to be stopped.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "its threads have ended".into(),
        }
    }

    /// Waits until the node has handed over all that it held and has left its cluster, as an operator wished,
    /// which is never for most. Such a node is to be stopped; there is nothing left for it to do.
    pub async fn left(&self) {
        let mut left = self.left.clone();
        if left.wait_for(|left| *left).await.is_err() {
            // Its threads have ended for another reason, which is told elsewhere.
            std::future::pending::<()>().await;
        }
    }

    /// Stops taking requests, tells its peers, lets what is under way end, and returns when nothing of
    /// it is left, within ten seconds: what takes longer is cut off.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Gone if the node has ended by itself.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({}, quic {}, http {})", self.id, self.quic, self.http)
    }
}
