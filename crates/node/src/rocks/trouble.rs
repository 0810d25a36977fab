//! What is wrong with a store as a whole, for the one who can do something about it: close it, and open
//! it or another in its place.

use tokio::sync::watch;

/// What is wrong. The first thing that is found stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Something that was written reads back otherwise: a checksum says so.
    Damaged(String),
    /// It has stopped writing, and opening it anew may help.
    Stuck(String),
}

/// Where it is told.
#[derive(Debug)]
pub(super) struct Troubles(watch::Sender<Option<Trouble>>);

impl Troubles {
    pub(super) fn new() -> Self {
        Self(watch::channel(None).0)
    }

    /// Tells it, and logs it, unless something was told before.
    pub(super) fn tell(&self, trouble: Trouble) {
        self.0.send_if_modified(|told| {
            let is_first = told.is_none();
            if is_first {
                match &trouble {
                    Trouble::Damaged(what) => tracing::error!("the store is damaged: {what}"),
                    Trouble::Stuck(what) => tracing::error!("{what}"),
                }
                *told = Some(trouble);
            }
            is_first
        });
    }

    /// To wait for it.
    pub(super) fn told(&self) -> watch::Receiver<Option<Trouble>> {
        self.0.subscribe()
    }
}
