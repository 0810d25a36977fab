//! What a hint store is told and asked, what it answers, and what it wants done.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::{
    id::{Epoch, NodeId},
    key::DataKey,
    message::{
        hint::{CheckHints, Credit, MarkForRepair, MintHint, ReadHints, RequestCredit, StoreHint},
        replica::{Held, Minted, Refusal, StoreVersions, Stored},
    },
    time::Moment,
    version::Content,
};
use anello_ring::view::View;

use super::{
    CallFailure,
    store::{Hint, HintChange},
};
pub use crate::replica::{CommitNumber, CommitOutcome, Token};

/// What a request weighs beside its key and values.
const REQUEST_OVERHEAD_BYTES: usize = 256;

/// The name of a message that was sent, under which its answer comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallNumber(pub u64);

/// The name of a page that was asked for, under which it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(pub u64);

/// What a hint store is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// To keep versions for an owner.
    Store(StoreHint),
    /// To issue a dot, and to keep the version for an owner.
    Mint(MintHint),
    /// What it durably keeps of a key.
    Read(ReadHints),
    /// Whether it keeps anything of these keys.
    Check(CheckHints),
    /// How much this node can take from another one, which is the first.
    Credit(NodeId, RequestCredit),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Request::Store`].
    Store(Result<Stored, Refusal>),
    /// To [`Request::Mint`].
    Mint(Result<Minted, Refusal>),
    /// To [`Request::Read`].
    Read(Result<Held, Refusal>),
    /// To [`Request::Check`].
    Check(Result<Vec<bool>, Refusal>),
    /// To [`Request::Credit`].
    Credit(Credit),
}

/// How much the node's disk has to do besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Little: all of the pool can be granted.
    #[default]
    Calm,
    /// Writes wait in its queue: an eighth of the pool.
    Raised,
    /// They wait for long: a trickle.
    Heavy,
}

/// What happens to a hint store.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody asks.
    Asked {
        /// Who gets the answer.
        token: Token,
        /// What.
        request: Request,
    },
    /// What the shelf has, which [`Effect::Load`] asked for, or a sentence about why it can't tell.
    Loaded {
        /// For whom.
        owner: NodeId,
        /// The key.
        key: DataKey,
        /// What is durably kept.
        found: Result<Option<Hint>, String>,
    },
    /// What [`Effect::Page`] asked for, or a sentence about why it can't be read.
    Paged(PageNumber, Result<Vec<(DataKey, Hint)>, String>),
    /// A commit has ended.
    Committed(CommitNumber, CommitOutcome),
    /// A message has its answer, or never will.
    Answered(CallNumber, Result<Incoming, CallFailure>),
    /// The members have agreed on another state.
    ClusterChanged(Arc<View>),
    /// The failure detector has another verdict on a node.
    ReachabilityChanged {
        /// The node.
        node: NodeId,
        /// Whether it answers.
        reachable: bool,
    },
    /// How much this node's disk has to do besides.
    PressureChanged(Pressure),
    /// The members vote on who owns what: nothing may be written until they have.
    Freeze,
    /// They have.
    Thaw,
    /// The moment of [`super::HintStore::next_wake`] has come.
    TimeUp,
}

/// A message to another node, or to this node's own vnodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// To the key's vnode on that node.
    Store(StoreVersions),
    /// To that node's hint store.
    Credit(RequestCredit),
    /// To that node.
    Mark(MarkForRepair),
}

/// What answers an [`Outgoing`].
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// To [`Outgoing::Store`].
    Stored(Result<Stored, Refusal>),
    /// To [`Outgoing::Credit`].
    Credit(Credit),
    /// To [`Outgoing::Mark`].
    Marked,
}

/// What a hint store wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read what is kept for an owner of a key and bring it back as [`Input::Loaded`].
    Load(NodeId, DataKey),
    /// Read hints for an owner in their order and bring them back as [`Input::Paged`].
    Page {
        /// Under this name.
        page: PageNumber,
        /// For whom.
        owner: NodeId,
        /// From this one on.
        from: u64,
        /// At most so many.
        count: usize,
        /// And no more once they have so many bytes.
        bytes: usize,
    },
    /// Keep this; tell the outcome as [`Input::Committed`]. In the order in which they come.
    Commit(CommitNumber, HintChange),
    /// Send a message; its answer comes back as [`Input::Answered`].
    Send {
        /// Under this name.
        call: CallNumber,
        /// To this node, which may be this one.
        to: NodeId,
        /// What.
        message: Outgoing,
        /// Until when an answer is of use.
        deadline: Moment,
    },
    /// Answer a request.
    Reply(Token, Reply),
    /// Since [`Input::Freeze`] every change that was under way has ended.
    Quiet,
}

/// What a hint store tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HintFigures {
    /// For whom something is kept.
    pub owners: BTreeMap<NodeId, OwnerFigures>,
    /// How many hints were delivered since the start.
    pub delivered: u64,
    /// How many were refused because of the bound, or dropped for their age, since the start.
    pub dropped: u64,
    /// How many bytes others may send to this node at the moment.
    pub granted_bytes: u64,
    /// The disk's pressure, which bounds them.
    pub pressure: Pressure,
}

/// What is kept for one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerFigures {
    /// How many hints.
    pub count: u64,
    /// Their weight, in bytes.
    pub bytes: u64,
    /// Since when about the oldest is kept, in seconds.
    pub oldest_s: u64,
    /// How many are being delivered.
    pub in_flight: usize,
    /// How many bytes the owner can still take before it has to be asked again.
    pub credit_bytes: u64,
    /// In how many ranges some were dropped of which the owner has not been told.
    pub marked: usize,
}

impl Request {
    /// The state that its sender acts under, for those that name one.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        match self {
            Request::Store(hint) => Some(hint.store.epoch),
            Request::Mint(hint) => Some(hint.mint.epoch),
            Request::Read(read) => Some(read.epoch),
            Request::Check(_) | Request::Credit(..) => None,
        }
    }

    /// What it counts for towards the bounds, in bytes.
    pub(super) fn weight(&self) -> usize {
        let of = |key: &DataKey, values| key.key.as_bytes().len() + values;
        let own = match self {
            Request::Store(hint) => of(&hint.store.key, hint.store.versions.value_bytes()),
            Request::Mint(hint) => match &hint.mint.content {
                Content::Value(value) => of(&hint.mint.key, value.bytes().len()),
                Content::Tombstone => of(&hint.mint.key, 0),
            },
            Request::Read(read) => of(&read.key, 0),
            Request::Check(check) => check.keys.iter().map(|key| of(key, 64)).sum(),
            Request::Credit(..) => 0,
        };
        REQUEST_OVERHEAD_BYTES + own
    }

    /// The answer that it won't be done.
    pub(super) fn refused(&self, refusal: Refusal) -> Reply {
        match self {
            Request::Store(_) => Reply::Store(Err(refusal)),
            Request::Mint(_) => Reply::Mint(Err(refusal)),
            Request::Read(_) => Reply::Read(Err(refusal)),
            Request::Check(_) => Reply::Check(Err(refusal)),
            Request::Credit(..) => Reply::Credit(Credit { bytes: 0, retry_ms: 250 }),
        }
    }
}

impl Reply {
    /// The same answer's refusal: what it rested on did not come about.
    pub(super) fn refused(self, refusal: Refusal) -> Self {
        match self {
            Reply::Store(_) => Reply::Store(Err(refusal)),
            Reply::Mint(_) => Reply::Mint(Err(refusal)),
            Reply::Read(_) => Reply::Read(Err(refusal)),
            Reply::Check(_) => Reply::Check(Err(refusal)),
            Reply::Credit(_) => Reply::Credit(Credit { bytes: 0, retry_ms: 250 }),
        }
    }
}
