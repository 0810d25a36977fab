//! The shell of a purger: a mailbox, the store, connections, a timer and a clock around [`Purger`].
//!
//! Listing is done on the pool for blocking work. No decision is taken here, and no handler waits.

use std::{collections::HashMap, fmt, sync::Arc};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, MessageResult,
    SpawnHandle, WrapFuture,
};
use anello_protocol::{
    id::NodeId,
    message::{hint::CheckHints, repair::PurgeVersions, replica::ReadVersions},
    time::Moment,
};
use anello_ring::view::View;
use anello_transport::{ActorRef, CallContext, CallError, CallFuture, Peers};

use super::{
    CallFailure, CallNumber, Effect, Incoming, Input, Outgoing, PurgeConfig, PurgeFigures, Purger,
};
use crate::{
    clock::Clock,
    store::{TreeError, TreeStore},
};

/// What a purger's actor is made of.
pub struct PurgeParts {
    /// This node.
    pub node: NodeId,
    /// Its delays and bounds.
    pub config: PurgeConfig,
    /// Where the tombstones are listed.
    pub store: Arc<dyn TreeStore>,
    /// How to reach the vnodes and the hints of this node.
    pub own: PurgeRefs,
    /// How to reach the others.
    pub others: Box<dyn Fn(&NodeId) -> PurgeRefs + Send>,
}

/// What a purger asks of a node.
#[derive(Clone, Debug)]
pub struct PurgeRefs {
    /// Reading, of its vnodes.
    pub read: ActorRef<ReadVersions>,
    /// Telling what is kept for others.
    pub check: ActorRef<CheckHints>,
    /// Forgetting, of its vnodes.
    pub purge: ActorRef<PurgeVersions>,
}

impl PurgeRefs {
    /// A node at the other end of a connection.
    pub fn peer(peers: &Peers, node: &NodeId) -> Self {
        Self {
            read: ActorRef::peer(peers, node.clone()),
            check: ActorRef::peer(peers, node.clone()),
            purge: ActorRef::peer(peers, node.clone()),
        }
    }
}

/// The actor of a node's purger.
pub struct PurgeActor {
    node: NodeId,
    purger: Purger,
    store: Arc<dyn TreeStore>,
    own: PurgeRefs,
    others: Box<dyn Fn(&NodeId) -> PurgeRefs + Send>,
    known: HashMap<NodeId, PurgeRefs>,
    clock: Clock,
    /// The timer that is set: when it goes off, and its handle.
    timer: Option<(Moment, SpawnHandle)>,
}

/// Tells a purger what the members have agreed on.
#[derive(Clone, Debug)]
pub struct ClusterChanged(pub Arc<View>);

impl Message for ClusterChanged {
    type Result = ();
}

/// Tells a purger of the failure detector's verdict on a node.
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

/// Tells a purger whether its node is in quarantine.
#[derive(Clone, Copy, Debug)]
pub struct Quarantine(pub bool);

impl Message for Quarantine {
    type Result = ();
}

/// Asks a purger what it has done, what waits, and why.
#[derive(Clone, Copy, Debug)]
pub struct Report;

impl Message for Report {
    type Result = PurgeReport;
}

/// A purger's figures, with those of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// About how many tombstones there are, old enough or not.
    pub tombstones: u64,
    /// The purger's own.
    pub figures: PurgeFigures,
}

/// Tells a purger to end.
#[derive(Clone, Copy, Debug)]
pub struct Stop;

impl Message for Stop {
    type Result = ();
}

impl PurgeActor {
    /// An actor that has not been told of any cluster yet.
    pub fn new(parts: PurgeParts) -> Self {
        let PurgeParts { node, config, store, own, others } = parts;
        Self {
            purger: Purger::new(node.clone(), config),
            node,
            store,
            own,
            others,
            known: HashMap::new(),
            clock: Clock::new(),
            timer: None,
        }
    }

    /// One input, and all that follows from it.
    fn turn(&mut self, context: &mut Context<Self>, input: Input) {
        self.purger.handle(self.clock.now(), input);
        while let Some(effect) = self.purger.next_effect() {
            match effect {
                Effect::List { number, keyspace, partition, after, limit } => {
                    let store = self.store.clone();
                    let list = tokio::task::spawn_blocking(move || {
                        store.tombstones(keyspace, partition, after.as_ref(), limit)
                    });
                    let listed =
                        list.into_actor(self).map(move |outcome, actor: &mut Self, context| {
                            let result = match outcome {
                                Ok(listed) => listed.map_err(|TreeError(sentence)| sentence),
                                Err(ended) => Err(ended.to_string()),
                            };
                            if let Err(error) = &result {
                                tracing::warn!(%partition, %error, "tombstones can't be listed");
                            }
                            actor.turn(context, Input::Listed { number, result });
                        });
                    context.spawn(listed);
                }
                Effect::Send { call, to, message, deadline } => {
                    self.send(context, call, &to, message, deadline);
                }
            }
        }
        self.set_timer(context);
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
        let refs = self.refs(to);
        match message {
            Outgoing::Read(read) => {
                let future = refs.read.call(read, until);
                self.wait(context, call, future, Incoming::Read);
            }
            Outgoing::Check(check) => {
                let future = refs.check.call(check, until);
                self.wait(context, call, future, Incoming::Checked);
            }
            Outgoing::Purge(purge) => {
                let future = refs.purge.call(purge, until);
                self.wait(context, call, future, Incoming::Purged);
            }
        }
    }

    fn wait<R: 'static>(
        &self,
        context: &mut Context<Self>,
        call: CallNumber,
        future: CallFuture<R>,
        wrap: fn(R) -> Incoming,
    ) {
        let answered = future.into_actor(self).map(move |outcome, actor: &mut Self, context| {
            let outcome = outcome.map(wrap).map_err(failure);
            actor.turn(context, Input::Answered { call, outcome });
        });
        context.spawn(answered);
    }

    fn refs(&mut self, node: &NodeId) -> &PurgeRefs {
        if *node == self.node {
            return &self.own;
        }
        if !self.known.contains_key(node) {
            self.known.insert(node.clone(), (self.others)(node));
        }
        &self.known[node]
    }

    /// One timer, for whatever comes first. One that goes off early does no harm.
    fn set_timer(&mut self, context: &mut Context<Self>) {
        let Some(wake) = self.purger.next_wake() else { return };
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

fn failure(error: CallError) -> CallFailure {
    match error {
        CallError::Timeout | CallError::Closed => CallFailure::Silent,
        CallError::Busy => CallFailure::Busy,
        CallError::Unreachable => CallFailure::Unreachable,
        CallError::Refused(reason) => {
            tracing::warn!(%reason, "a node refused a message");
            CallFailure::Refused
        }
    }
}

impl Actor for PurgeActor {
    type Context = Context<Self>;
}

impl Handler<ClusterChanged> for PurgeActor {
    type Result = ();

    fn handle(&mut self, ClusterChanged(view): ClusterChanged, context: &mut Self::Context) {
        self.known.retain(|node, _| view.cluster().members.contains_key(node));
        self.turn(context, Input::ClusterChanged(view));
    }
}

impl Handler<ReachabilityChanged> for PurgeActor {
    type Result = ();

    fn handle(&mut self, changed: ReachabilityChanged, context: &mut Self::Context) {
        let ReachabilityChanged { node, reachable } = changed;
        self.turn(context, Input::ReachabilityChanged { node, reachable });
    }
}

impl Handler<Quarantine> for PurgeActor {
    type Result = ();

    fn handle(&mut self, Quarantine(is_it): Quarantine, context: &mut Self::Context) {
        self.turn(context, Input::Quarantined(is_it));
    }
}

impl Handler<Report> for PurgeActor {
    type Result = MessageResult<Report>;

    fn handle(&mut self, _: Report, _: &mut Self::Context) -> Self::Result {
        MessageResult(PurgeReport {
            tombstones: self.store.tombstones_estimate(),
            figures: self.purger.figures(),
        })
    }
}

impl Handler<Stop> for PurgeActor {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Self::Context) {
        context.stop();
    }
}

impl fmt::Debug for PurgeActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PurgeActor").field("node", &self.node).finish_non_exhaustive()
    }
}
