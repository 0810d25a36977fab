//! The shell of a coordinator: a mailbox, connections, a timer and a clock around [`Coordinator`].
//!
//! No decision is taken here, and no handler waits: what was sent comes back through [`Calls`].

use std::{collections::HashMap, fmt, sync::Arc};

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, SpawnHandle, StreamHandler,
};
use anello_protocol::{
    id::{Datacenter, NodeId},
    message::{
        client::{Answer, Found, Get, LocateKey, Write, Written},
        hint::{MintHint, ReadHints, StoreHint},
        replica::{
            ForwardWrite, MintVersion, ReadVersions, Refusal, RelayVersions, RelayedAck,
            StoreVersions, Stored,
        },
    },
    time::Moment,
};
use anello_ring::view::View;
use anello_transport::{ActorRef, Call, CallContext, Peers, ReplyTo, TraceContext};

use super::{
    CallNumber, Coordinator, CoordinatorConfig, Effect, Incoming, Input, Outgoing, Reply, Token,
    calls::{Calls, Outcome},
};
use crate::clock::{Clock, in_time};

/// What a coordinator's actor is made of.
pub struct CoordinatorParts {
    /// This node.
    pub node: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Which of the node's coordinators it is; acknowledgements come back by it.
    pub number: u16,
    /// Its bounds and delays; the mailbox has the same bound.
    pub config: CoordinatorConfig,
    /// Drawn at random.
    pub seed: u64,
    /// The vnodes of this node.
    pub vnodes: Vnodes,
    /// The hint store of this node.
    pub hints: OwnHints,
    /// How to reach the others.
    pub others: Box<dyn Fn(&NodeId) -> NodeRefs + Send>,
}

/// The vnodes of this node: whoever these are passes each message to the one of its key's partition.
#[derive(Clone, Debug)]
pub struct Vnodes {
    /// Reading.
    pub read: ActorRef<ReadVersions>,
    /// Joining versions.
    pub store: ActorRef<StoreVersions>,
    /// Issuing dots.
    pub mint: ActorRef<MintVersion>,
}

/// The hint store of this node.
#[derive(Clone, Debug)]
pub struct OwnHints {
    /// Keeping a hint.
    pub keep: ActorRef<StoreHint>,
    /// Reading what is kept of a key.
    pub read: ActorRef<ReadHints>,
    /// Issuing dots.
    pub mint: ActorRef<MintHint>,
}

/// What a coordinator asks of another node.
#[derive(Clone, Debug)]
pub struct NodeRefs {
    /// Reading, of its vnodes.
    pub read: ActorRef<ReadVersions>,
    /// Joining versions, of its vnodes.
    pub store: ActorRef<StoreVersions>,
    /// Relaying, of its coordinators.
    pub relay: ActorRef<RelayVersions>,
    /// Coordinating a write, of its coordinators.
    pub forward: ActorRef<ForwardWrite>,
    /// Taking an acknowledgement, of its coordinators.
    pub acked: ActorRef<RelayedAck>,
    /// Keeping a hint, of its hint store.
    pub hint: ActorRef<StoreHint>,
    /// Reading what is kept of a key, of its hint store.
    pub read_hints: ActorRef<ReadHints>,
}

impl NodeRefs {
    /// A node at the other end of a connection.
    pub fn peer(peers: &Peers, node: &NodeId) -> Self {
        Self {
            read: ActorRef::peer(peers, node.clone()),
            store: ActorRef::peer(peers, node.clone()),
            relay: ActorRef::peer(peers, node.clone()),
            forward: ActorRef::peer(peers, node.clone()),
            acked: ActorRef::peer(peers, node.clone()),
            hint: ActorRef::peer(peers, node.clone()),
            read_hints: ActorRef::peer(peers, node.clone()),
        }
    }
}

/// The actor of one coordinator. Answers [`Get`], [`Write`], [`LocateKey`], [`ForwardWrite`],
/// [`RelayVersions`] and [`RelayedAck`].
pub struct CoordinatorActor {
    node: NodeId,
    coordinator: Coordinator,
    mailbox: usize,
    clock: Clock,
    vnodes: Vnodes,
    hints: OwnHints,
    others: Box<dyn Fn(&NodeId) -> NodeRefs + Send>,
    known: HashMap<NodeId, NodeRefs>,
    next_token: u64,
    waiting: HashMap<Token, Waiting>,
    calls: Calls,
    /// The timer that is set: when it goes off, and its handle.
    timer: Option<(Moment, SpawnHandle)>,
}

/// Who waits for an answer, and in which trace.
struct Waiting {
    trace: Option<TraceContext>,
    reply: WaitingReply,
}

enum WaitingReply {
    Get(ReplyTo<Answer<Found>>),
    Write(ReplyTo<Answer<Written>>),
    Forward(ReplyTo<Result<Answer<Written>, Refusal>>),
    Relay(ReplyTo<Result<Stored, Refusal>>),
}

/// Tells a coordinator what the members have agreed on.
#[derive(Clone, Debug)]
pub struct ClusterChanged(pub Arc<View>);

impl Message for ClusterChanged {
    type Result = ();
}

/// Tells a coordinator of the failure detector's verdict on a node.
#[derive(Clone, Debug)]
pub struct ReachabilityChanged {
    /// The node.
    pub node: NodeId,
    /// Whether it answers.
    pub reachable: bool,
}

impl Message for ReachabilityChanged {
    type Result = ();
}

/// Asks a coordinator how many requests are in flight.
#[derive(Clone, Copy, Debug)]
pub struct CountInFlight;

impl Message for CountInFlight {
    type Result = usize;
}

/// Tells a coordinator to end. Whoever waits for an answer gets none.
#[derive(Clone, Copy, Debug)]
pub struct Stop;

impl Message for Stop {
    type Result = ();
}

impl CoordinatorActor {
    /// An actor that has not been told of any cluster yet.
    pub fn new(parts: CoordinatorParts) -> Self {
        let CoordinatorParts { node, datacenter, number, config, seed, vnodes, hints, others } =
            parts;
        Self {
            mailbox: config.requests_max,
            coordinator: Coordinator::new(node.clone(), datacenter, number, config, seed),
            node,
            clock: Clock::new(),
            vnodes,
            hints,
            others,
            known: HashMap::new(),
            next_token: 0,
            waiting: HashMap::new(),
            calls: Calls::default(),
            timer: None,
        }
    }

    fn wait(&mut self, trace: Option<TraceContext>, reply: WaitingReply) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.waiting.insert(token, Waiting { trace, reply });
        token
    }

    /// One input, and all that follows from it.
    fn turn(&mut self, context: &mut Context<Self>, input: Input) {
        self.coordinator.handle(self.clock.now(), input);
        while let Some(effect) = self.coordinator.next_effect() {
            match effect {
                Effect::Send { call, to, message, deadline, cause } => {
                    self.send(call, to, message, deadline, cause);
                }
                Effect::Ack { to, ack } => {
                    let deadline = self.clock.now().moment + std::time::Duration::from_secs(1);
                    let until = CallContext::until(self.clock.instant(deadline));
                    // Its own answer says nothing; that the message is on its way is enough.
                    drop(self.refs(&to).acked.call(ack, until));
                }
                Effect::Reply(token, reply) => self.reply(token, reply),
            }
        }
        self.set_timer(context);
    }

    fn send(
        &mut self,
        call: CallNumber,
        to: NodeId,
        message: Outgoing,
        deadline: Moment,
        cause: Token,
    ) {
        let trace = self.waiting.get(&cause).and_then(|waiting| waiting.trace.clone());
        let until = CallContext::until(self.clock.instant(deadline)).traced(trace);
        let is_own = to == self.node;
        match message {
            Outgoing::Mint(mint) => {
                let future = self.vnodes.mint.call(mint, until);
                self.calls.add(call, to, future, Incoming::Minted);
            }
            Outgoing::Read(read) => {
                let vnode = if is_own { &self.vnodes.read } else { &self.refs(&to).read };
                let future = vnode.call(read, until);
                self.calls.add(call, to, future, Incoming::Read);
            }
            Outgoing::Store(store) => {
                let vnode = if is_own { &self.vnodes.store } else { &self.refs(&to).store };
                let future = vnode.call(store, until);
                self.calls.add(call, to, future, Incoming::Stored);
            }
            Outgoing::Hint(hint) => {
                let keeper = if is_own { &self.hints.keep } else { &self.refs(&to).hint };
                let future = keeper.call(hint, until);
                self.calls.add(call, to, future, Incoming::Stored);
            }
            Outgoing::ReadHints(read) => {
                let keeper = if is_own { &self.hints.read } else { &self.refs(&to).read_hints };
                let future = keeper.call(read, until);
                self.calls.add(call, to, future, Incoming::Read);
            }
            Outgoing::MintHint(mint) => {
                let future = self.hints.mint.call(mint, until);
                self.calls.add(call, to, future, Incoming::Minted);
            }
            Outgoing::Relay(relay) => {
                let future = self.refs(&to).relay.call(relay, until);
                self.calls.add(call, to, future, Incoming::Stored);
            }
            Outgoing::Forward(forward) => {
                let future = self.refs(&to).forward.call(forward, until);
                self.calls.add(call, to, future, Incoming::Forwarded);
            }
        }
    }

    fn refs(&mut self, node: &NodeId) -> &NodeRefs {
        if !self.known.contains_key(node) {
            self.known.insert(node.clone(), (self.others)(node));
        }
        &self.known[node]
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        match (self.waiting.remove(&token).map(|waiting| waiting.reply), reply) {
            (Some(WaitingReply::Get(to)), Reply::Get(answer)) => to.send(answer),
            (Some(WaitingReply::Write(to)), Reply::Write(answer)) => to.send(answer),
            (Some(WaitingReply::Forward(to)), Reply::Forward(result)) => to.send(result),
            (Some(WaitingReply::Relay(to)), Reply::Relay(result)) => to.send(result),
            _ => {
                unreachable!("a machine answers each request once, and with its own kind of reply")
            }
        }
    }

    /// One timer, for whatever comes first. One that goes off early does no harm.
    fn set_timer(&mut self, context: &mut Context<Self>) {
        let Some(wake) = self.coordinator.next_wake() else { return };
        if self.timer.is_some_and(|(moment, _)| moment <= wake) {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            context.cancel_future(handle);
        }
        let wait = wake.since(self.clock.now().moment);
        let handle = context.run_later(wait, |actor, context| {
            actor.timer = None;
            actor.turn(context, Input::TimeUp);
        });
        self.timer = Some((wake, handle));
    }
}

impl Actor for CoordinatorActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.mailbox);
        context.add_stream(self.calls.clone());
    }
}

impl StreamHandler<Outcome> for CoordinatorActor {
    fn handle(&mut self, Outcome { call, from, outcome }: Outcome, context: &mut Self::Context) {
        self.turn(context, Input::Answered { call, from, outcome });
    }
}

impl Handler<Call<Get>> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, call: Call<Get>, context: &mut Self::Context) {
        let Some(call) = in_time(call) else { return };
        let token = self.wait(call.context.trace, WaitingReply::Get(call.reply));
        self.turn(context, Input::Get { token, get: call.message });
    }
}

impl Handler<Call<Write>> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, call: Call<Write>, context: &mut Self::Context) {
        let Some(call) = in_time(call) else { return };
        let token = self.wait(call.context.trace, WaitingReply::Write(call.reply));
        self.turn(context, Input::Write { token, write: call.message });
    }
}

impl Handler<Call<ForwardWrite>> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, call: Call<ForwardWrite>, context: &mut Self::Context) {
        let Some(call) = in_time(call) else { return };
        let token = self.wait(call.context.trace, WaitingReply::Forward(call.reply));
        self.turn(context, Input::Forward { token, forward: call.message });
    }
}

impl Handler<Call<RelayVersions>> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, call: Call<RelayVersions>, context: &mut Self::Context) {
        let Some(call) = in_time(call) else { return };
        let token = self.wait(call.context.trace, WaitingReply::Relay(call.reply));
        self.turn(context, Input::Relay { token, relay: call.message });
    }
}

impl Handler<Call<RelayedAck>> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, call: Call<RelayedAck>, context: &mut Self::Context) {
        call.reply.send(());
        self.turn(context, Input::Acked(call.message));
    }
}

impl Handler<Call<LocateKey>> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, call: Call<LocateKey>, _: &mut Self::Context) {
        call.reply.send(self.coordinator.locate(&call.message));
    }
}

impl Handler<ClusterChanged> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, ClusterChanged(view): ClusterChanged, context: &mut Self::Context) {
        self.known.retain(|node, _| view.cluster().members.contains_key(node));
        self.turn(context, Input::ClusterChanged(view));
    }
}

impl Handler<ReachabilityChanged> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, changed: ReachabilityChanged, context: &mut Self::Context) {
        let ReachabilityChanged { node, reachable } = changed;
        self.turn(context, Input::ReachabilityChanged { node, reachable });
    }
}

impl Handler<CountInFlight> for CoordinatorActor {
    type Result = usize;

    fn handle(&mut self, _: CountInFlight, _: &mut Self::Context) -> usize {
        self.coordinator.in_flight()
    }
}

impl Handler<Stop> for CoordinatorActor {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Self::Context) {
        context.stop();
    }
}

impl fmt::Debug for CoordinatorActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatorActor").field("node", &self.node).finish_non_exhaustive()
    }
}
