//! The store of a node: one RocksDB behind the ports of replicas and of membership.
//!
//! [`store`] answers the ports, [`commit`] makes writes durable, many at a time, [`keys`] says where
//! what lies, [`options`] how RocksDB is set up, [`run`] what is known of the process before this one,
//! [`recent`] what was written lately, [`held`] of which keyspaces there is data, [`sweep`] deletes what
//! dropped keyspaces leave behind.

mod commit;
mod held;
mod keys;
mod options;
mod recent;
mod run;
mod store;
mod sweep;
#[cfg(test)]
mod tests;

pub use self::store::{CommitFigures, OpenError, RocksStore};
