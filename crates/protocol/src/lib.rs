//! The vocabulary of Anello and its wire contract.
//!
//! Names and places ([`id`]), keys and their hashes ([`key`]), who has seen what ([`causality`]),
//! versions of values ([`version`]), digests of many keys ([`merkle`]), what the members agree on ([`cluster`]), and every message that
//! is sent ([`message`]). No async, no I/O, no clock: everything else depends on this crate, and this
//! crate depends on nothing of Anello's.

pub mod causality;
pub mod cluster;
pub mod codec;
pub mod consistency;
pub mod id;
pub mod key;
pub mod merkle;
pub mod message;
pub mod time;
pub mod version;
