//! What happens in a fleet: by a test's hand, or by chance.

use std::collections::BTreeSet;

use anello_protocol::{key::DataKey, version::Versions};

use super::{
    bench::{NODES, config},
    fleet::{Event, Fleet, LIFE},
};
use crate::purge::{Input, Purger};

impl Fleet {
    /// Versions come to a replica within a carrier's life.
    pub(super) fn carry(&mut self, to: usize, key: &DataKey, versions: &Versions, delay: u64) {
        assert!(delay <= LIFE);
        let (key, versions) = (key.clone(), versions.clone());
        self.at(delay, Event::Store { to, key, versions, hint_at: None });
    }

    pub(super) fn hint(
        &mut self,
        to: usize,
        owner: usize,
        key: &DataKey,
        versions: &Versions,
        delay: u64,
    ) {
        assert!(delay <= LIFE);
        let (key, versions) = (key.clone(), versions.clone());
        self.at(delay, Event::Hint { to, owner, key, versions });
    }

    /// Sends what is kept for others; the hints go once the owner has it.
    pub(super) fn deliver(&mut self, at: usize) {
        for ((owner, key), versions) in self.nodes[at].hints.clone() {
            let delay = self.draw(LIFE);
            self.at(delay, Event::Store { to: owner, key, versions, hint_at: Some(at) });
        }
    }

    /// Two replicas exchange what they hold.
    pub(super) fn exchange(&mut self, one: usize, other: usize) {
        let keys: BTreeSet<_> =
            [one, other].iter().flat_map(|at| self.nodes[*at].data.keys().cloned()).collect();
        for key in keys {
            let (held, there) = (self.held(one, &key), self.held(other, &key));
            if held != there {
                let delays = [self.draw(LIFE), self.draw(LIFE)];
                self.carry(other, &key, &held, delays[0]);
                self.carry(one, &key, &there, delays[1]);
            }
        }
    }

    pub(super) fn stop(&mut self, at: usize) {
        self.nodes[at].is_up = false;
        self.nodes[at].last_up = self.now;
    }

    /// A process begins anew, with what its disk holds.
    pub(super) fn restart(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.is_up = true;
        node.life += 1;
        node.wake = None;
        node.purger = Purger::new(node.id.clone(), config());
        let view = self.view.clone();
        self.input(at, Input::ClusterChanged(view));
    }

    /// From here on everybody is there, and deliveries and exchanges go on and on.
    pub(super) fn calm(&mut self) {
        self.chaos = false;
        for at in 0..self.nodes.len() {
            if !self.nodes[at].is_up {
                self.restart(at);
            }
        }
        self.at(0, Event::Mend);
    }

    pub(super) fn mend(&mut self) {
        for at in 0..self.nodes.len() {
            self.deliver(at);
        }
        for one in self.replicas.clone() {
            for other in self.replicas.clone() {
                if one < other {
                    self.exchange(one, other);
                }
            }
        }
        self.at(2 * LIFE, Event::Mend);
    }

    pub(super) fn begin_chaos(&mut self) {
        self.chaos = true;
        self.at(0, Event::Chance);
    }

    pub(super) fn chance(&mut self) {
        // Keys are written for a while and read for longer, so that there is something to forget.
        let newest = self.now / 4_000_000;
        let back = [0, self.draw(4)][self.draw(2) as usize];
        let is_written = back == 0 || self.draw(10) == 0;
        let key = self.key(&format!("k{}", newest.saturating_sub(back)));
        let order = self.replicas.clone();
        let at = order[self.draw(order.len() as u64) as usize];
        match self.draw(40) {
            0..12 if is_written && self.nodes[at].is_up => {
                let delete = self.draw(3) > 0;
                let past = self.read(&key).context();
                let versions = self.write(at, &key, past, delete);
                self.spread(&order, &key, &versions, true);
            }
            12..20 => {
                let versions = self.read(&key);
                self.spread(&order, &key, &versions, false);
            }
            20..26 => {
                let other = order[self.draw(order.len() as u64) as usize];
                if self.nodes[at].is_up && self.nodes[other].is_up {
                    self.exchange(at, other);
                }
            }
            26..32 => {
                let holder = self.draw(NODES.len() as u64) as usize;
                if self.nodes[holder].is_up {
                    self.deliver(holder);
                }
            }
            32 => {
                let at = self.draw(NODES.len() as u64) as usize;
                if self.nodes[at].is_up {
                    self.stop(at);
                    let away = [200_000, 2_000_000, 15_000_000][self.draw(3) as usize];
                    self.at(away, Event::Restart { at });
                }
            }
            _ => {}
        }
        let longest = 400_000;
        let pause = self.draw(longest);
        // Long pauses, in which proofs come to their end.
        let pause = if self.draw(12) == 0 { pause * 20 } else { pause };
        self.at(pause, Event::Chance);
    }

    /// What a request sees: some replicas, and some hints.
    pub(super) fn read(&mut self, key: &DataKey) -> Versions {
        let mut seen = Versions::new();
        for at in 0..self.nodes.len() {
            if self.nodes[at].is_up && self.draw(2) == 0 {
                seen.merge(self.held(at, key), self.rule);
                if self.draw(2) == 0 {
                    for ((_, hint), versions) in self.nodes[at].hints.clone() {
                        if hint == *key {
                            seen.merge(versions, self.rule);
                        }
                    }
                }
            }
        }
        seen
    }

    /// What a request passes on; only writes make hints.
    pub(super) fn spread(
        &mut self,
        to: &[usize],
        key: &DataKey,
        versions: &Versions,
        is_write: bool,
    ) {
        for to in to {
            let delay = self.draw(LIFE);
            match self.draw(4) {
                0 if is_write => {
                    let holder = self.draw(NODES.len() as u64) as usize;
                    if holder != *to {
                        self.hint(holder, *to, key, versions, delay);
                    }
                }
                0 | 1 if !is_write => {}
                _ => self.carry(*to, key, versions, delay),
            }
        }
    }
}
