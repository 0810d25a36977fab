//! The shell of a vnode: a mailbox, a store, and a clock around [`Replica`].
//!
//! What the store has in memory is read on the spot, what may wait for a disk on the pool for blocking
//! work; commits come back from the store's own thread. No decision is taken here.

use std::{collections::HashMap, fmt, sync::Arc};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture,
};
use anello_protocol::{
    id::{NodeId, PartitionId},
    key::DataKey,
    message::{
        repair::{PurgeVersions, Purged},
        replica::{Held, MintVersion, Minted, ReadVersions, Refusal, StoreVersions, Stored},
    },
};
use anello_ring::view::View;
use anello_transport::{Call, ReplyTo};

use super::{
    CommitNumber, CommitOutcome, Effect, Input, Replica, ReplicaConfig, Reply, Request, Token,
};
use crate::{
    clock::{Clock, in_time},
    store::{CachedRead, Store, StoreError, VnodeRecord},
};

/// What a vnode's actor is made of.
pub struct ReplicaParts {
    /// This node.
    pub node: NodeId,
    /// The partition.
    pub partition: PartitionId,
    /// The vnode's bounds; the mailbox has the same.
    pub config: ReplicaConfig,
    /// Drawn at random at every start.
    pub seed: u64,
    /// What the store remembers of the vnode; `None` if it can't be proved that it remembers all.
    pub remembered: Option<VnodeRecord>,
    /// Where its data is.
    pub store: Arc<dyn Store>,
}

/// The actor of one vnode. Answers [`ReadVersions`], [`StoreVersions`], [`MintVersion`] and
/// [`PurgeVersions`].
pub struct ReplicaActor {
    replica: Replica,
    store: Arc<dyn Store>,
    clock: Clock,
    mailbox: usize,
    next_token: u64,
    waiting: HashMap<Token, Waiting>,
    freezers: Vec<Frozen>,
}

/// Who waits for an answer.
enum Waiting {
    Read(ReplyTo<Result<Held, Refusal>>),
    Store(ReplyTo<Result<Stored, Refusal>>),
    Mint(ReplyTo<Result<Minted, Refusal>>),
    Purge(ReplyTo<Result<Purged, Refusal>>),
}

/// Called once a vnode is frozen and all of its writes have ended.
pub type Frozen = Box<dyn FnOnce() + Send>;

/// Tells a vnode what the members have agreed on.
#[derive(Clone, Debug)]
pub struct ClusterChanged(pub Arc<View>);

impl Message for ClusterChanged {
    type Result = ();
}

/// Tells a vnode to refuse writes while the members vote; it calls back once those under way have
/// ended, so that what the store then holds is all there is.
pub struct Freeze(pub Frozen);

impl Message for Freeze {
    type Result = ();
}

/// Tells a vnode that the vote is over.
#[derive(Clone, Copy, Debug)]
pub struct Thaw;

impl Message for Thaw {
    type Result = ();
}

/// Tells a vnode whether what it holds may lack so much that it must be shown to nobody.
#[derive(Clone, Copy, Debug)]
pub struct Quarantine(pub bool);

impl Message for Quarantine {
    type Result = ();
}

/// Asks a vnode how many requests wait for the store.
#[derive(Clone, Copy, Debug)]
pub struct CountWaiting;

impl Message for CountWaiting {
    type Result = usize;
}

/// Tells a vnode to end. Whoever waits for an answer gets none.
///
/// One that may be started again in the same process has to be frozen first: what it has given to the
/// store, but the store has not finished, is unknown to whoever reads its record meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Stop;

impl Message for Stop {
    type Result = ();
}

/// The store has finished a commit.
struct CommitEnded(CommitNumber, Result<(), StoreError>);

impl Message for CommitEnded {
    type Result = ();
}

impl ReplicaActor {
    /// An actor that has not been told of any cluster yet.
    pub fn new(parts: ReplicaParts) -> Self {
        let ReplicaParts { node, partition, config, seed, remembered, store } = parts;
        Self {
            mailbox: config.requests_max,
            replica: Replica::new(node, partition, config, seed, remembered),
            store,
            clock: Clock::new(),
            next_token: 0,
            waiting: HashMap::new(),
            freezers: Vec::new(),
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
        self.replica.handle(now, input);
        while let Some(effect) = self.replica.next_effect() {
            match effect {
                Effect::Reply(token, reply) => self.reply(token, reply),
                Effect::Load(key) => match self.store.read_cached(&key) {
                    Ok(CachedRead::Hit(found)) => {
                        self.replica.handle(now, Input::Loaded(key, Ok(found)));
                    }
                    Ok(CachedRead::WouldBlock) => self.load(context, key),
                    Err(StoreError(sentence)) => {
                        self.replica.handle(now, Input::Loaded(key, Err(sentence)));
                    }
                },
                Effect::Commit(number, commit) => {
                    let actor = context.address();
                    // Past the mailbox's bound, but the vnode's own bound holds: every commit in
                    // flight is one of the requests that it counts.
                    let done = Box::new(move |result| actor.do_send(CommitEnded(number, result)));
                    if let Err(why) = self.store.commit(commit, done) {
                        let outcome = CommitOutcome::NotTaken(why);
                        self.replica.handle(now, Input::Committed(number, outcome));
                    }
                }
                Effect::Quiet => self.freezers.drain(..).for_each(|frozen| frozen()),
            }
        }
    }

    /// Reads a key where waiting for a disk holds nobody up.
    fn load(&mut self, context: &mut Context<Self>, key: DataKey) {
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || {
            let found = store.read(&key).map_err(|StoreError(sentence)| sentence);
            (key, found)
        });
        let loaded = read.into_actor(self).map(|outcome, actor: &mut Self, context| {
            // It fails only if the read panicked, or the runtime ends: then its callers get no answer.
            if let Ok((key, found)) = outcome {
                actor.turn(context, Input::Loaded(key, found));
            }
        });
        context.spawn(loaded);
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        match (self.waiting.remove(&token), reply) {
            (Some(Waiting::Read(to)), Reply::Read(result)) => to.send(result),
            (Some(Waiting::Store(to)), Reply::Store(result)) => to.send(result),
            (Some(Waiting::Mint(to)), Reply::Mint(result)) => to.send(result),
            (Some(Waiting::Purge(to)), Reply::Purge(result)) => to.send(result),
            _ => {
                unreachable!("a machine answers each question once, and with its own kind of reply")
            }
        }
    }
}

impl Actor for ReplicaActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.mailbox);
    }
}

impl Handler<Call<ReadVersions>> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, call: Call<ReadVersions>, context: &mut Self::Context) {
        if let Some(call) = in_time(call) {
            self.ask(context, Request::Read(call.message), Waiting::Read(call.reply));
        }
    }
}

impl Handler<Call<StoreVersions>> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, call: Call<StoreVersions>, context: &mut Self::Context) {
        if let Some(call) = in_time(call) {
            self.ask(context, Request::Store(call.message), Waiting::Store(call.reply));
        }
    }
}

impl Handler<Call<MintVersion>> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, call: Call<MintVersion>, context: &mut Self::Context) {
        if let Some(call) = in_time(call) {
            self.ask(context, Request::Mint(call.message), Waiting::Mint(call.reply));
        }
    }
}

impl Handler<Call<PurgeVersions>> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, call: Call<PurgeVersions>, context: &mut Self::Context) {
        if let Some(call) = in_time(call) {
            self.ask(context, Request::Purge(call.message), Waiting::Purge(call.reply));
        }
    }
}

impl Handler<Quarantine> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, Quarantine(is_it): Quarantine, context: &mut Self::Context) {
        self.turn(context, Input::Quarantined(is_it));
    }
}

impl Handler<CommitEnded> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, CommitEnded(number, result): CommitEnded, context: &mut Self::Context) {
        let outcome = match result {
            Ok(()) => CommitOutcome::Durable,
            Err(StoreError(sentence)) => CommitOutcome::Failed(sentence),
        };
        self.turn(context, Input::Committed(number, outcome));
    }
}

impl Handler<ClusterChanged> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, ClusterChanged(view): ClusterChanged, context: &mut Self::Context) {
        self.turn(context, Input::ClusterChanged(view));
    }
}

impl Handler<Freeze> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, Freeze(frozen): Freeze, context: &mut Self::Context) {
        self.freezers.push(frozen);
        self.turn(context, Input::Freeze);
    }
}

impl Handler<Thaw> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, _: Thaw, context: &mut Self::Context) {
        self.freezers.clear();
        self.turn(context, Input::Thaw);
    }
}

impl Handler<CountWaiting> for ReplicaActor {
    type Result = usize;

    fn handle(&mut self, _: CountWaiting, _: &mut Self::Context) -> usize {
        self.replica.waiting()
    }
}

impl Handler<Stop> for ReplicaActor {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Self::Context) {
        context.stop();
    }
}

impl fmt::Debug for ReplicaActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaActor").field("replica", &self.replica).finish_non_exhaustive()
    }
}
