//! An actor that answers in every way that an actor can, and the messages it does so by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use anello_protocol::message::{Lane, Message};
use anello_transport::{ActorRef, Call, CallError, Caller, ReplyTo};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

macro_rules! message {
    ($type:ty => $reply:ty, $tag:literal, $lane:ident, $clients:literal) => {
        impl Message for $type {
            type Reply = $reply;
            const TAG: u16 = $tag;
            const LANE: Lane = Lane::$lane;
            const FOR_CLIENTS: bool = $clients;
        }
    };
}

/// Asks for an answer of some kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub act: Act,
    pub payload: Vec<u8>,
}
message!(Probe => Probed, 60_000, Data, true);

/// As [`Probe`], for nodes only and on the other lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeProbe {
    pub payload: Vec<u8>,
}
message!(NodeProbe => Vec<u8>, 60_001, Control, false);

/// A message that nobody answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unheard {}
message!(Unheard => (), 60_002, Data, true);

/// Says that it is a [`Probe`], and can't be decoded as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Impostor {
    pub nonsense: Vec<u8>,
}
message!(Impostor => (), 60_000, Data, true);

/// Says that it is a [`Probe`], and can't decode the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Misheard {
    pub act: Act,
    pub payload: Vec<u8>,
}
message!(Misheard => bool, 60_000, Data, true);

/// What the actor is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// Answer.
    Answer,
    /// Answer with that many bytes.
    AnswerWith(usize),
    /// Drop the reply.
    Drop,
    /// Hold the reply back until [`Act::ReleaseAll`].
    Hold,
    /// Answer what was held back, the last first.
    ReleaseAll,
    /// Look at no further message until [`Prober::go_on`].
    Stall,
    /// Stop.
    Stop,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    pub payload: Vec<u8>,
    /// The time that was left when the message was looked at.
    pub left: Duration,
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
    pub caller: String,
    /// How many replies were held back.
    pub held: usize,
}

impl Probe {
    pub fn new(act: Act, payload: &[u8]) -> Self {
        Self { act, payload: payload.to_vec() }
    }
}

/// The actor, from outside.
#[derive(Clone)]
pub struct Prober {
    pub probe: ActorRef<Probe>,
    pub node_probe: ActorRef<NodeProbe>,
    go_on: Arc<Notify>,
    handled: Arc<AtomicUsize>,
}

impl Prober {
    /// Starts the actor, with a mailbox of that capacity.
    pub fn start(capacity: usize) -> Self {
        let (go_on, handled) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let actor = ProberActor { go_on: go_on.clone(), handled: handled.clone(), held: vec![] };
        let address = ProberActor::create(|context| {
            context.set_mailbox_capacity(capacity);
            actor
        });
        Self {
            probe: ActorRef::mailbox(address.clone().recipient()),
            node_probe: ActorRef::mailbox(address.recipient()),
            go_on,
            handled,
        }
    }

    /// Ends an [`Act::Stall`].
    pub fn go_on(&self) {
        self.go_on.notify_one();
    }

    /// How many messages it has looked at.
    pub fn handled(&self) -> usize {
        self.handled.load(Ordering::Relaxed)
    }
}

struct ProberActor {
    go_on: Arc<Notify>,
    handled: Arc<AtomicUsize>,
    held: Vec<(ReplyTo<Probed>, Probed)>,
}

impl Actor for ProberActor {
    type Context = Context<Self>;
}

impl Handler<Call<Probe>> for ProberActor {
    type Result = ();

    fn handle(&mut self, call: Call<Probe>, context: &mut Context<Self>) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        let trace = call.context.trace.as_ref();
        let mut answer = Probed {
            left: call.context.remaining(),
            traceparent: trace.map(ToString::to_string),
            tracestate: trace.and_then(|trace| trace.state()).map(String::from),
            caller: match call.caller {
                Caller::Local => "local".into(),
                Caller::Node(node) => format!("node {node}"),
                Caller::Client(name) => format!("client {name}"),
            },
            payload: call.message.payload,
            held: self.held.len(),
        };
        match call.message.act {
            Act::Answer => call.reply.send(answer),
            Act::AnswerWith(bytes) => {
                answer.payload = vec![7; bytes];
                call.reply.send(answer);
            }
            Act::Drop => drop(call.reply),
            Act::Hold => self.held.push((call.reply, answer)),
            Act::ReleaseAll => {
                while let Some((reply, answer)) = self.held.pop() {
                    reply.send(answer);
                }
                call.reply.send(answer);
            }
            Act::Stall => {
                let go_on = self.go_on.clone();
                context.wait(async move { go_on.notified().await }.into_actor(self));
                call.reply.send(answer);
            }
            Act::Stop => {
                context.stop();
                call.reply.send(answer);
            }
        }
    }
}

impl Handler<Call<NodeProbe>> for ProberActor {
    type Result = ();

    fn handle(&mut self, call: Call<NodeProbe>, _: &mut Context<Self>) {
        call.reply.send(call.message.payload);
    }
}

/// A failure that a function returns after it dropped the call.
pub fn refusing(error: CallError) -> ActorRef<Probe> {
    ActorRef::function(move |_call| Err(error.clone()))
}
