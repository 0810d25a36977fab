//! The shell of a hint store: a mailbox, a shelf, the other nodes, a timer and a clock around
//! [`HintStore`].
//!
//! What may wait for a disk is read on the pool for blocking work; commits come back from the shelf's own
//! thread. No decision is taken here.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, SpawnHandle,
    WrapFuture,
};
use anello_protocol::{
    id::NodeId,
    message::{
        hint::{CheckHints, Credit, MintHint, ReadHints, RequestCredit, StoreHint},
        replica::{Held, Minted, Refusal, StoreVersions, Stored},
    },
    time::Moment,
};
use anello_ring::view::View;
use anello_transport::{ActorRef, Call, CallContext, CallFuture, Caller, ReplyTo};

use super::{
    CallNumber, CommitNumber, CommitOutcome, Effect, HintFigures, HintPeers, HintStore,
    HintStoreConfig, Incoming, Input, Outgoing, Pressure, Reply, Request, Token,
    store::{HintShelf, Shelved},
};
use crate::{
    clock::{Clock, in_time},
    coordinator::failure,
    store::StoreError,
};

/// What a hint store's actor is made of.
pub struct HintStoreParts {
    /// This node.
    pub node: NodeId,
    /// Its bounds; the mailbox has the same.
    pub config: HintStoreConfig,
    /// Drawn at random at every start.
    pub seed: u64,
    /// What the shelf held at the start; without its record if it can't be proved that it holds all.
    pub shelved: Shelved,
    /// Where hints are kept.
    pub shelf: Arc<dyn HintShelf>,
    /// Joining versions, of this node's own vnodes.
    pub own: ActorRef<StoreVersions>,
    /// How to reach the other nodes.
    pub others: Box<dyn Fn(&NodeId) -> HintPeers + Send>,
}

/// The actor of a node's hint store. Answers [`StoreHint`], [`MintHint`], [`ReadHints`], [`CheckHints`]
/// and [`RequestCredit`].
pub struct HintStoreActor {
    node: NodeId,
    store: HintStore,
    shelf: Arc<dyn HintShelf>,
    mailbox: usize,
    clock: Clock,
    own: ActorRef<StoreVersions>,
    others: Box<dyn Fn(&NodeId) -> HintPeers + Send>,
    known: HashMap<NodeId, HintPeers>,
    next_token: u64,
    waiting: HashMap<Token, Waiting>,
    freezers: Vec<Frozen>,
    /// The timer that is set: when it goes off, and its handle.
    timer: Option<(Moment, SpawnHandle)>,
}

/// Who waits for an answer.
enum Waiting {
    Store(ReplyTo<Result<Stored, Refusal>>),
    Mint(ReplyTo<Result<Minted, Refusal>>),
    Read(ReplyTo<Result<Held, Refusal>>),
    Check(ReplyTo<Result<Vec<bool>, Refusal>>),
    Credit(ReplyTo<Credit>),
}

pub use crate::replica::{ClusterChanged, Freeze, Frozen, Stop, Thaw};

/// Tells a hint store of the failure detector's verdict on a node.
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

/// Tells a hint store how much the node's disk has to do besides.
#[derive(Clone, Copy, Debug)]
pub struct PressureChanged(pub Pressure);

impl Message for PressureChanged {
    type Result = ();
}

/// Asks a hint store for its figures.
#[derive(Clone, Copy, Debug)]
pub struct DescribeHints;

impl Message for DescribeHints {
    type Result = HintFigures;
}

/// The shelf has finished a commit.
struct CommitEnded(CommitNumber, Result<(), StoreError>);

impl Message for CommitEnded {
    type Result = ();
}

/// A call has its outcome.
struct Answered(CallNumber, Result<Incoming, super::CallFailure>);

impl Message for Answered {
    type Result = ();
}

impl HintStoreActor {
    /// An actor that has not been told of any cluster yet.
    pub fn new(parts: HintStoreParts) -> Self {
        let HintStoreParts { node, config, seed, shelved, shelf, own, others } = parts;
        Self {
            mailbox: config.requests_max,
            store: HintStore::new(node.clone(), config, seed, shelved),
            node,
            shelf,
            clock: Clock::new(),
            own,
            others,
            known: HashMap::new(),
            next_token: 0,
            waiting: HashMap::new(),
            freezers: Vec::new(),
            timer: None,
        }
    }

    fn ask(&mut self, context: &mut Context<Self>, request: Request, waiting: Waiting) {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.waiting.insert(token, waiting);
        self.turn(context, Input::Asked { token, request });
    }

    /// One input, and all that follows from it.
    fn turn(&mut self, context: &mut Context<Self>, input: Input) {
        let now = self.clock.now();
        self.store.handle(now, input);
        let mut loads = Vec::new();
        while let Some(effect) = self.store.next_effect() {
            match effect {
                Effect::Reply(token, reply) => self.reply(token, reply),
                Effect::Load(owner, key) => loads.push((owner, key)),
                Effect::Page { page, owner, from, count, bytes } => {
                    let shelf = self.shelf.clone();
                    let read = move || {
                        let found = shelf.page(&owner, from, count, bytes);
                        let found = found.map_err(|StoreError(sentence)| sentence);
                        vec![Input::Paged(page, found)]
                    };
                    self.read(context, read);
                }
                Effect::Commit(number, change) => {
                    let actor = context.address();
                    // Past the mailbox's bound, but the store's own bounds hold: every commit in flight
                    // is a request that it counts, or the removal of a hint that is in flight.
                    let done = Box::new(move |result| actor.do_send(CommitEnded(number, result)));
                    if let Err(why) = self.shelf.commit(change, done) {
                        let outcome = CommitOutcome::NotTaken(why);
                        self.store.handle(now, Input::Committed(number, outcome));
                    }
                }
                Effect::Send { call, to, message, deadline } => {
                    self.send(context, call, &to, message, deadline);
                }
                Effect::Quiet => self.freezers.drain(..).for_each(|frozen| frozen()),
            }
        }
        if !loads.is_empty() {
            let shelf = self.shelf.clone();
            let load = move |(owner, key)| {
                let found = shelf.read(&owner, &key).map_err(|StoreError(sentence)| sentence);
                Input::Loaded { owner, key, found }
            };
            self.read(context, move || loads.into_iter().map(load).collect());
        }
        self.set_timer(context);
    }

    /// Reads from the shelf where waiting for a disk holds nobody up.
    fn read(
        &mut self,
        context: &mut Context<Self>,
        read: impl FnOnce() -> Vec<Input> + Send + 'static,
    ) {
        let read = tokio::task::spawn_blocking(read).into_actor(self);
        context.spawn(read.map(|outcome, actor: &mut Self, context| {
            // It fails only if the read panicked, or the runtime ends: then its callers get no answer.
            for input in outcome.unwrap_or_default() {
                actor.turn(context, input);
            }
        }));
    }

    fn send(
        &mut self,
        context: &mut Context<Self>,
        call: CallNumber,
        to: &NodeId,
        message: Outgoing,
        deadline: Moment,
    ) {
        let until = CallContext::until(self.clock.instant(deadline));
        let is_own = *to == self.node;
        match message {
            Outgoing::Store(store) => {
                let vnodes = if is_own { &self.own } else { &self.refs(to).store };
                await_answer(context, call, vnodes.call(store, until), Incoming::Stored);
            }
            Outgoing::Credit(ask) => {
                let answer = self.refs(to).credit.call(ask, until);
                await_answer(context, call, answer, Incoming::Credit);
            }
            Outgoing::Mark(marks) => {
                let answer = self.refs(to).mark.call(marks, until);
                await_answer(context, call, answer, |()| Incoming::Marked);
            }
        }
    }

    fn refs(&mut self, node: &NodeId) -> &HintPeers {
        if !self.known.contains_key(node) {
            self.known.insert(node.clone(), (self.others)(node));
        }
        &self.known[node]
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        match (self.waiting.remove(&token), reply) {
            (Some(Waiting::Store(to)), Reply::Store(result)) => to.send(result),
            (Some(Waiting::Mint(to)), Reply::Mint(result)) => to.send(result),
            (Some(Waiting::Read(to)), Reply::Read(result)) => to.send(result),
            (Some(Waiting::Check(to)), Reply::Check(result)) => to.send(result),
            (Some(Waiting::Credit(to)), Reply::Credit(credit)) => to.send(credit),
            _ => {
                unreachable!("a machine answers each question once, and with its own kind of reply")
            }
        }
    }

    /// One timer, for whatever comes first. One that goes off early does no harm.
    fn set_timer(&mut self, context: &mut Context<Self>) {
        let Some(wake) = self.store.next_wake() else { return };
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

/// Brings a call's outcome back to the actor: past the mailbox's bound, but calls in flight have their own.
fn await_answer<R: 'static>(
    context: &mut Context<HintStoreActor>,
    call: CallNumber,
    answer: CallFuture<R>,
    wrap: fn(R) -> Incoming,
) {
    let actor = context.address();
    actix::spawn(async move {
        actor.do_send(Answered(call, answer.await.map(wrap).map_err(failure)));
    });
}

impl Actor for HintStoreActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.mailbox);
    }
}

/// The handlers of calls, which become requests.
macro_rules! requests {
    ($($message:ident => $request:ident),*) => {$(
        impl Handler<Call<$message>> for HintStoreActor {
            type Result = ();

            fn handle(&mut self, call: Call<$message>, context: &mut Self::Context) {
                if let Some(call) = in_time(call) {
                    let request = Request::$request(call.message);
                    self.ask(context, request, Waiting::$request(call.reply));
                }
            }
        }
    )*};
}
requests!(StoreHint => Store, MintHint => Mint, ReadHints => Read, CheckHints => Check);

impl Handler<Call<RequestCredit>> for HintStoreActor {
    type Result = ();

    fn handle(&mut self, call: Call<RequestCredit>, context: &mut Self::Context) {
        let Some(call) = in_time(call) else { return };
        let from = match call.caller {
            Caller::Node(node) => node,
            Caller::Local | Caller::Client(_) => self.node.clone(),
        };
        self.ask(context, Request::Credit(from, call.message), Waiting::Credit(call.reply));
    }
}

/// The handlers of what a hint store is told, which become inputs.
macro_rules! facts {
    ($($message:ty: $pattern:pat => $input:expr),* $(,)?) => {$(
        impl Handler<$message> for HintStoreActor {
            type Result = ();

            fn handle(&mut self, $pattern: $message, context: &mut Self::Context) {
                self.turn(context, $input);
            }
        }
    )*};
}
facts!(
    Answered: Answered(call, outcome) => Input::Answered(call, outcome),
    ReachabilityChanged: ReachabilityChanged { node, reachable } =>
        Input::ReachabilityChanged { node, reachable },
    PressureChanged: PressureChanged(pressure) => Input::PressureChanged(pressure),
    CommitEnded: CommitEnded(number, result) => Input::Committed(number, match result {
        Ok(()) => CommitOutcome::Durable,
        Err(StoreError(sentence)) => CommitOutcome::Failed(sentence),
    }),
);

impl Handler<ClusterChanged> for HintStoreActor {
    type Result = ();

    fn handle(&mut self, ClusterChanged(view): ClusterChanged, context: &mut Self::Context) {
        self.forget_others(&view);
        self.turn(context, Input::ClusterChanged(view));
    }
}

impl HintStoreActor {
    fn forget_others(&mut self, view: &View) {
        let members: BTreeSet<_> = view.cluster().members.keys().collect();
        self.known.retain(|node, _| members.contains(node));
    }
}

impl Handler<Freeze> for HintStoreActor {
    type Result = ();

    fn handle(&mut self, Freeze(frozen): Freeze, context: &mut Self::Context) {
        self.freezers.push(frozen);
        self.turn(context, Input::Freeze);
    }
}

impl Handler<Thaw> for HintStoreActor {
    type Result = ();

    fn handle(&mut self, _: Thaw, context: &mut Self::Context) {
        self.freezers.clear();
        self.turn(context, Input::Thaw);
    }
}

impl Handler<DescribeHints> for HintStoreActor {
    type Result = actix::MessageResult<DescribeHints>;

    fn handle(&mut self, _: DescribeHints, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(self.store.figures(self.clock.now()))
    }
}

impl Handler<Stop> for HintStoreActor {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Self::Context) {
        context.stop();
    }
}

impl fmt::Debug for HintStoreActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HintStoreActor").field("node", &self.node).finish_non_exhaustive()
    }
}
