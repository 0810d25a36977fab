//! The store of a node: one RocksDB behind the ports of replicas and of membership.
//!
//! [`store`] answers the ports, [`shared`] reads and writes the database, [`commit`] makes writes durable, many at a time, [`keys`] says where
//! what lies, [`options`] how RocksDB is set up, [`run`] what is known of the process before this one,
//! [`recent`] what was written lately, [`held`] of which keyspaces there is data, [`sweep`] deletes what
//! dropped keyspaces leave behind. [`room`] says whether the disk has room, [`watch`] looks, [`trouble`] is
//! told when a store is damaged, and [`wreck`] reads what can be read of one that is.

mod commit;
mod held;
mod keys;
mod options;
mod recent;
mod room;
mod run;
mod shared;
mod store;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;
mod trouble;
mod watch;
mod wreck;

pub(crate) use self::{
    store::{Belonging, Replacement},
    wreck::{Salvaged, Wreck},
};
pub use self::{
    store::{CommitFigures, OpenError, RocksStore},
    trouble::Trouble,
};
