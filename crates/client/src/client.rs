//! The client, and its keyspaces: where operations begin.

use std::{fmt, sync::Arc};

use anello_protocol::{
    id::{BadName, KeyspaceName},
    version::{Content, Value},
};
use bytes::Bytes;

use crate::{
    builder::ClientBuilder,
    error::Error,
    profile::Profile,
    request::{Change, Delete, Get, Put, Update},
    resolve::Resolve,
    routing::Target,
    scope::Scope,
};

/// A client of one cluster.
///
/// Cheap to clone: all clones share the connections, the view of the ring and the retry budget. It can
/// be used from every thread and task; the connections are driven by the runtime that it was made on,
/// which must outlive it.
#[derive(Clone)]
pub struct Client {
    pub(crate) scope: Scope,
}

/// The keys of one keyspace. Made by [`Client::keyspace`].
#[derive(Clone)]
pub struct Keyspace {
    pub(crate) scope: Scope,
    pub(crate) name: Result<KeyspaceName, BadName>,
}

impl Client {
    /// Begins to make a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Makes a client from a [profile](Profile), and learns the ring.
    pub async fn from_profile(profile: &Profile) -> Result<Self, Error> {
        Self::builder().profile(profile).connect().await
    }

    /// The keys of a keyspace.
    pub fn keyspace(&self, name: &str) -> Keyspace {
        Keyspace { scope: self.scope.clone(), name: KeyspaceName::new(name) }
    }

    /// The same client, except that it asks only the node at this address (`host:port`), for whatever
    /// it is: to see the cluster, or a key, as that node does.
    pub fn to_node(&self, address: &str) -> Self {
        let pin = Some(Target::Seed(address.into()));
        Self { scope: Scope { pin, ..self.scope.clone() } }
    }

    /// Reads a key of the keyspace `default`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        self.default_keyspace().get(key)
    }

    /// Writes a key of the keyspace `default`.
    ///
    /// With the context of what was read it replaces exactly that; without one, it is concurrent with
    /// whatever is there.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Put {
        self.default_keyspace().put(key, value)
    }

    /// Deletes a key of the keyspace `default`.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete {
        self.default_keyspace().delete(key)
    }

    /// Changes a key of the keyspace `default`: reads it, merges its siblings, applies the change once,
    /// and writes the result over what was read.
    pub fn update<F, C>(&self, key: impl AsRef<[u8]>, change: F) -> Update<F>
    where
        F: FnOnce(Option<Bytes>) -> C,
        C: Into<Change>,
    {
        self.default_keyspace().update(key, change)
    }

    /// Closes the connections, so that the nodes notice at once. For all clones; what is under way may
    /// have happened.
    pub async fn close(&self) {
        self.scope.fleet.close().await;
    }

    fn default_keyspace(&self) -> Keyspace {
        let name = Ok(KeyspaceName::default_keyspace());
        Keyspace { scope: self.scope.clone(), name }
    }
}

impl Keyspace {
    /// The same keyspace, with updates that merge siblings by this resolver unless they bring their
    /// own.
    pub fn resolver(self, resolver: impl Resolve + 'static) -> Self {
        let scope = Scope { resolver: Some(Arc::new(resolver)), ..self.scope };
        Self { scope, ..self }
    }

    /// Reads a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        let address = self.scope.address(self.name.clone(), key);
        Get { address, options: (*self.scope.options).clone() }
    }

    /// Writes a key. See [`Client::put`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Put {
        Put {
            address: self.scope.address(self.name.clone(), key),
            options: (*self.scope.options).clone(),
            content: Value::new(value).map(Content::Value),
            context: None,
            write_id: None,
        }
    }

    /// Deletes a key.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete {
        Delete {
            address: self.scope.address(self.name.clone(), key),
            options: (*self.scope.options).clone(),
            context: None,
            write_id: None,
        }
    }

    /// Changes a key. See [`Client::update`].
    pub fn update<F, C>(&self, key: impl AsRef<[u8]>, change: F) -> Update<F>
    where
        F: FnOnce(Option<Bytes>) -> C,
        C: Into<Change>,
    {
        Update {
            address: self.scope.address(self.name.clone(), key),
            options: (*self.scope.options).clone(),
            resolver: self.scope.resolver.clone(),
            change,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("epoch", &self.scope.fleet.epoch()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.name).finish_non_exhaustive()
    }
}
