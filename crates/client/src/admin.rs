//! What operators ask of a cluster, and the keyspaces that they decide on.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{
    cluster::{ClusterState, KeyspaceConfig},
    id::{Epoch, KeyspaceName},
    message::{
        Message,
        admin::{
            AlterError, AlterKeyspace, AlterRing, ClusterView, DescribeCluster, DescribeNode,
            FetchCluster, KeyspaceChange, NodeStatus, RepairStarted, RingRequest, StartRepair,
        },
        client::{KeyLocation, LocateKey},
    },
};

use crate::{
    client::{Client, Keyspace},
    error::{Error, ErrorKind},
    follow,
    request::Options,
};

/// How long a change of the cluster may take, unless the client's operations may take longer: the
/// members vote on it.
const VOTE_TIMEOUT: Duration = Duration::from_secs(20);

impl Client {
    /// The cluster as a node sees it, with who is reachable.
    pub async fn cluster(&self) -> Result<ClusterView, Error> {
        let options = &self.scope.options;
        self.scope.about_anything(options).run(|_| DescribeCluster {}).await
    }

    /// What the members have agreed on: who they are, the keyspaces.
    pub async fn cluster_state(&self) -> Result<ClusterState, Error> {
        let options = &self.scope.options;
        let state = self.scope.about_anything(options).run(|_| FetchCluster { have: Epoch(0) });
        state.await?.ok_or_else(|| {
            Error::clean(ErrorKind::Unreachable("the node belongs to no cluster yet".into()))
        })
    }

    /// A node's own figures: of the one that the client was pinned to by
    /// [`to_node`](Self::to_node), else of any.
    pub async fn status(&self) -> Result<NodeStatus, Error> {
        let options = &self.scope.options;
        self.scope.about_anything(options).run(|_| DescribeNode {}).await
    }

    /// Has a node compare all that it holds with the other replicas, from now on: the one that the client
    /// was pinned to by [`to_node`](Self::to_node), else any.
    pub async fn repair(&self) -> Result<RepairStarted, Error> {
        let options = &self.scope.options;
        self.scope.about_anything(options).run(|_| StartRepair {}).await
    }

    /// The keyspaces.
    pub async fn keyspaces(&self) -> Result<BTreeMap<KeyspaceName, KeyspaceConfig>, Error> {
        let keyspaces = self.cluster_state().await?.keyspaces.into_iter();
        Ok(keyspaces.map(|(name, keyspace)| (name, keyspace.config)).collect())
    }

    /// Creates a keyspace, or alters it if it is there. When this returns, the members have agreed;
    /// each node acts on it as soon as it hears of it. If it holds data and its replication changes, that moves
    /// by and by: [`cluster_state`](Self::cluster_state) says how far it is.
    pub async fn set_keyspace(&self, name: &str, config: KeyspaceConfig) -> Result<Epoch, Error> {
        self.alter(name, KeyspaceChange::Set(config)).await
    }

    /// Drops a keyspace with all its data.
    pub async fn drop_keyspace(&self, name: &str) -> Result<Epoch, Error> {
        self.alter(name, KeyspaceChange::Drop).await
    }

    /// Changes who owns the ring: a node leaves, is removed, is replaced, or gets another weight. When this
    /// returns, the change has begun; data moves by and by, and
    /// [`cluster_state`](Self::cluster_state) says how far it is.
    ///
    /// One change is under way at a time: another one is an [`ErrorKind::Conflict`].
    pub async fn alter_ring(&self, change: RingRequest) -> Result<Epoch, Error> {
        self.vote(|| AlterRing { change: change.clone() }).await
    }

    async fn alter(&self, name: &str, change: KeyspaceChange) -> Result<Epoch, Error> {
        let name = KeyspaceName::new(name).map_err(Error::invalid)?;
        self.vote(|| AlterKeyspace { name: name.clone(), change: change.clone() }).await
    }

    async fn vote<M>(&self, message: impl Fn() -> M) -> Result<Epoch, Error>
    where
        M: Message<Reply = Result<Epoch, AlterError>>,
    {
        let time = VOTE_TIMEOUT.max(self.scope.options.timeout);
        let options = Options::new(time, time);
        let voted = self.scope.about_anything(&options).once().run(|_| message());
        let epoch = voted.await?;
        // So that what this client does next is done under the new state. Should it not learn it
        // right away, the follower will.
        if self.scope.fleet.epoch() < epoch {
            let _ = follow::refresh(&self.scope.fleet).await;
        }
        Ok(epoch)
    }
}

impl Keyspace {
    /// Where a key lives, and who stands in for its replicas.
    pub async fn locate(&self, key: impl AsRef<[u8]>) -> Result<KeyLocation, Error> {
        let place = self.scope.address(self.name.clone(), key).place()?;
        let message = |_| LocateKey { keyspace: place.keyspace.clone(), key: place.key.clone() };
        place.operation(&self.scope.options).run(message).await
    }
}
