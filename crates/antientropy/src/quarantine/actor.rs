//! The shell of a quarantine: a mailbox, a timer and a clock around [`Quarantine`]. No decision is taken
//! here.

use std::{fmt, sync::Arc};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, SpawnHandle};
use anello_protocol::id::{KeyspaceId, NodeId, PartitionId};
use anello_ring::view::View;

use super::{Effect, Input, LastAlive, Quarantine, QuarantineConfig};
use crate::clock::Clock;

/// What a quarantine's actor is made of.
pub struct QuarantineParts {
    /// This node.
    pub node: NodeId,
    /// Its bounds.
    pub config: QuarantineConfig,
    /// What the node remembers of its last life; nothing if its store is a fresh one.
    pub last: Option<LastAlive>,
    /// Whether the store was put back from a copy.
    pub was_restored: bool,
    /// Keeps what the next start is to remember.
    pub save: Box<dyn Fn(LastAlive) + Send>,
    /// Told when it begins and ends, and while it lasts now and then how far it is: the reason for people.
    pub tell: Box<dyn Fn(Option<String>) + Send>,
}

/// The actor of a node's quarantine.
pub struct QuarantineActor {
    quarantine: Quarantine,
    clock: Clock,
    save: Box<dyn Fn(LastAlive) + Send>,
    tell: Box<dyn Fn(Option<String>) + Send>,
    told: Option<String>,
    timer: Option<SpawnHandle>,
}

/// Tells a quarantine what the members have agreed on.
#[derive(Clone, Debug)]
pub struct ClusterChanged(pub Arc<View>);

impl Message for ClusterChanged {
    type Result = ();
}

/// Tells a quarantine of the failure detector's verdict on a node.
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

/// Tells a quarantine that a partition is in step with a replica that serves.
#[derive(Clone, Debug)]
pub struct InStep {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The partition.
    pub partition: PartitionId,
    /// The replica.
    pub peer: NodeId,
}

impl Message for InStep {
    type Result = ();
}

/// Tells a quarantine that a replica is quarantined itself.
#[derive(Clone, Debug)]
pub struct PeerQuarantined(pub NodeId);

impl Message for PeerQuarantined {
    type Result = ();
}

/// Asks a quarantine why the node must serve nothing, if it must not, as of all that it was told before.
#[derive(Clone, Copy, Debug)]
pub struct AskReason;

impl Message for AskReason {
    type Result = Option<String>;
}

/// Tells a quarantine that what the node held is gone.
#[derive(Clone, Copy, Debug)]
pub struct Lost;

impl Message for Lost {
    type Result = ();
}

/// Tells a quarantine to end its work; whether the node is quarantined stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct Stop;

impl Message for Stop {
    type Result = ();
}

impl QuarantineActor {
    /// An actor that has not been told of any cluster yet.
    pub fn new(parts: QuarantineParts) -> Self {
        let QuarantineParts { node, config, last, was_restored, save, tell } = parts;
        let clock = Clock::new();
        let quarantine = Quarantine::new(clock.now(), node, config, last, was_restored);
        Self { quarantine, clock, save, tell, told: None, timer: None }
    }

    /// One input, and all that follows from it.
    fn turn(&mut self, context: &mut Context<Self>, input: Input) {
        let is_alarm = matches!(input, Input::TimeUp);
        self.quarantine.handle(self.clock.now(), input);
        while let Some(effect) = self.quarantine.next_effect() {
            match effect {
                Effect::Save(last) => (self.save)(last),
                // The reason says it too, with how far it is.
                Effect::Quarantine(_) => {}
            }
        }
        let reason = self.quarantine.reason();
        // How far it is changes many times a second, and is told only now and then.
        let has_turned = self.told.is_some() != reason.is_some();
        if has_turned || (is_alarm && self.told != reason) {
            (self.tell)(reason.clone());
            self.told = reason;
        }
        self.set_timer(context);
    }

    fn set_timer(&mut self, context: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            context.cancel_future(timer);
        }
        let wait = self.quarantine.next_wake().since(self.clock.now().moment);
        self.timer = Some(context.run_later(wait, |actor, context| {
            actor.timer = None;
            actor.turn(context, Input::TimeUp);
        }));
    }
}

impl Actor for QuarantineActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.turn(context, Input::TimeUp);
    }
}

impl Handler<ClusterChanged> for QuarantineActor {
    type Result = ();

    fn handle(&mut self, ClusterChanged(view): ClusterChanged, context: &mut Self::Context) {
        self.turn(context, Input::ClusterChanged(view));
    }
}

impl Handler<ReachabilityChanged> for QuarantineActor {
    type Result = ();

    fn handle(&mut self, changed: ReachabilityChanged, context: &mut Self::Context) {
        let ReachabilityChanged { node, reachable } = changed;
        self.turn(context, Input::ReachabilityChanged { node, reachable });
    }
}

impl Handler<InStep> for QuarantineActor {
    type Result = ();

    fn handle(&mut self, in_step: InStep, context: &mut Self::Context) {
        let InStep { keyspace, partition, peer } = in_step;
        self.turn(context, Input::InStep { keyspace, partition, peer });
    }
}

impl Handler<PeerQuarantined> for QuarantineActor {
    type Result = ();

    fn handle(&mut self, PeerQuarantined(peer): PeerQuarantined, context: &mut Self::Context) {
        self.turn(context, Input::PeerQuarantined(peer));
    }
}

impl Handler<AskReason> for QuarantineActor {
    type Result = Option<String>;

    fn handle(&mut self, _: AskReason, _: &mut Self::Context) -> Option<String> {
        self.quarantine.reason()
    }
}

impl Handler<Lost> for QuarantineActor {
    type Result = ();

    fn handle(&mut self, _: Lost, context: &mut Self::Context) {
        self.turn(context, Input::Lost);
    }
}

impl Handler<Stop> for QuarantineActor {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Self::Context) {
        context.stop();
    }
}

impl fmt::Debug for QuarantineActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuarantineActor").field("quarantine", &self.quarantine).finish()
    }
}
