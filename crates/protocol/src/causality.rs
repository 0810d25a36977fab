//! Who has seen what: dots, version vectors, exact contexts, and the tokens that clients carry.
//!
//! After "Dotted Version Vectors: Efficient Causality Tracking for Distributed Key-Value Stores"
//! (Preguiça, Baquero, Almeida et al., 2012). A version is named by a [`Dot`]; a [`Context`] is an
//! exact set of dots. Nothing here ever rounds a set up: that would delete what nobody has read.

mod context;
mod dot;
mod token;
mod version_vector;

pub use context::Context;
pub use dot::{ActorId, Dot, Incarnation};
pub use token::{BadToken, MAX_TOKEN_BYTES, token_decode, token_encode};
pub use version_vector::VersionVector;
