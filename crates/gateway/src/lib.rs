//! The HTTP API, in front of a node's coordinator and membership.
//!
//! A request goes from its bytes to typed messages and back in a few pure steps, each a file of its
//! own: the path ([`path`]) and method become a route ([`route`]), the headers become options
//! ([`options`], [`accept`]), the body a value ([`body`], [`put`]); a message is asked of an actor
//! ([`kv`], [`operators`]); and its reply becomes an answer ([`answer`], [`error`]). [`start_worker`]
//! runs all this on the arbiter of the actors that it asks. Below it, the connection ([`socket`]) sees
//! to what the HTTP server leaves open: who is waited for how long, and a `#` in a target.
//!
//! Every node describes what it promises to the outside at `GET /openapi.json`.

mod accept;
mod acceptor;
mod admin;
mod alarm;
mod answer;
mod backend;
mod body;
mod budget;
mod error;
mod exchange;
mod framing;
mod gauge;
mod keyspaces;
mod kv;
mod metrics;
mod object;
mod openapi;
mod operators;
mod options;
mod path;
mod put;
mod receipt;
mod route;
mod server;
mod service;
mod socket;
mod status;

pub use acceptor::{Acceptor, Limits};
pub use backend::Backend;
pub use server::{GatewayHandle, start_worker};
