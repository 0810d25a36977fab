//! Clients and the fleet: requests on their way, answers on their way back, and what the model is told.

use std::time::Duration;

use anello_protocol::{
    causality::{Context, token_decode},
    consistency::{Consistency, QuorumKind},
    id::KeyspaceName,
    key::{DataKey, Key, KeyHash},
    message::client::{ContextToken, Get, RequestOptions},
    version::{ConflictRule, Content},
};

use super::{ClientReply, Event, Fleet, NodeInput, story::Told};
use crate::{
    client::{self, Operation, Request, keyspaces},
    node::ClientCall,
};

/// The most attempts at a write or a read of the run's end.
pub(super) const ATTEMPTS_MAX: u32 = 5;
/// Calls are numbered so that they say whose they are.
pub(super) const CALLS_PER_CLIENT: u64 = 1 << 32;

impl Fleet {
    /// A client begins its next operation.
    pub(super) fn think(&mut self, client: usize) {
        if self.clients[client].operation.is_some() {
            return;
        }
        let is_reader = client == self.clients.len() - 1;
        let request = if is_reader && self.told.is_some() {
            return;
        } else if is_reader {
            let Some((keyspace, key)) = self.to_read.pop() else { return };
            let (read, quorum) = (Some(Consistency::All), QuorumKind::Strict);
            let options = RequestOptions { read, quorum, ..Default::default() };
            Request::Get(Get { keyspace, key: client::key(key), options })
        } else {
            if self.clients[client].left == 0 {
                return;
            }
            let replicas = self.replication.values().sum();
            self.clients[client].draw(replicas)
        };
        self.begin(client, request);
        self.attempt(client);
    }

    /// Notes an operation of a client as under way.
    pub(super) fn begin(&mut self, client: usize, request: Request) {
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
    }

    /// Sends the operation under way to some node.
    pub(super) fn attempt(&mut self, client: usize) {
        let nodes = self.slots.len() as u64;
        self.calls += 1;
        let call = client as u64 * CALLS_PER_CLIENT + self.calls;
        let asked = &mut self.clients[client];
        let node = asked.rng.within(0..nodes) as usize;
        let delay = Duration::from_micros(asked.rng.within(50..3_000));
        let is_lost = asked.rng.chance(10);
        // A story is told by a single client, who says whom it asks.
        let (node, is_lost) = match self.told {
            Some(Told { node, .. }) => (node, false),
            None => (node, is_lost),
        };
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

    pub(super) fn data_key(&self, keyspace: &KeyspaceName, key: &Key) -> DataKey {
        let newest = self.states.values().next_back();
        let id = newest.and_then(|state| state.keyspaces.get(keyspace)).map(|keyspace| keyspace.id);
        DataKey {
            hash: KeyHash::of(keyspace, key),
            keyspace: id.expect("clients begin when both keyspaces are there"),
            key: key.clone(),
        }
    }

    pub(super) fn context(
        &mut self,
        keyspace: &KeyspaceName,
        key: &Key,
        token: &ContextToken,
    ) -> Context {
        match token_decode(&self.data_key(keyspace, key), &token.0) {
            Ok(context) => context,
            Err(error) => {
                self.broke("F: contexts are exact", format!("a token can't be read: {error}"));
                Context::new()
            }
        }
    }
}

pub(super) fn rule(keyspace: &KeyspaceName) -> ConflictRule {
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
