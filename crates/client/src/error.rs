//! What an operation that came to nothing says of itself: why, and whether it may have happened.
//!
//! The two are separate on purpose. An operation is made of attempts; if the first was cut off half-way
//! and the second was refused for overload, the reason is the overload, and the write may have been
//! kept all the same.

use std::{fmt, time::Duration};

use anello_protocol::id::KeyspaceName;

/// How many replicas had to answer, and how many did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How many had to answer.
    pub required: u16,
    /// How many did.
    pub received: u16,
}

/// Why an operation came to nothing: the reason of its last attempt, or what a coordinator said of the
/// replicas before, if that reason is about the node that was asked last and says nothing of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It can never succeed as it is: a bad key, a value past its bound, a context of another key, a
    /// consistency level that makes no sense here.
    Invalid(String),
    /// Something else is under way that has to be through first, such as another change of the ring.
    Conflict(String),
    /// There is no such keyspace.
    NoSuchKeyspace(KeyspaceName),
    /// The nodes shed load.
    Overloaded {
        /// When it may be worth asking again.
        retry_after: Duration,
    },
    /// Too few replicas are reachable to try.
    Unavailable {
        /// How many must answer.
        required: u16,
        /// How many of those that count can be reached.
        alive: u16,
    },
    /// No answer, or too few replicas' answers, in time.
    Timeout {
        /// What the coordinator had when it gave up, if it said so before the time was over.
        tally: Option<Tally>,
    },
    /// No node could be reached, or the connection broke before the answer.
    Unreachable(String),
    /// The cluster won't talk to this client: another cluster's name, a certificate that it does not
    /// trust, an incompatible version.
    Refused(String),
    /// An [`update`](crate::Client::update) met siblings and was given nothing to merge them with.
    Unresolved {
        /// How many versions there are.
        siblings: usize,
    },
}

/// Why an operation came to nothing, and whether it may have happened.
///
/// ```
/// # fn handle(error: anello_client::Error) {
/// use anello_client::ErrorKind;
///
/// if error.may_have_happened() {
///     // A write that was cut off: it may be there, or may show up. Read before deciding.
/// } else if error.is_retryable() {
///     // Nothing was written, and it may work in a moment.
/// }
/// if let ErrorKind::Unavailable { required, alive } = error.kind() {
///     eprintln!("{alive} of {required} replicas are reachable");
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    may_have_happened: bool,
}

impl Error {
    /// An operation of which no attempt can have written anything.
    pub(crate) fn clean(kind: ErrorKind) -> Self {
        Self { kind, may_have_happened: false }
    }

    pub(crate) fn new(kind: ErrorKind, may_have_happened: bool) -> Self {
        Self { kind, may_have_happened }
    }

    pub(crate) fn invalid(why: impl fmt::Display) -> Self {
        Self::clean(ErrorKind::Invalid(why.to_string()))
    }

    /// Why it came to nothing.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Whether it may have taken effect all the same, or may still do so.
    ///
    /// `false` is certain: nothing was written. A read never is in doubt.
    pub fn may_have_happened(&self) -> bool {
        self.may_have_happened
    }

    /// Whether the same operation may work later. The client has tried for as long as it was allowed
    /// to; to try again is the caller's decision.
    ///
    /// To write again after an error that [may have happened](Self::may_have_happened) is a second
    /// write, unless both carry the same
    /// [idempotency key](crate::request::Put::idempotency_key).
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Overloaded { .. }
            | ErrorKind::Unavailable { .. }
            | ErrorKind::Timeout { .. }
            | ErrorKind::Conflict(_)
            | ErrorKind::Unreachable(_) => true,
            ErrorKind::Invalid(_)
            | ErrorKind::NoSuchKeyspace(_)
            | ErrorKind::Refused(_)
            | ErrorKind::Unresolved { .. } => false,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => f.write_str(why),
            Self::NoSuchKeyspace(name) => write!(
                f,
                "there is no keyspace {name}; create it with `anello keyspace create {name}`"
            ),
            Self::Overloaded { retry_after } => {
                write!(f, "the nodes have too much to do; ask again in {retry_after:?}")
            }
            Self::Unavailable { required, alive } => {
                write!(f, "{required} replicas must answer and only {alive} can be reached")
            }
            Self::Timeout { tally: Some(Tally { required, received }) } => {
                write!(f, "{received} of the {required} replicas that must answer did so in time")
            }
            Self::Timeout { tally: None } => f.write_str("no answer came in time"),
            Self::Conflict(why) | Self::Unreachable(why) | Self::Refused(why) => f.write_str(why),
            Self::Unresolved { siblings } => write!(
                f,
                "the key has {siblings} concurrent versions and the update no resolver for them"
            ),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if self.may_have_happened {
            f.write_str("; it may have happened all the same")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
