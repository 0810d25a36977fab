//! The coordinator: requests in flight by number, what reaches them, their timers and their bounds.
//!
//! Invariants: every request is answered exactly once, by its deadline; past the bounds a request is
//! refused before anything is done for it; whatever arrives for a request that is over is dropped.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    cluster::MAX_REPLICAS_PER_DATACENTER,
    id::{Datacenter, NodeId},
    message::{
        client::{Get, KeyLocation, LocateKey, MAX_TIMEOUT_MS, RequestError, Write},
        replica::{ForwardWrite, Refusal, RelayFailure, RelayVersions, RelayedAck},
    },
    time::{Moment, Now},
};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    desk::{CoordinatorConfig, Desk, Head},
    events::{CallFailure, Effect, Incoming, Input, Reply, Token},
    forward::overloaded,
    get::GetRequest,
    hedging::Hedging,
    peers::Peers,
    relay::{self, RelayRequest},
    replicate,
    write::{self, WriteRequest},
};
use anello_ring::view::View;

/// What a request weighs beside its key and values.
const REQUEST_OVERHEAD_BYTES: usize = 1024;

/// The due time of what is not due.
const NEVER: Moment = Moment(u64::MAX);
/// The least time between two looks after a request.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Carries out requests. See the head of this file.
#[derive(Debug)]
pub struct Coordinator {
    desk: Desk,
    requests: BTreeMap<u64, Entry>,
    next_number: u64,
    bytes: usize,
    timers: BTreeSet<(Moment, u64)>,
    /// Writes that were answered and wait for the last replicas: the first to go when room is needed.
    lingering: BTreeSet<u64>,
}

#[derive(Debug)]
struct Entry {
    request: Request,
    bytes: usize,
    due: Moment,
}

#[derive(Debug)]
enum Request {
    Get(Box<GetRequest>),
    Write(Box<WriteRequest>),
    Relay(Box<RelayRequest>),
}

impl Coordinator {
    /// A coordinator of a node, the `number`th there. `seed` is drawn at random at every start: it
    /// scatters retries, and keeps acknowledgements for a former life from being taken for this one's.
    pub fn new(
        node: NodeId,
        datacenter: Datacenter,
        number: u16,
        config: CoordinatorConfig,
        seed: u64,
    ) -> Self {
        let desk = Desk {
            node,
            datacenter,
            number,
            config,
            seed,
            view: None,
            peers: Peers::default(),
            hedging: Hedging::default(),
            now: Now::default(),
            effects: VecDeque::new(),
        };
        Self {
            desk,
            requests: BTreeMap::new(),
            next_number: first_number(seed),
            bytes: 0,
            timers: BTreeSet::new(),
            lingering: BTreeSet::new(),
        }
    }

    /// Takes one input in; what is to be done about it is in [`Coordinator::next_effect`].
    pub fn handle(&mut self, now: Now, input: Input) {
        self.desk.now = now;
        self.desk.peers.at(now.moment);
        match input {
            Input::Get { token, get } => self.get(token, get),
            Input::Write { token, write } => self.write(token, write, false),
            Input::Forward { token, forward } => self.forwarded(token, forward),
            Input::Relay { token, relay } => self.relay(token, relay),
            Input::Acked(ack) => self.acked(ack),
            Input::Answered { call, from, outcome } => {
                self.desk.peers.answered(&from);
                if says_busy(&outcome) {
                    self.desk.peers.was_busy(&from);
                }
                self.with(call.request, |request, desk| {
                    request.answered(desk, call.attempt, outcome);
                });
            }
            Input::TimeUp => self.time_up(),
            Input::ClusterChanged(view) => self.cluster_changed(view),
            Input::ReachabilityChanged { node, reachable } => {
                self.desk.peers.reachability_changed(node, reachable);
            }
        }
    }

    /// The next thing to do, in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.desk.effects.pop_front()
    }

    /// When it wants to hear [`Input::TimeUp`], if nothing else happens before. Earlier and later ones
    /// do no harm.
    pub fn next_wake(&self) -> Option<Moment> {
        self.timers.first().map(|(moment, _)| *moment)
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Where a key lives.
    pub fn locate(&self, question: &LocateKey) -> Result<KeyLocation, RequestError> {
        let Some(view) = &self.desk.view else {
            return Err(RequestError::Unavailable { required: 1, alive: 0 });
        };
        let Some(keyspace) = view.keyspace(&question.keyspace) else {
            return Err(RequestError::NoSuchKeyspace(question.keyspace.clone()));
        };
        let key = view.data_key(&question.keyspace, keyspace, question.key.clone());
        Ok(view.locate(keyspace, key.hash))
    }

    fn get(&mut self, token: Token, get: Get) {
        let bytes = get.key.as_bytes().len();
        match self.admit(token, get.options.timeout_ms, bytes) {
            Ok(head) => {
                let request = GetRequest::start(&mut self.desk, head, get);
                self.begin(request.head.number, Request::Get(Box::new(request)));
            }
            Err(error) => self.reply(token, Reply::Get(Err(error).into())),
        }
    }

    fn write(&mut self, token: Token, write: Write, is_forwarded: bool) {
        match self.admit(token, write.options.timeout_ms, write::bytes(&write)) {
            Ok(head) => {
                let request = WriteRequest::start(&mut self.desk, head, write, is_forwarded);
                self.begin(request.head.number, Request::Write(Box::new(request)));
            }
            Err(RequestError::Overloaded { .. }) if is_forwarded => {
                self.reply(token, Reply::Forward(Err(Refusal::Busy)));
            }
            Err(error) if is_forwarded => self.reply(token, Reply::Forward(Ok(Err(error).into()))),
            Err(error) => self.reply(token, Reply::Write(Err(error).into())),
        }
    }

    fn forwarded(&mut self, token: Token, forward: ForwardWrite) {
        let own = self.desk.epoch();
        let refusal = match &self.desk.view {
            Some(_) if forward.epoch < own => Refusal::StaleEpoch(own),
            Some(_) if forward.epoch == own => return self.write(token, forward.write, true),
            _ => Refusal::Behind(own),
        };
        self.reply(token, Reply::Forward(Err(refusal)));
    }

    fn relay(&mut self, token: Token, mut relay: RelayVersions) {
        // Of nodes that are unknown here, the origin hears nothing, and writes to them itself.
        let Desk { node, view, .. } = &self.desk;
        relay.others.retain(|other| {
            let known = |view: &Arc<View>| view.cluster().members.contains_key(other);
            other != node && view.as_ref().is_some_and(known)
        });
        // While the ring changes there are twice as many.
        relay.others.truncate(2 * usize::from(MAX_REPLICAS_PER_DATACENTER));
        let timeout_ms = relay.timeout_ms.clamp(1, MAX_TIMEOUT_MS);
        match self.admit(token, timeout_ms, relay::bytes(&relay.store)) {
            Ok(head) => {
                let request = RelayRequest::start(&mut self.desk, head, relay);
                self.begin(request.head.number, Request::Relay(Box::new(request)));
            }
            Err(_) => self.reply(token, Reply::Relay(Err(Refusal::Busy))),
        }
    }

    fn acked(&mut self, ack: RelayedAck) {
        let RelayedAck { ticket, replica, outcome } = ack;
        if ticket.coordinator != self.desk.number {
            return;
        }
        if let Err(RelayFailure::Busy | RelayFailure::Refused(Refusal::Busy)) = outcome {
            self.desk.peers.was_busy(&replica);
        }
        self.with(replicate::request_of(ticket), |request, desk| {
            if let Request::Write(write) = request {
                write.acked(desk, ticket, &replica, outcome);
            }
        });
    }

    fn time_up(&mut self) {
        while let Some((moment, number)) = self.timers.first().copied() {
            if moment > self.desk.moment() {
                break;
            }
            self.timers.remove(&(moment, number));
            if let Some(entry) = self.requests.get_mut(&number) {
                entry.due = NEVER;
            }
            self.with(number, Request::time_up);
        }
    }

    fn cluster_changed(&mut self, view: Arc<View>) {
        if view.epoch() < self.desk.epoch() {
            return;
        }
        self.desk.peers.retain(|node| view.cluster().members.contains_key(node));
        self.desk.hedging.retain(|node| view.cluster().members.contains_key(node));
        self.desk.view = Some(view);
        let numbers: Vec<u64> = self.requests.keys().copied().collect();
        for number in numbers {
            self.with(number, Request::cluster_changed);
        }
    }

    /// Makes room for a request, or says that there is none.
    fn admit(&mut self, token: Token, timeout_ms: u32, bytes: usize) -> Result<Head, RequestError> {
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            let sentence = format!("a timeout is 1 to {MAX_TIMEOUT_MS} ms, not {timeout_ms}");
            return Err(RequestError::BadRequest(sentence));
        }
        let bytes = bytes + REQUEST_OVERHEAD_BYTES;
        while !self.has_room(bytes) {
            match self.lingering.pop_first() {
                Some(number) => self.end(number),
                None => return Err(overloaded()),
            }
        }
        let number = self.next_number;
        self.next_number += 1;
        let started = self.desk.moment();
        let deadline = started + Duration::from_millis(timeout_ms.into());
        Ok(Head { number, token, started, deadline, attempts: 0 })
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.requests.len() < self.desk.config.requests_max
            && self.bytes + bytes <= self.desk.config.bytes_max
    }

    fn begin(&mut self, number: u64, request: Request) {
        if request.is_over() {
            return;
        }
        let bytes = request.bytes();
        let due = request.due(&self.desk);
        self.bytes += bytes;
        self.timers.insert((due, number));
        self.requests.insert(number, Entry { request, bytes, due });
    }

    /// Lets a request do something, and looks at what has become of it.
    fn with(&mut self, number: u64, act: impl FnOnce(&mut Request, &mut Desk)) {
        let Some(Entry { request, bytes, due }) = self.requests.get_mut(&number) else { return };
        act(request, &mut self.desk);
        let before = *bytes;
        *bytes = request.bytes();
        self.bytes = self.bytes - before + *bytes;
        if self.bytes > self.desk.config.bytes_max && *bytes > before {
            // What the replicas sent is more than there is room for.
            request.shed(&mut self.desk);
        }
        if request.is_over() {
            self.lingering.remove(&number);
            self.end(number);
            return;
        }
        // Never at once again, so that no request can keep the clock from going on; a look that is
        // due is not put off by what comes before it.
        let soonest = (self.desk.moment() + SHORTEST_PAUSE).min(*due);
        let next = request.due(&self.desk).max(soonest);
        if next != *due {
            self.timers.remove(&(*due, number));
            self.timers.insert((next, number));
            *due = next;
        }
        if request.is_lingering() {
            self.lingering.insert(number);
        }
    }

    fn end(&mut self, number: u64) {
        if let Some(entry) = self.requests.remove(&number) {
            self.bytes -= entry.bytes;
            self.timers.remove(&(entry.due, number));
        }
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        self.desk.effects.push_back(Effect::Reply(token, reply));
    }
}

/// Where a life begins to number its requests: far from where any other one did.
fn first_number(seed: u64) -> u64 {
    const HALF_OF_WHAT_A_TICKET_HOLDS: u32 = 47;
    xxh3_64(&seed.to_le_bytes()) >> (u64::BITS - HALF_OF_WHAT_A_TICKET_HOLDS)
}

impl Request {
    fn answered(&mut self, desk: &mut Desk, attempt: u32, outcome: Result<Incoming, CallFailure>) {
        match self {
            Request::Get(get) => get.answered(desk, attempt, outcome),
            Request::Write(write) => write.answered(desk, attempt, outcome),
            Request::Relay(relay) => relay.answered(desk, attempt, outcome),
        }
    }

    fn time_up(&mut self, desk: &mut Desk) {
        match self {
            Request::Get(get) => get.time_up(desk),
            Request::Write(write) => write.time_up(desk),
            Request::Relay(relay) => relay.time_up(desk),
        }
    }

    fn cluster_changed(&mut self, desk: &mut Desk) {
        match self {
            Request::Get(get) => get.cluster_changed(desk),
            Request::Write(write) => write.cluster_changed(desk),
            Request::Relay(_) => {}
        }
    }

    fn due(&self, desk: &Desk) -> Moment {
        match self {
            Request::Get(get) => get.due(desk),
            Request::Write(write) => write.due(desk),
            Request::Relay(relay) => relay.due(),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Request::Get(get) => get.is_over(),
            Request::Write(write) => write.is_over(),
            Request::Relay(relay) => relay.is_over(),
        }
    }

    fn is_lingering(&self) -> bool {
        match self {
            Request::Get(get) => get.is_lingering(),
            Request::Write(write) => write.is_lingering(),
            Request::Relay(_) => false,
        }
    }

    fn bytes(&self) -> usize {
        let own = match self {
            Request::Get(get) => get.bytes(),
            Request::Write(write) => write.bytes(),
            Request::Relay(relay) => relay.bytes(),
        };
        REQUEST_OVERHEAD_BYTES + own
    }

    fn shed(&mut self, desk: &mut Desk) {
        match self {
            Request::Get(get) => get.shed(desk, overloaded()),
            Request::Write(write) => write.shed(desk, overloaded()),
            Request::Relay(_) => {}
        }
    }
}

/// Whether a node had no room for a message, at its door or behind it.
fn says_busy(outcome: &Result<Incoming, CallFailure>) -> bool {
    match outcome {
        Err(failure) => *failure == CallFailure::Busy,
        Ok(
            Incoming::Read(Err(Refusal::Busy))
            | Incoming::Stored(Err(Refusal::Busy))
            | Incoming::Minted(Err(Refusal::Busy))
            | Incoming::Forwarded(Err(Refusal::Busy)),
        ) => true,
        Ok(_) => false,
    }
}
