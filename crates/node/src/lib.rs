//! The Anello daemon: a node that stores its share of the keys and answers for all of them.
//!
//! [`config`] reads the settings, [`rocks`] keeps the data, `arbiter` runs the actors of one thread,
//! `daemon` starts and ends everything, `lives` starts it again when its store is in trouble, and [`Node`]
//! is the handle to all of it. The behaviour is in the crates below: replica, gossip, transport, gateway;
//! here they are connected.
//!
//! A node for a test, in this process:
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//! use anello_node::{Node, config::Config};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::start(Config::load(Some(Path::new("node.toml")), [])?)?;
//! assert!(node.wait_ready(Duration::from_secs(10)));
//! println!("try http://{}/kv/hello", node.http_address());
//! node.stop();
//! # Ok(())
//! # }
//! ```

mod arbiter;
mod conductor;
pub mod config;
mod credentials;
mod daemon;
mod data_dir;
mod handing_over;
mod holdings;
mod lives;
pub mod log;
mod mending;
mod node;
mod open_files;
mod readiness;
pub mod rocks;
mod routes;
mod salvage;
mod status;
mod steward;
mod thread;

pub use data_dir::DataDirError;
pub use mending::MendError;
pub use node::{Node, StartError};
