//! Answers on their way back to clients, and what the model is told of them.

use std::time::Duration;

use anello_protocol::{
    key::DataKey,
    message::client::{Answer, Found, Get, RequestError, Write, Written},
    time::Moment,
    version::{Content, WriteId},
};

use super::{
    ClientReply, Event, Fleet, Phase,
    clients::{ATTEMPTS_MAX, CALLS_PER_CLIENT, rule},
};
use crate::{
    client::{self, Operation, Request},
    model::{Holders, ReadSeen},
    node::ClientCall,
};

impl Fleet {
    pub(super) fn got(&mut self, node: usize, call: ClientCall, answer: Answer<Found>) {
        self.send_reply(node, call, ClientReply::Got(answer));
    }

    /// A coordinator says that a write is done, or why not. Who has it is looked at in this moment.
    pub(super) fn wrote(&mut self, node: usize, call: ClientCall, answer: Answer<Written>) {
        let client = (call / CALLS_PER_CLIENT) as usize;
        let holders = match &self.clients[client].operation {
            Some(Operation { request: Request::Write(write), call: current, invoked, .. })
                if *current == call =>
            {
                let key = self.data_key(&write.keyspace, &write.key);
                self.holders(write.write_id, &key, *invoked)
            }
            // The client has given up.
            _ => return,
        };
        self.send_reply(node, call, ClientReply::Wrote(answer, holders));
    }

    /// Who has a write, or what replaced it, durably; and whoever has lost it since it was sent, which nobody
    /// who counted it could know.
    fn holders(&self, id: WriteId, key: &DataKey, invoked: Moment) -> Holders {
        let replicas = self.replicas_of(key);
        let mut holders = Holders::default();
        for slot in &self.slots {
            let (node, disk) = (slot.node.id(), &slot.node.disk);
            let datacenter = slot.node.member().datacenter.clone();
            let has_lost_it = slot.lost_at.is_some_and(|at| at >= invoked);
            // A hint for who was declared dead goes to the others, and is gone once one of them has it.
            if replicas.contains(node) && self.newest().is_some_and(|it| it.is_written_off(node)) {
                holders.stand_ins.insert(node.clone(), datacenter);
                continue;
            }
            if replicas.contains(node) {
                // What a replica in quarantine may not know of it can't meet.
                let knows = has_lost_it || !slot.node.is_quarantined();
                if knows && (has_lost_it || self.model.is_met_in(id, key, &disk.read(key))) {
                    holders.met.insert(node.clone(), datacenter.clone());
                }
                if has_lost_it || self.model.is_in(id, &disk.read(key)) {
                    holders.replicas.insert(node.clone(), datacenter);
                }
                continue;
            }
            let has_hint = replicas.iter().any(|owner| {
                disk.hint(owner, key).is_some_and(|hint| self.model.is_in(id, &hint.versions))
            });
            if has_lost_it || has_hint {
                holders.stand_ins.insert(node.clone(), datacenter);
            }
        }
        holders
    }

    fn send_reply(&mut self, _: usize, call: ClientCall, reply: ClientReply) {
        let client = (call / CALLS_PER_CLIENT) as usize;
        let asked = &mut self.clients[client];
        let delay = Duration::from_micros(asked.rng.within(50..3_000));
        if asked.rng.chance(20) && self.told.is_none() {
            self.counters.lost_replies += 1;
            return;
        }
        self.schedule.after(delay, Event::Reply { client, call, reply });
    }

    /// A client hears of its operation.
    pub(super) fn reply(&mut self, client: usize, call: ClientCall, reply: ClientReply) {
        let is_current =
            self.clients[client].operation.as_ref().is_some_and(|current| current.call == call);
        if !is_current {
            return;
        }
        let Some(mut operation) = self.clients[client].operation.take() else { return };
        self.hear(&reply);
        let now = self.schedule.now();
        let is_done = match (&operation.request, reply) {
            (Request::Get(get), ClientReply::Got(answer)) => match answer.result {
                Ok(found) => {
                    let get = get.clone();
                    self.read(client, &operation, &get, found);
                    true
                }
                Err(error) => {
                    self.history.note(now, format_args!("client {client} <- {error:?}"));
                    self.counters.failed += 1;
                    false
                }
            },
            (Request::Write(write), ClientReply::Wrote(answer, holders)) => match answer.result {
                Ok(written) => {
                    let write = write.clone();
                    let who = (
                        holders.replicas.keys().collect::<Vec<_>>(),
                        holders.stand_ins.keys().collect::<Vec<_>>(),
                    );
                    self.history.note(
                        now,
                        format_args!(
                            "client {client} <- {:?} is done, {who:?} hold it",
                            write.write_id
                        ),
                    );
                    self.acknowledged(client, &operation, &write, written, &holders);
                    true
                }
                Err(error) => {
                    self.history.note(now, format_args!("client {client} <- {error:?}"));
                    self.counters.failed += 1;
                    operation.is_uncertain |= matches!(error, RequestError::Timeout { .. });
                    false
                }
            },
            (_, ClientReply::NoConnection) => false,
            _ => {
                self.broke("H: each request is answered once", "with the wrong kind".into());
                true
            }
        };
        self.clients[client].operation = Some(operation);
        self.go_on(client, is_done);
    }

    /// A client has waited for long enough.
    pub(super) fn give_up(&mut self, client: usize, call: ClientCall) {
        let Some(operation) = &mut self.clients[client].operation else { return };
        if operation.call != call {
            return;
        }
        operation.is_uncertain = true;
        let now = self.schedule.now();
        self.history.note(now, format_args!("client {client} <- nothing"));
        self.go_on(client, false);
    }

    /// After an attempt: another one, or the next operation.
    fn go_on(&mut self, client: usize, is_done: bool) {
        let is_reader = client == self.clients.len() - 1;
        let Some(operation) = &self.clients[client].operation else { return };
        let attempts = operation.attempts;
        if !is_done && self.told.is_none() {
            let asked = &mut self.clients[client];
            if is_reader && attempts > 60 {
                self.broke(
                    "A: the fleet can be read",
                    "a read at ALL fails again and again".into(),
                );
            } else if is_reader || (attempts < ATTEMPTS_MAX && asked.rng.chance(700)) {
                return self.attempt(client);
            }
        }
        let Some(operation) = self.clients[client].operation.take() else { return };
        if let Request::Write(write) = &operation.request
            && !is_done
            && !operation.is_uncertain
        {
            self.model.write_refused(write.write_id);
        }
        let after = self.clients[client].think();
        self.schedule.after(after, Event::Think(client));
    }

    fn read(&mut self, client: usize, operation: &Operation, get: &Get, found: Found) {
        let now = self.schedule.now();
        self.counters.reads += 1;
        let key = self.data_key(&get.keyspace, &get.key);
        let context = self.context(&get.keyspace, &get.key, &found.context);
        let shown: Vec<Content> =
            found.versions.iter().map(|version| version.content.clone()).collect();
        let latest = found.versions.iter().map(|version| version.time).max().unwrap_or_default();
        self.history.note(
            now,
            format_args!("client {client} <- {shown:?} at {latest:?}, context {context:?}"),
        );
        self.counters.siblings_max = self.counters.siblings_max.max(shown.len() as u64);
        let local = &self.slots[operation.node].node.member().datacenter;
        let strength = client::strength(get.options.read, local, &self.replication);
        self.model.read(&ReadSeen {
            key: &key,
            rule: rule(&get.keyspace),
            invoked: operation.invoked,
            at: now,
            strength: &strength,
            quorum: get.options.quorum,
            is_final: client == self.clients.len() - 1 && self.phase == Phase::Reading,
            shown: &shown,
            latest,
            context: &context,
        });
        self.clients[client].learn(&get.keyspace, &get.key, found.context);
    }

    fn acknowledged(
        &mut self,
        client: usize,
        operation: &Operation,
        write: &Write,
        written: Written,
        holders: &Holders,
    ) {
        let now = self.schedule.now();
        self.counters.writes += 1;
        let context = self.context(&write.keyspace, &write.key, &written.context);
        // There was nothing to delete.
        let is_void = write.content == Content::Tombstone && context.is_empty();
        if !is_void {
            let local = &self.slots[operation.node].node.member().datacenter;
            let strength = client::strength(write.options.write, local, &self.replication);
            let asked = (strength, write.options.quorum);
            self.model.write_acknowledged(write.write_id, asked, holders, &context, now);
            self.clients[client].learn(&write.keyspace, &write.key, written.context);
        }
    }
}
