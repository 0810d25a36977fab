//! Operations under construction: what to do, with which options, then `.await`.
//!
//! Nothing happens before the operation is awaited. Mistakes in names, keys and values show then too,
//! as [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), so that a chain of calls stays a chain.

mod options;
mod read;
mod update;
mod write;

pub(crate) use options::Options;
pub use read::Get;
pub use update::{Change, Update, Updated};
pub use write::{Delete, Put};

use std::{future::Future, pin::Pin};

use anello_protocol::message::client::Receipt;

/// The future of an operation. It can be awaited on any task of any tokio runtime.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, crate::Error>> + Send>>;

/// An answer together with who took part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained<T> {
    /// The answer.
    pub answer: T,
    /// The coordinator and the replicas, each with its part.
    pub receipt: Option<Receipt>,
}
