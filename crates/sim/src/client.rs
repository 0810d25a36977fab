//! Simulated clients: one operation after the other each, on few keys so that they collide.
//!
//! Every value is written once in a run. A client reads, remembers contexts and uses them, at times long
//! after; writes without any; deletes; and repeats a write whose outcome it was not told, under its id.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{
    consistency::{Consistency, QuorumKind},
    id::{Datacenter, KeyspaceName},
    key::Key,
    message::client::{ContextToken, Get, RequestOptions, Write},
    time::Moment,
    version::{Content, Value, WriteId},
};

use crate::{model::Strength, rng::Rng};

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Everything.
    Any,
    /// Concurrent writes to one key, never with a context: nothing may be lost.
    Appends,
    /// Read, then write with the context: counters and carts.
    Updates,
    /// The `lww` keyspace alone, puts and deletes.
    Lww,
}

/// A request, as it is sent.
#[derive(Clone, Debug)]
pub enum Request {
    /// A read.
    Get(Get),
    /// A write.
    Write(Write),
}

/// An operation under way.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What is asked.
    pub request: Request,
    /// The attempt under way.
    pub call: u64,
    /// Where it was sent.
    pub node: usize,
    /// How many attempts there were.
    pub attempts: u32,
    /// When it began.
    pub invoked: Moment,
    /// Whether an attempt may have been carried out.
    pub is_uncertain: bool,
}

/// How clients go about it, beside what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// How many of a thousand requests ask for a strict quorum.
    pub strict_per_mille: u64,
    /// Whether every write has to be on two nodes at least: where a disk is lost, less may be lost with it.
    pub is_careful: bool,
    /// Whether they rest for seconds now and then.
    pub rests: bool,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its own source of chance.
    pub rng: Rng,
    number: u64,
    mix: Mix,
    keys: u64,
    written: u64,
    habits: Habits,
    /// How many operations it has yet to begin.
    pub left: u32,
    /// The operation under way.
    pub operation: Option<Operation>,
    contexts: BTreeMap<(KeyspaceName, Key), Vec<ContextToken>>,
}

/// The keyspaces that clients use.
pub fn keyspaces() -> [KeyspaceName; 2] {
    ["default", "lww"].map(|name| KeyspaceName::new(name).expect("a good name"))
}

/// The key of that number.
pub fn key(number: u64) -> Key {
    Key::new(format!("key-{number}").into_bytes()).expect("within the bound")
}

impl Client {
    /// A client that does `left` operations.
    pub fn new(number: u64, mix: Mix, habits: Habits, keys: u64, left: u32, rng: Rng) -> Self {
        Self {
            rng,
            number,
            mix,
            keys,
            written: 0,
            habits,
            left,
            operation: None,
            contexts: BTreeMap::new(),
        }
    }

    /// How long until the next operation.
    pub fn think(&mut self) -> Duration {
        let most = match self.habits.rests {
            false => *self.rng.pick(&[1_000, 20_000, 200_000]),
            true => *self.rng.pick(&[1_000, 20_000, 200_000, 1_000_000, 8_000_000]),
        };
        Duration::from_micros(self.rng.within(0..most))
    }

    /// Draws the next operation.
    pub fn draw(&mut self, replicas: usize) -> Request {
        self.left = self.left.saturating_sub(1);
        let [default, lww] = keyspaces();
        let keyspace = match self.mix {
            Mix::Any if self.rng.chance(300) => lww,
            Mix::Lww => lww,
            _ => default,
        };
        let keys = if self.mix == Mix::Appends { 1 } else { self.keys };
        let key = key(self.rng.within(0..keys));
        let known = self.contexts.get(&(keyspace.clone(), key.clone()));
        let known = known.filter(|known| !known.is_empty()).cloned();
        let (reads, deletes, with_context) = match self.mix {
            Mix::Any => (350, 120, 500),
            Mix::Appends => (200, 0, 0),
            Mix::Updates => (400, 0, 1000),
            Mix::Lww => (350, 250, 300),
        };
        let must_read = self.mix == Mix::Updates && known.is_none();
        if must_read || self.rng.chance(reads) {
            let options = RequestOptions { read: self.level(replicas, true), ..self.options() };
            return Request::Get(Get { keyspace, key, options });
        }
        self.written += 1;
        let content = if self.rng.chance(deletes) {
            Content::Tombstone
        } else {
            let value = format!("c{}-{}", self.number, self.written).into_bytes();
            Content::Value(Value::new(value).expect("within the bound"))
        };
        let context = known.filter(|_| self.rng.chance(with_context)).map(|known| {
            // Mostly the last one seen, sometimes one of long ago.
            let last = known.len() - 1;
            let at = if self.rng.chance(750) {
                last
            } else {
                self.rng.within(0..known.len() as u64) as usize
            };
            known[at].clone()
        });
        let write_id = WriteId(u128::from(self.number) << 64 | u128::from(self.written));
        let is_named = self.written.is_multiple_of(2);
        let options = RequestOptions { write: self.level(replicas, false), ..self.options() };
        Request::Write(Write { keyspace, key, content, context, write_id, is_named, options })
    }

    /// Remembers a context.
    pub fn learn(&mut self, keyspace: &KeyspaceName, key: &Key, context: ContextToken) {
        let known = self.contexts.entry((keyspace.clone(), key.clone())).or_default();
        known.push(context);
        if known.len() > 4 {
            known.remove(0);
        }
    }

    fn options(&mut self) -> RequestOptions {
        let is_strict = self.rng.chance(self.habits.strict_per_mille);
        RequestOptions {
            quorum: if is_strict { QuorumKind::Strict } else { QuorumKind::Sloppy },
            timeout_ms: self.rng.within(150..2_000) as u32,
            explain: self.rng.chance(100),
            ..RequestOptions::default()
        }
    }

    fn level(&mut self, replicas: usize, is_read: bool) -> Option<Consistency> {
        if self.habits.is_careful && !is_read {
            let two_or_more = 2 + self.rng.within(0..replicas as u64 - 1) as u16;
            let some = [
                None,
                Some(Consistency::Quorum),
                Some(Consistency::Quorum),
                Some(Consistency::All),
                Some(Consistency::EachQuorum),
                Some(Consistency::Count(two_or_more)),
            ];
            return *self.rng.pick(&some);
        }
        let count = Consistency::Count(1 + self.rng.within(0..replicas as u64) as u16);
        let any = [
            None,
            Some(Consistency::Quorum),
            Some(Consistency::Quorum),
            Some(Consistency::One),
            Some(Consistency::All),
            Some(Consistency::LocalOne),
            Some(Consistency::LocalQuorum),
            Some(count),
            if is_read { None } else { Some(Consistency::EachQuorum) },
        ];
        *self.rng.pick(&any)
    }
}

/// How many replicas an answer at a level stands for, at a coordinator in a datacenter.
pub fn strength(
    level: Option<Consistency>,
    local: &Datacenter,
    replication: &BTreeMap<Datacenter, usize>,
) -> Strength {
    let of = replication.values().sum::<usize>();
    let here = replication.get(local).copied().unwrap_or(0);
    let total = |count| Strength::Total { count, of };
    let within = |count| Strength::Local { datacenter: local.clone(), count, of: here };
    match level.unwrap_or_default() {
        Consistency::One => total(1),
        Consistency::Two => total(2),
        Consistency::Three => total(3),
        Consistency::Quorum => total(of / 2 + 1),
        Consistency::All => total(of),
        Consistency::Count(count) => total(count.into()),
        Consistency::LocalOne => within(1),
        Consistency::LocalQuorum => within(here / 2 + 1),
        Consistency::EachQuorum => Strength::Each { of: replication.clone() },
    }
}
