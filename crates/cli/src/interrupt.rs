//! Interrupts: Ctrl-C, the end of the terminal, or the system's wish that this program end.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::outcome::Failure;

/// Interrupts, each one once.
pub(crate) struct Interrupts {
    heard: mpsc::Receiver<()>,
}

impl Interrupts {
    /// Listens from here on, instead of being ended by them.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let (hear, heard) = mpsc::channel(4);
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signals = signal(kind).map_err(|error| {
                Failure::failed(format_args!("cannot listen to signals: {error}"))
            })?;
            let hear = hear.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    // A full channel holds enough of them.
                    let _ = hear.try_send(());
                }
            });
        }
        Ok(Self { heard })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        if self.heard.recv().await.is_none() {
            // Who can't hear any more waits for ever.
            std::future::pending::<()>().await;
        }
    }
}
