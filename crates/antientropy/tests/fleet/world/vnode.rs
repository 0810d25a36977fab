//! The vnodes of the fleet's nodes, as the protocol has them: they join what they are sent, and show what
//! they hold.

use std::sync::Arc;

use anello_antientropy::store::TreeStore;
use anello_protocol::{
    id::{Epoch, NodeId},
    key::DataKey,
    message::{
        repair::{PurgeVersions, Purged},
        replica::{Held, ReadVersions, Refusal, StoreVersions, Stored, Want},
    },
    version::Versions,
};

use super::World;

impl World {
    pub(super) fn read(&self, at: &NodeId, read: &ReadVersions) -> Result<Held, Refusal> {
        self.admit(read.epoch)?;
        if self.sites[at].quarantined {
            return Err(Refusal::Quarantined);
        }
        let versions = self.sites[at].store.read(&read.key).expect("memory reads");
        Ok(match read.want {
            Want::Full => Held::Full(versions),
            Want::Digest => Held::Digest(versions.digest()),
        })
    }

    pub(super) fn drop_copy(&self, at: &NodeId, purge: &PurgeVersions) -> Result<Purged, Refusal> {
        self.admit(purge.epoch)?;
        let site = &self.sites[at];
        let held = site.store.read(&purge.key).expect("memory reads");
        if !site.quarantined || held.is_deleted() || held.digest() != purge.digest {
            return Err(Refusal::Quarantined);
        }
        site.store.put(&purge.key, Arc::default());
        Ok(Purged::Gone)
    }

    pub(super) fn store(&mut self, at: &NodeId, store: StoreVersions) -> Result<Stored, Refusal> {
        self.admit(store.epoch)?;
        if self.sites[at].refuses_stores {
            return Err(Refusal::Storage("no".to_owned()));
        }
        assert_eq!(store.rule, self.rule, "the keyspace's rule");
        self.join(at, &store.key, store.versions);
        Ok(Stored { lost_to: None, is_quarantined: false })
    }

    fn admit(&self, epoch: Epoch) -> Result<(), Refusal> {
        let own = self.view.epoch();
        if epoch < own { Err(Refusal::StaleEpoch(own)) } else { Ok(()) }
    }

    pub(super) fn join(&mut self, at: &NodeId, key: &DataKey, versions: Versions) {
        let store = &self.sites[at].store;
        let mut held = store.read(key).expect("memory reads");
        if held.merge(versions, self.rule) {
            store.put(key, Arc::new(held));
        }
    }
}
