//! What a client and its keyspaces hand to every operation: which fleet, which key, who to ask.

use std::sync::Arc;

use anello_protocol::{
    id::{BadName, KeyspaceName},
    key::{BadKey, Key},
};

use crate::{
    error::Error,
    fleet::{About, Fleet},
    operation::Operation,
    request::Options,
    resolve::Resolve,
    routing::Target,
};

/// What a client gives to the operations that it begins. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) options: Arc<Options>,
    pub(crate) resolver: Option<Arc<dyn Resolve>>,
    /// The one node that is asked, if it is to be only that.
    pub(crate) pin: Option<Target>,
}

impl Scope {
    /// The address of a key, valid or not: that shows when an operation begins.
    pub(crate) fn address(
        &self,
        keyspace: Result<KeyspaceName, BadName>,
        key: impl AsRef<[u8]>,
    ) -> Address {
        let key = Key::new(key.as_ref().to_vec());
        Address { fleet: self.fleet.clone(), pin: self.pin.clone(), keyspace, key }
    }

    /// An operation that is not about a key.
    pub(crate) fn about_anything<'a>(&'a self, options: &'a Options) -> Operation<'a> {
        Operation::new(&self.fleet, About::Anything, self.pin.as_ref(), options)
    }
}

/// The address of a key, as it was given.
#[derive(Clone)]
pub(crate) struct Address {
    fleet: Arc<Fleet>,
    pin: Option<Target>,
    keyspace: Result<KeyspaceName, BadName>,
    key: Result<Key, BadKey>,
}

/// The address of a key, known to be valid.
pub(crate) struct Place {
    fleet: Arc<Fleet>,
    pin: Option<Target>,
    pub(crate) keyspace: KeyspaceName,
    pub(crate) key: Key,
}

impl Address {
    /// Takes the address if it is valid.
    pub(crate) fn place(self) -> Result<Place, Error> {
        let Self { fleet, pin, keyspace, key } = self;
        let keyspace = keyspace.map_err(Error::invalid)?;
        let key = key.map_err(Error::invalid)?;
        Ok(Place { fleet, pin, keyspace, key })
    }
}

impl Place {
    /// An operation on the key.
    pub(crate) fn operation<'a>(&'a self, options: &'a Options) -> Operation<'a> {
        let about = About::Key(&self.keyspace, &self.key);
        Operation::new(&self.fleet, about, self.pin.as_ref(), options)
    }
}
