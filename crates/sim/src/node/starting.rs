//! Switching a node on: every machine begins with what the disk has for it.

use std::collections::{BTreeMap, BTreeSet};

use anello_antientropy::{
    AntiEntropy,
    purge::Purger,
    quarantine::{self, Quarantine},
};
use anello_gossip::{Input as GossipInput, Membership};
use anello_protocol::time::Now;
use anello_replica::{coordinator::Coordinator, hints::HintStore};

use super::{Inner, Node, Out, Running};

impl Node {
    /// Switches it on, unless its membership record is one with which it must not serve: that is said.
    pub fn start(&mut self, now: Now, out: &mut Vec<Out>) -> Result<(), String> {
        let id = self.id().clone();
        let seed = self.rng.draw();
        let stored = self.disk.record().map(<[u8]>::to_vec);
        if stored.is_none() && !self.disk.data().is_empty() {
            return Err("there is data, and no membership record".into());
        }
        let membership = Membership::new(self.config.clone(), stored.as_deref(), seed)
            .map_err(|error| error.to_string())?;
        let settings = &self.settings;
        let coordinator = Coordinator::new(
            id.clone(),
            self.config.member.datacenter.clone(),
            0,
            settings.coordinator.clone(),
            self.rng.draw(),
        );
        let (config, shelved) = (settings.hints.clone(), self.disk.shelved());
        let hints = HintStore::new(id.clone(), config, self.rng.draw(), shelved);
        let trees = AntiEntropy::new(id.clone(), settings.trees.clone(), self.rng.draw());
        let purger = Purger::new(id.clone(), settings.purge.clone());
        let config = settings.quarantine.clone();
        let (alive, was_restored) = (self.disk.alive(), self.disk.was_restored);
        let quarantine = Quarantine::new(now, id, config, alive, was_restored);
        self.running = Some(Running {
            membership,
            coordinator,
            replicas: BTreeMap::new(),
            hints,
            trees,
            purger,
            quarantine,
            missing: BTreeSet::new(),
            view: None,
            is_ready: false,
            hints_left: 0,
            refused: None,
            unreachable: BTreeSet::new(),
            reached: BTreeSet::new(),
            is_frozen: false,
            freezing: Vec::new(),
            asked: BTreeMap::new(),
            calls: BTreeMap::new(),
            alarms: BTreeMap::new(),
        });
        if self.disk.is_lost {
            self.turn(now, Inner::Quarantine(quarantine::Input::Lost), out);
        }
        self.turn(now, Inner::Gossip(GossipInput::Started), out);
        Ok(())
    }
}
