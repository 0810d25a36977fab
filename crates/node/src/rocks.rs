//! The store of a node: one RocksDB behind the ports of replicas and of membership.
//!
//! [`store`] answers the ports, [`opening`] says why it can't be opened, [`shared`] reads and writes the database, [`commit`] makes writes durable, many at a time, [`keys`] says where
//! what lies, [`options`] how RocksDB is set up, [`run`] what is known of the process before this one,
//! [`recent`] what was written lately, [`held`] of which keyspaces there is data, [`sweep`] deletes what
//! dropped keyspaces leave behind, [`release`] what the node doesn't hold any more, [`joining`] what is left of
//! what it takes in, by [`sift`], a few keys at a time, and [`clear`], all at once. [`room`] says whether the disk has room, [`watch`] looks, [`trouble`] is
//! told when a store is damaged, and [`wreck`] reads what can be read of one that is.
//!
//! [`leaves`] are those of the Merkle trees, [`keeper`] keeps them in step with the data, [`trees`] answers
//! their port, [`tombstones`] are a list of what was deleted, [`shelf`] is where hints are kept, and
//! [`layout`] brings a store of an older version to all that.

mod clear;
mod commit;
mod held;
mod joining;
mod keeper;
mod keys;
mod layout;
mod leaves;
mod memory;
mod opening;
mod options;
mod recent;
mod release;
mod room;
mod run;
mod shared;
mod shelf;
mod sift;
mod store;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;
mod tombstones;
mod trees;
mod trouble;
mod watch;
mod wreck;

pub use self::{
    commit::CommitLook,
    opening::OpenError,
    store::{CommitFigures, RocksStore},
    trouble::Trouble,
};
pub(crate) use self::{
    joining::clear as clear_joining,
    store::{Belonging, Replacement},
    wreck::{Salvaged, Wreck},
};
