//! The HTTP contract, row by row, from outside: a real server on a real socket, spoken to in bytes.
//!
//! Behind it stands [`support::Backstage`] at the coordinator's and membership's port: it records what
//! it is asked and answers what a test told it to.

#![allow(clippy::unwrap_used, reason = "a test that can't go on says where")]

mod connections;
mod errors;
mod keys;
mod limits;
mod operators;
mod strangers;
mod support;
