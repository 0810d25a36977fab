//! The node's purger and its quarantine, and what they want done.

use std::collections::{BTreeSet, VecDeque};

use anello_antientropy::{
    Input as TreeInput,
    purge::{self, Outgoing},
    quarantine,
    store::TreeStore,
};
use anello_protocol::time::Now;
use anello_replica::replica::Input as ReplicaInput;

use super::{Caller, Inner, Node, Out, events::List};
use crate::{disk::DiskWrite, wire::Ask};

impl Node {
    pub(super) fn purge(
        &mut self,
        now: Now,
        input: purge::Input,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let Some(running) = &mut self.running else { return };
        running.purger.handle(now, input);
        loop {
            let Some(running) = &mut self.running else { return };
            let Some(effect) = running.purger.next_effect() else { return };
            match effect {
                purge::Effect::List { number, keyspace, partition, after, limit } => {
                    out.push(Out::List(List { number, keyspace, partition, after, limit }));
                }
                purge::Effect::Send { call, to, message, deadline } => {
                    let ask = match message {
                        Outgoing::Read(read) => Ask::Read(read),
                        Outgoing::Check(check) => Ask::Check(check),
                        Outgoing::Purge(purge) => Ask::Purge(purge),
                    };
                    queue.extend(self.ask(now, Caller::Purger(call), to, ask, deadline, out));
                }
            }
        }
    }

    /// Lists tombstones, as the purger asked.
    pub(super) fn list_tombstones(&self, list: List) -> Inner {
        let List { number, keyspace, partition, after, limit } = list;
        let result = self.disk.tombstones(keyspace, partition, after.as_ref(), limit);
        let result = result.map_err(|error| error.to_string());
        Inner::Purger(purge::Input::Listed { number, result })
    }

    pub(super) fn watch(
        &mut self,
        now: Now,
        input: quarantine::Input,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let Some(running) = &mut self.running else { return };
        running.quarantine.handle(now, input);
        loop {
            let Some(running) = &mut self.running else { return };
            let Some(effect) = running.quarantine.next_effect() else { return };
            match effect {
                quarantine::Effect::Save(alive) => self.disk.push(DiskWrite::Alive(alive)),
                quarantine::Effect::Quarantine(is_on) => {
                    let partitions: BTreeSet<_> = running.replicas.keys().copied().collect();
                    for partition in &partitions {
                        let input = ReplicaInput::Quarantined(is_on);
                        queue.push_back(Inner::Replica(*partition, input));
                    }
                    let held = if is_on { partitions } else { BTreeSet::new() };
                    queue.push_back(Inner::Trees(TreeInput::Quarantined(held)));
                    queue.push_back(Inner::Purger(purge::Input::Quarantined(is_on)));
                    if !is_on {
                        self.disk.was_restored = false;
                        self.disk.is_lost = false;
                    }
                    let verdict = if is_on { "quarantined" } else { "out of quarantine" };
                    out.push(Out::Note(format!("{}: {verdict}", self.id())));
                    out.push(Out::Quarantined(is_on));
                }
            }
        }
    }
}
