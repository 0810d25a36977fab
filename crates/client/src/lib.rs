//! The client of Anello: a key-value store that takes every write, keeps what was written at the same
//! time side by side, and lets the application decide what it means.
//!
//! ```
//! # mod in_process { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/in_process/mod.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = in_process::start();
//! # let profile = node.profile();
//! # let (address, ca, cert, key) = (&profile.seeds[0], &profile.tls.ca, &profile.tls.cert, &profile.tls.key);
//! use anello_client::{Client, Read};
//!
//! let client = Client::builder()
//!     .seeds([address])               // nodes' QUIC addresses; one that answers is enough
//!     .datacenter("eu")               // where this program runs
//!     .tls_files(ca, cert, key)       // what `anello tls issue` made
//!     .connect()
//!     .await?;
//!
//! client.put("greeting", "hello").await?;
//! match client.get("greeting").await? {
//!     Read::One { value, .. } => assert_eq!(value, "hello"),
//!     Read::Siblings { siblings, .. } => println!("{} versions to merge", siblings.len()),
//!     Read::Deleted { .. } | Read::Missing => println!("not there"),
//! }
//! # Ok(()) }
//! ```
//!
//! Beside a fleet of `anello fleet up`, or wherever there is a [profile](Profile), it is even less:
//! `Client::from_profile(&profile)`.
//!
//! # Reading, and what was seen
//!
//! Replicas take writes even while they can't reach each other, so a key may have several values of
//! which none is newer: **siblings**. A [`Read`] is an enum, so that no program can overlook them. What
//! a read finds comes with a [`Context`]: what the reader has seen. A write that carries it replaces
//! exactly that and nothing else; a write without one is concurrent with all that is there.
//!
//! ```
//! # mod in_process { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/in_process/mod.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = in_process::start();
//! # let client = anello_client::Client::from_profile(&node.profile()).await?;
//! # use anello_client::Read;
//! // Two writers that know nothing of each other:
//! client.put("colour", "red").await?;
//! client.put("colour", "blue").await?;
//! let Read::Siblings { siblings, context } = client.get("colour").await? else { panic!() };
//! assert_eq!(siblings.len(), 2);
//!
//! // Somebody who has seen both settles it:
//! let context = client.put("colour", "purple").context(context).await?;
//! assert!(matches!(client.get("colour").await?, Read::One { .. }));
//!
//! // A write answers with its own context, to go on from without reading:
//! client.put("colour", "violet").context(context).await?;
//! # Ok(()) }
//! ```
//!
//! # Updating, and merging
//!
//! [`update`](Client::update) does the whole round: it reads, merges what siblings there are, applies a
//! change, and writes back over what it has read. What merges is a [`Resolve`]: for a set that only
//! grows it is the union, as for the shopping cart of the Dynamo paper:
//!
//! ```
//! # mod in_process { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/in_process/mod.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = in_process::start();
//! # let client = anello_client::Client::from_profile(&node.profile()).await?;
//! use std::collections::BTreeSet;
//! use anello_client::{Bytes, Read};
//!
//! /// A cart is a line for each item.
//! fn union(carts: Vec<Bytes>) -> Bytes {
//!     let carts: Vec<_> = carts.iter().map(|cart| String::from_utf8_lossy(cart)).collect();
//!     let items: BTreeSet<_> = carts.iter().flat_map(|cart| cart.lines()).collect();
//!     items.into_iter().collect::<Vec<_>>().join("\n").into()
//! }
//!
//! fn add(item: &'static str) -> impl FnOnce(Option<Bytes>) -> Bytes {
//!     move |cart| union(cart.into_iter().chain([item.into()]).collect())
//! }
//!
//! let carts = client.keyspace("default").resolver(union);
//! // From two devices at the same moment; each may miss the other, neither is lost.
//! let (phone, laptop) = tokio::join!(
//!     carts.update("cart:42", add("a book")),
//!     carts.update("cart:42", add("a lamp")),
//! );
//! (phone?, laptop?);
//!
//! let cart = carts.update("cart:42", |cart| cart).await?;
//! assert_eq!(cart.value.unwrap(), "a book\na lamp");
//! # Ok(()) }
//! ```
//!
//! An update never fails because of another one. If somebody else's write comes between its read and
//! its write, both are kept as siblings, and the next reader merges them. So a resolver must be able to
//! merge *results*. For a set that is easy. For a number it isn't: of two siblings `5`, each made from
//! `4` by adding one, no resolver can tell that the sum should be 6. Count per writer instead, and take
//! the greatest of each writer's counts; `examples/counter.rs` does that. And where an element can be
//! taken out again, keep a note that it was: a union brings it back.
//!
//! # Errors, and what they leave open
//!
//! An [`Error`] says [why](Error::kind), whether the operation
//! [may have happened](Error::may_have_happened) all the same, and whether it
//! [may work later](Error::is_retryable). Before there is an error, the client has tried:
//!
//! - An operation has a **deadline** (5 s unless told otherwise), each of its attempts a shorter one
//!   (2 s). An attempt that fails is followed by one at another node, after a pause with jitter.
//! - All attempts of one write carry one **write id**. However many of them arrive, they are one event.
//! - Retries have a **budget**, for all clones of a client together: a fifth of the operations, and a
//!   trickle. In front of a cluster in trouble the client gives up early and says so, instead of
//!   multiplying the load. An attempt that did not reach its node costs nothing.
//! - A node that asks to be left alone (`overloaded`) is, for as long as it says.
//!
//! ```
//! # mod in_process { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/in_process/mod.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = in_process::start();
//! # let client = anello_client::Client::from_profile(&node.profile()).await?;
//! use std::time::Duration;
//! use anello_client::Consistency;
//!
//! let placed = client
//!     .put("order:7", "1 lamp")
//!     .consistency(Consistency::Quorum)
//!     .timeout(Duration::from_millis(800))
//!     .idempotency_key("order 7")   // the same event if this program restarts and tries again
//!     .await;
//! match placed {
//!     Ok(_) => println!("placed"),
//!     Err(error) if error.may_have_happened() => println!("unknown: {error}"),
//!     Err(error) => println!("certainly not placed: {error}"),
//! }
//! # Ok(()) }
//! ```
//!
//! # Whom it asks
//!
//! The client learns the ring from a seed and follows its changes. A request goes to a replica of its
//! key in the client's own datacenter: the one that answers fastest, with regard to what is under way
//! to it and with a little chance, so that load spreads. If those are away, to a replica elsewhere, then
//! to any node, then to the seeds again. Connections are restored by themselves, for as long as it
//! takes.
//!
//! # Threads and runtimes
//!
//! A [`Client`] is cheap to clone and can be used from every thread and from any tokio runtime. Its
//! connections are driven by the runtime on which it was made, so that one must outlive it. One
//! connection to each node carries any number of requests at a time; see
//! [`ClientBuilder::connections`] for when that is not enough.

mod admin;
mod builder;
mod client;
mod error;
mod fleet;
mod follow;
mod health;
mod judge;
mod operation;
mod profile;
mod read;
pub mod request;
mod resolve;
mod retry;
mod ring_view;
mod routing;
mod scope;

/// The vocabulary of the protocol: what [`Client::cluster`] and the like answer with.
pub use anello_protocol as protocol;
pub use anello_protocol::{
    cluster::{KeyspaceConfig, Replication},
    consistency::{Consistency, QuorumKind},
    version::ConflictRule,
};
pub use anello_transport::{TlsPem, TraceContext};
pub use bytes::Bytes;

pub use builder::ClientBuilder;
pub use client::{Client, Keyspace};
pub use error::{Error, ErrorKind, Tally};
pub use profile::{Profile, ProfileError, TlsFiles};
pub use read::{Context, Read, Sibling};
pub use request::{Change, Updated};
pub use resolve::Resolve;
