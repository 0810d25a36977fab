//! Clients and the fleet: requests on their way, answers on their way back, and what the model is told.

use std::time::Duration;

use anello_protocol::{
    causality::{Context, token_decode},
    consistency::Consistency,
    id::KeyspaceName,
    key::{DataKey, Key, KeyHash},
    message::client::{
        Answer, ContextToken, Found, Get, RequestError, RequestOptions, Write, Written,
    },
    version::{ConflictRule, Content},
};

use super::{ClientReply, Event, Fleet, NodeInput};
use crate::{
    client::{self, Operation, Request, keyspaces},
    model::ReadSeen,
    node::ClientCall,
};

/// The most attempts at a write or a read of the run's end.
const ATTEMPTS_MAX: u32 = 5;
/// Calls are numbered so that they say whose they are.
const CALLS_PER_CLIENT: u64 = 1 << 32;

impl Fleet {
    /// A client begins its next operation.
    pub(super) fn think(&mut self, client: usize) {
        if self.clients[client].operation.is_some() {
            return;
        }
        let is_reader = client == self.clients.len() - 1;
        let request = if is_reader {
            let Some((keyspace, key)) = self.to_read.pop() else { return };
            let options = RequestOptions { read: Some(Consistency::All), ..Default::default() };
            Request::Get(Get { keyspace, key: client::key(key), options })
        } else {
            if self.clients[client].left == 0 {
                return;
            }
            let replicas = self.replication.values().sum();
            self.clients[client].draw(replicas)
        };
        let now = self.schedule.now();
        self.counters.operations += 1;
        if let Request::Write(write) = &request {
            let context = match &write.context {
                Some(token) => Some(self.context(&write.keyspace, &write.key, token)),
                None if write.content == Content::Tombstone => None,
                None => Some(Context::new()),
            };
            let key = self.data_key(&write.keyspace, &write.key);
            let rule = rule(&write.keyspace);
            self.model.write_invoked(
                write.write_id,
                &key,
                rule,
                write.content.clone(),
                context,
                now,
            );
        }
        self.clients[client].operation = Some(Operation {
            request,
            call: 0,
            node: 0,
            attempts: 0,
            invoked: now,
            is_uncertain: false,
        });
        self.attempt(client);
    }

    /// Sends the operation under way to some node.
    fn attempt(&mut self, client: usize) {
        let nodes = self.slots.len() as u64;
        self.calls += 1;
        let call = client as u64 * CALLS_PER_CLIENT + self.calls;
        let asked = &mut self.clients[client];
        let node = asked.rng.within(0..nodes) as usize;
        let delay = Duration::from_micros(asked.rng.within(50..3_000));
        let is_lost = asked.rng.chance(10);
        let Some(operation) = &mut asked.operation else { return };
        operation.call = call;
        operation.node = node;
        operation.attempts += 1;
        let timeout_ms = match &operation.request {
            Request::Get(get) => get.options.timeout_ms,
            Request::Write(write) => write.options.timeout_ms,
        };
        let attempt = operation.attempts;
        let now = self.schedule.now();
        self.history.note(
            now,
            format_args!(
                "client {client} -> n{node} attempt {attempt}: {}",
                said(&operation.request)
            ),
        );
        if !is_lost {
            self.schedule.after(delay, Event::Request { client, node, call });
        }
        let patience = Duration::from_millis(u64::from(timeout_ms) + 300);
        self.schedule.after(patience, Event::GiveUp { client, call });
    }

    /// A request arrives at its node.
    pub(super) fn request(&mut self, client: usize, node: usize, call: ClientCall) {
        let Some(operation) = &self.clients[client].operation else { return };
        if operation.call != call {
            return;
        }
        if !self.slots[node].node.is_running() {
            let reply = ClientReply::NoConnection;
            self.schedule.after(Duration::from_millis(1), Event::Reply { client, call, reply });
            return;
        }
        let input = match &operation.request {
            Request::Get(get) => NodeInput::Get(call, get.clone()),
            Request::Write(write) => NodeInput::Write(call, write.clone()),
        };
        let life = self.slots[node].life;
        self.schedule.after(Duration::ZERO, Event::Local { node, life, input });
    }

    pub(super) fn got(&mut self, node: usize, call: ClientCall, answer: Answer<Found>) {
        self.send_reply(node, call, ClientReply::Got(answer));
    }

    /// A coordinator says that a write is done, or why not. Who has it is looked at in this moment.
    pub(super) fn wrote(&mut self, node: usize, call: ClientCall, answer: Answer<Written>) {
        let client = (call / CALLS_PER_CLIENT) as usize;
        let holders = match &self.clients[client].operation {
            Some(Operation { request: Request::Write(write), call: current, .. })
                if *current == call =>
            {
                let key = self.data_key(&write.keyspace, &write.key);
                let id = write.write_id;
                let holds = self
                    .slots
                    .iter()
                    .filter(|slot| self.model.is_in(id, &slot.node.disk.read(&key)));
                holds
                    .map(|slot| (slot.node.id().clone(), slot.node.member().datacenter.clone()))
                    .collect()
            }
            // The client has given up.
            _ => return,
        };
        self.send_reply(node, call, ClientReply::Wrote(answer, holders));
    }

    fn send_reply(&mut self, _: usize, call: ClientCall, reply: ClientReply) {
        let client = (call / CALLS_PER_CLIENT) as usize;
        let asked = &mut self.clients[client];
        let delay = Duration::from_micros(asked.rng.within(50..3_000));
        if asked.rng.chance(20) {
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
                    let who: Vec<_> = holders.keys().collect();
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
        if !is_done {
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
        holders: &std::collections::BTreeMap<
            anello_protocol::id::NodeId,
            anello_protocol::id::Datacenter,
        >,
    ) {
        let now = self.schedule.now();
        self.counters.writes += 1;
        let context = self.context(&write.keyspace, &write.key, &written.context);
        // There was nothing to delete.
        let is_void = write.content == Content::Tombstone && context.is_empty();
        if !is_void {
            let local = &self.slots[operation.node].node.member().datacenter;
            let strength = client::strength(write.options.write, local, &self.replication);
            self.model.write_acknowledged(write.write_id, strength, holders, &context, now);
            self.clients[client].learn(&write.keyspace, &write.key, written.context);
        }
    }

    fn data_key(&self, keyspace: &KeyspaceName, key: &Key) -> DataKey {
        let newest = self.states.values().next_back();
        let id = newest.and_then(|state| state.keyspaces.get(keyspace)).map(|keyspace| keyspace.id);
        DataKey {
            hash: KeyHash::of(keyspace, key),
            keyspace: id.expect("clients begin when both keyspaces are there"),
            key: key.clone(),
        }
    }

    fn context(&mut self, keyspace: &KeyspaceName, key: &Key, token: &ContextToken) -> Context {
        match token_decode(&self.data_key(keyspace, key), &token.0) {
            Ok(context) => context,
            Err(error) => {
                self.broke("F: contexts are exact", format!("a token can't be read: {error}"));
                Context::new()
            }
        }
    }
}

fn rule(keyspace: &KeyspaceName) -> ConflictRule {
    let [_, lww] = keyspaces();
    if *keyspace == lww { ConflictRule::Lww } else { ConflictRule::Siblings }
}

fn said(request: &Request) -> String {
    match request {
        Request::Get(get) => {
            format!("get {}/{:?} at {:?}", get.keyspace, get.key, get.options.read)
        }
        Request::Write(write) => format!(
            "{:?} {}/{:?} {:?} at {:?}, {}",
            write.write_id,
            write.keyspace,
            write.key,
            write.content,
            write.options.write,
            if write.context.is_some() { "with context" } else { "blind" },
        ),
    }
}
