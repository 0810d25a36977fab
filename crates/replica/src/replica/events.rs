//! What a vnode is told and asked, what it answers, and what it wants done.

use std::sync::Arc;

use anello_protocol::{
    id::Epoch,
    key::DataKey,
    message::{
        repair::{PurgeVersions, Purged},
        replica::{Held, MintVersion, Minted, ReadVersions, Refusal, StoreVersions, Stored},
    },
    version::{Content, Versions},
};
use anello_ring::view::View;

use crate::store::{Commit, NotTaken};

/// What a request weighs beside its key and values.
const REQUEST_OVERHEAD_BYTES: usize = 256;

/// The shell's name for a request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The number of a commit: they are given out in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitNumber(pub u64);

/// What a vnode is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// What it durably holds.
    Read(ReadVersions),
    /// To join versions.
    Store(StoreVersions),
    /// To issue a dot.
    Mint(MintVersion),
    /// To forget a tombstone.
    Purge(PurgeVersions),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Request::Read`].
    Read(Result<Held, Refusal>),
    /// To [`Request::Store`].
    Store(Result<Stored, Refusal>),
    /// To [`Request::Mint`].
    Mint(Result<Minted, Refusal>),
    /// To [`Request::Purge`].
    Purge(Result<Purged, Refusal>),
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is durable.
    Durable,
    /// The store had no room for it: it was not kept, and never will be. This has to be told before the
    /// next effect is asked for: a later commit of the key would have kept it after all.
    NotTaken(NotTaken),
    /// It failed, with a sentence. It may have been kept all the same.
    Failed(String),
}

/// What happens to a vnode.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody asks.
    Asked {
        /// Who gets the answer.
        token: Token,
        /// What.
        request: Request,
    },
    /// What the store has of a key, which [`Effect::Load`] asked for, or a sentence about why it can't
    /// tell.
    Loaded(DataKey, Result<Versions, String>),
    /// A commit has ended.
    Committed(CommitNumber, CommitOutcome),
    /// The members have agreed on another state.
    ClusterChanged(Arc<View>),
    /// The members vote on who owns what: no data may be written until they have.
    Freeze,
    /// They have.
    Thaw,
    /// Whether what is held may lack so much that it must be shown to nobody.
    Quarantined(bool),
}

/// What a vnode wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read a key from the store and bring it back as [`Input::Loaded`].
    Load(DataKey),
    /// Keep this; tell the outcome as [`Input::Committed`]. In the order in which they come.
    Commit(CommitNumber, Commit),
    /// Answer a request.
    Reply(Token, Reply),
    /// Since [`Input::Freeze`] every write that was under way has ended: what the store holds is all
    /// there is.
    Quiet,
}

impl Request {
    /// The key that it is about.
    pub(super) fn key(&self) -> &DataKey {
        match self {
            Request::Read(read) => &read.key,
            Request::Store(store) => &store.key,
            Request::Mint(mint) => &mint.key,
            Request::Purge(purge) => &purge.key,
        }
    }

    /// The state that its sender acts under.
    pub(super) fn epoch(&self) -> Epoch {
        match self {
            Request::Read(read) => read.epoch,
            Request::Store(store) => store.epoch,
            Request::Mint(mint) => mint.epoch,
            Request::Purge(purge) => purge.epoch,
        }
    }

    /// What it counts for towards the bounds, in bytes.
    pub(super) fn weight(&self) -> usize {
        let values = match self {
            Request::Read(_) | Request::Purge(_) => 0,
            Request::Store(store) => store.versions.value_bytes(),
            Request::Mint(mint) => match &mint.content {
                Content::Value(value) => value.bytes().len(),
                Content::Tombstone => 0,
            },
        };
        REQUEST_OVERHEAD_BYTES + self.key().key.as_bytes().len() + values
    }

    /// The answer that it won't be done.
    pub(super) fn refused(&self, refusal: Refusal) -> Reply {
        match self {
            Request::Read(_) => Reply::Read(Err(refusal)),
            Request::Store(_) => Reply::Store(Err(refusal)),
            Request::Mint(_) => Reply::Mint(Err(refusal)),
            Request::Purge(_) => Reply::Purge(Err(refusal)),
        }
    }
}

impl Reply {
    /// The same answer's refusal: what it rested on did not come about.
    pub(super) fn refused(self, refusal: Refusal) -> Self {
        match self {
            Reply::Read(_) => Reply::Read(Err(refusal)),
            Reply::Store(_) => Reply::Store(Err(refusal)),
            Reply::Mint(_) => Reply::Mint(Err(refusal)),
            Reply::Purge(_) => Reply::Purge(Err(refusal)),
        }
    }
}
