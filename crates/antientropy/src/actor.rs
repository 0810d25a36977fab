//! The shell of anti-entropy: a mailbox, the store, connections, a timer and a clock around
//! [`AntiEntropy`]. One per node.
//!
//! No decision is taken here, and no handler waits: what was sent or looked up comes back through
//! `calls.rs`.

mod messages;
mod refs;

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, MessageResult, Recipient, SpawnHandle,
    StreamHandler,
};
use anello_protocol::{
    id::{NodeId, PartitionId},
    message::{
        self,
        admin::{RepairStarted, StartRepair},
        hint::MarkForRepair,
        repair::{CompareKeys, CompareRanges, CompareRoots, KeysDiffer, PurgeVersions},
        replica::Refusal,
    },
    time::{Moment, Now},
};
use anello_transport::{ActorRef, Call, CallContext, CallError, Caller, ReplyTo};

pub use messages::{AskFigures, AskPairs, AskProgress, HandedOver, StartRound, Stop, Tell};
pub use refs::{NodeRefs, VnodeRefs};

use crate::{
    calls::Calls,
    desk::AntiEntropyConfig,
    events::{Effect, Incoming, Input, Outgoing, Question, Reply, Report, Ticket, Token},
    machine::AntiEntropy,
    quarantine::{InStep, PeerQuarantined},
    rounds::Progress,
    schedule::Pair,
    store::TreeStore,
};

/// How many messages wait in the mailbox; more are refused, and those who sent them ask again.
const MAILBOX: usize = 1024;

/// What anti-entropy's actor is made of.
pub struct MerkleParts {
    /// This node.
    pub node: NodeId,
    /// Its bounds and delays.
    pub config: AntiEntropyConfig,
    /// Drawn at random at every start.
    pub seed: u64,
    /// Where its trees and data are.
    pub store: Arc<dyn TreeStore>,
    /// The vnodes of this node: whoever these are passes each message to the one of its key's partition.
    pub vnodes: VnodeRefs,
    /// The same, where they forget keys.
    pub purge: ActorRef<PurgeVersions>,
    /// How to reach the others.
    pub others: Box<dyn Fn(&NodeId) -> NodeRefs + Send>,
    /// The node's quarantine.
    pub in_step: Recipient<InStep>,
    /// The node's quarantine.
    pub peer_quarantined: Recipient<PeerQuarantined>,
    /// Whoever tells the members what this node has handed over.
    pub handed_over: Recipient<HandedOver>,
}

/// The actor of anti-entropy. Answers [`CompareRoots`], [`CompareRanges`], [`CompareKeys`] and
/// [`MarkForRepair`] for others, [`StartRepair`] for operators, and the messages below for its own node.
pub struct MerkleActor {
    anti_entropy: AntiEntropy,
    node: NodeId,
    store: Arc<dyn TreeStore>,
    vnodes: VnodeRefs,
    purge: ActorRef<PurgeVersions>,
    others: Box<dyn Fn(&NodeId) -> NodeRefs + Send>,
    in_step: Recipient<InStep>,
    peer_quarantined: Recipient<PeerQuarantined>,
    handed_over: Recipient<HandedOver>,
    known: HashMap<NodeId, NodeRefs>,
    begin: Instant,
    next_token: u64,
    waiting: HashMap<Token, Waiting>,
    /// The number of the round that was begun last.
    started: u64,
    calls: Calls,
    /// The timer that is set: when it goes off, and its handle.
    timer: Option<(Moment, SpawnHandle)>,
}

/// Who waits for an answer.
enum Waiting {
    Roots(ReplyTo<Result<Vec<PartitionId>, Refusal>>),
    Ranges(ReplyTo<Result<Vec<u16>, Refusal>>),
    Keys(ReplyTo<Result<KeysDiffer, Refusal>>),
}

impl MerkleActor {
    /// An actor that has not been told of any cluster yet.
    pub fn new(parts: MerkleParts) -> Self {
        let MerkleParts { node, config, seed, store, vnodes, purge, others, .. } = parts;
        Self {
            anti_entropy: AntiEntropy::new(node.clone(), config, seed),
            node,
            store,
            vnodes,
            purge,
            others,
            in_step: parts.in_step,
            peer_quarantined: parts.peer_quarantined,
            handed_over: parts.handed_over,
            known: HashMap::new(),
            begin: Instant::now(),
            next_token: 0,
            waiting: HashMap::new(),
            started: 0,
            calls: Calls::default(),
            timer: None,
        }
    }

    fn now(&self) -> Now {
        // A clock before 1970 is one of the many ways in which a wall clock can be wrong.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            moment: Moment(u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn ask(
        &mut self,
        context: &mut Context<Self>,
        caller: Caller,
        question: Question,
        waiting: Waiting,
    ) {
        let token = self.token();
        self.waiting.insert(token, waiting);
        let from = match caller {
            Caller::Node(node) => Some(node),
            Caller::Local | Caller::Client(_) => None,
        };
        self.turn(context, Input::Asked { token, from, question });
    }

    /// One input, and all that follows from it.
    fn turn(&mut self, context: &mut Context<Self>, input: Input) {
        self.anti_entropy.handle(self.now(), input);
        while let Some(effect) = self.anti_entropy.next_effect() {
            match effect {
                Effect::Send { ticket, to, message, deadline } => {
                    self.send(ticket, &to, message, deadline);
                }
                Effect::Look(ticket, what) => self.calls.look(ticket, self.store.clone(), what),
                Effect::Reply(token, reply) => self.reply(token, reply),
                Effect::Report(report) => log(&report),
                Effect::InStep { keyspace, partition, peer } => {
                    self.in_step.do_send(InStep { keyspace, partition, peer });
                }
                Effect::PeerQuarantined(peer) => {
                    self.peer_quarantined.do_send(PeerQuarantined(peer))
                }
                Effect::HandedOver { change, partition, phase, epoch } => {
                    self.handed_over.do_send(HandedOver { change, partition, phase, epoch });
                }
            }
        }
        self.set_timer(context);
    }

    fn send(&mut self, ticket: Ticket, to: &NodeId, message: Outgoing, deadline: Moment) {
        let until = CallContext::until(self.begin + Duration::from_micros(deadline.0));
        let calls = self.calls.clone();
        match message {
            Outgoing::Roots(it) => {
                calls.call(ticket, self.refs(to).roots.call(it, until), Incoming::Roots);
            }
            Outgoing::Ranges(it) => {
                calls.call(ticket, self.refs(to).ranges.call(it, until), Incoming::Ranges);
            }
            Outgoing::Keys(it) => {
                calls.call(ticket, self.refs(to).keys.call(it, until), Incoming::Keys);
            }
            Outgoing::Read(it) => {
                calls.call(ticket, self.vnodes(to).read.call(it, until), Incoming::Read);
            }
            Outgoing::Store(it) => {
                calls.call(ticket, self.vnodes(to).store.call(it, until), Incoming::Stored);
            }
            Outgoing::Purge(it) => {
                calls.call(ticket, self.purge.call(it, until), Incoming::Purged);
            }
        }
    }

    fn vnodes(&mut self, node: &NodeId) -> &VnodeRefs {
        if *node == self.node { &self.vnodes } else { &self.refs(node).vnodes }
    }

    fn refs(&mut self, node: &NodeId) -> &NodeRefs {
        if !self.known.contains_key(node) {
            self.known.insert(node.clone(), (self.others)(node));
        }
        &self.known[node]
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        if let Reply::Started(round) = reply {
            self.started = round;
            return;
        }
        match (self.waiting.remove(&token), reply) {
            (Some(Waiting::Roots(to)), Reply::Roots(result)) => to.send(result),
            (Some(Waiting::Ranges(to)), Reply::Ranges(result)) => to.send(result),
            (Some(Waiting::Keys(to)), Reply::Keys(result)) => to.send(result),
            (Some(waiting), Reply::Malformed(sentence)) => {
                let error = CallError::Refused(sentence.to_owned());
                match waiting {
                    Waiting::Roots(to) => to.fail(error),
                    Waiting::Ranges(to) => to.fail(error),
                    Waiting::Keys(to) => to.fail(error),
                }
            }
            _ => {
                unreachable!("a machine answers each question once, and with its own kind of reply")
            }
        }
    }

    /// One timer, for whatever comes first. One that goes off early does no harm.
    fn set_timer(&mut self, context: &mut Context<Self>) {
        let Some(wake) = self.anti_entropy.next_wake() else { return };
        if self.timer.is_some_and(|(moment, _)| moment <= wake) {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            context.cancel_future(handle);
        }
        let wait = wake.since(self.now().moment);
        let handle = context.run_later(wait, |actor, context| {
            actor.timer = None;
            actor.turn(context, Input::TimeUp);
        });
        self.timer = Some((wake, handle));
    }
}

fn log(report: &Report) {
    match report {
        Report::Mended { keyspace, partition, leaves } => tracing::warn!(
            keyspace = keyspace.0,
            %partition,
            leaves,
            "a tree was other than its data; it is mended"
        ),
        Report::Dropped { keyspace, partition, keys } => tracing::info!(
            keyspace = keyspace.0,
            %partition,
            keys,
            "keys that came back with a copy of the store, and all other replicas have forgotten, are dropped"
        ),
        Report::StoreFailed(error) => tracing::warn!(%error, "anti-entropy can't read the store"),
        Report::Unresolved { keyspace, partition, peer } => tracing::info!(
            keyspace = keyspace.0,
            %partition,
            %peer,
            "what differs could not be mended; the next round tries again"
        ),
    }
}

/// A call that somebody still waits for.
fn in_time<M: message::Message>(call: Call<M>) -> Option<Call<M>> {
    if call.context.remaining().is_zero() {
        call.reply.fail(CallError::Timeout);
        return None;
    }
    Some(call)
}

impl Actor for MerkleActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
        context.add_stream(self.calls.clone());
    }
}

impl StreamHandler<Input> for MerkleActor {
    fn handle(&mut self, input: Input, context: &mut Self::Context) {
        self.turn(context, input);
    }
}

impl Handler<Call<CompareRoots>> for MerkleActor {
    type Result = ();

    fn handle(&mut self, call: Call<CompareRoots>, context: &mut Self::Context) {
        let Some(Call { message, caller, reply, .. }) = in_time(call) else { return };
        self.ask(context, caller, Question::Roots(message), Waiting::Roots(reply));
    }
}

impl Handler<Call<CompareRanges>> for MerkleActor {
    type Result = ();

    fn handle(&mut self, call: Call<CompareRanges>, context: &mut Self::Context) {
        let Some(Call { message, caller, reply, .. }) = in_time(call) else { return };
        self.ask(context, caller, Question::Ranges(message), Waiting::Ranges(reply));
    }
}

impl Handler<Call<CompareKeys>> for MerkleActor {
    type Result = ();

    fn handle(&mut self, call: Call<CompareKeys>, context: &mut Self::Context) {
        let Some(Call { message, caller, reply, .. }) = in_time(call) else { return };
        self.ask(context, caller, Question::Keys(message), Waiting::Keys(reply));
    }
}

impl Handler<Call<MarkForRepair>> for MerkleActor {
    type Result = ();

    fn handle(&mut self, call: Call<MarkForRepair>, context: &mut Self::Context) {
        call.reply.send(());
        self.turn(context, Input::MarkForRepair(call.message.ranges));
    }
}

impl Handler<Call<StartRepair>> for MerkleActor {
    type Result = ();

    fn handle(&mut self, call: Call<StartRepair>, context: &mut Self::Context) {
        let token = self.token();
        self.turn(context, Input::Start(token));
        call.reply.send(RepairStarted { round: self.started });
    }
}

impl Handler<Tell> for MerkleActor {
    type Result = ();

    fn handle(&mut self, tell: Tell, context: &mut Self::Context) {
        let input = match tell {
            Tell::ClusterChanged(view) => {
                self.known.retain(|node, _| view.cluster().members.contains_key(node));
                Input::ClusterChanged(view)
            }
            Tell::ReachabilityChanged { node, reachable } => {
                Input::ReachabilityChanged { node, reachable }
            }
            Tell::Quarantined { partitions, was_restored } => {
                Input::Quarantined { partitions, was_restored }
            }
            Tell::Pressure(pressure) => Input::Pressure(pressure),
            Tell::ScrubAll => Input::ScrubAll,
        };
        self.turn(context, input);
    }
}

impl Handler<StartRound> for MerkleActor {
    type Result = u64;

    fn handle(&mut self, _: StartRound, context: &mut Self::Context) -> u64 {
        let token = self.token();
        self.turn(context, Input::Start(token));
        self.started
    }
}

impl Handler<AskProgress> for MerkleActor {
    type Result = Option<Progress>;

    fn handle(&mut self, _: AskProgress, _: &mut Self::Context) -> Self::Result {
        self.anti_entropy.progress(self.started)
    }
}

impl Handler<AskFigures> for MerkleActor {
    type Result = MessageResult<AskFigures>;

    fn handle(&mut self, _: AskFigures, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.anti_entropy.figures())
    }
}

impl Handler<AskPairs> for MerkleActor {
    type Result = Vec<(NodeId, Pair)>;

    fn handle(&mut self, AskPairs(keyspace, at): AskPairs, _: &mut Self::Context) -> Self::Result {
        self.anti_entropy.pairs(keyspace, at)
    }
}

impl Handler<Stop> for MerkleActor {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Self::Context) {
        context.stop();
    }
}

impl fmt::Debug for MerkleActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MerkleActor").field("node", &self.node).finish_non_exhaustive()
    }
}
