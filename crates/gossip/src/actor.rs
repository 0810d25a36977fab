//! Runs the membership machine in a node: messages, clocks, saves and the store's answers become inputs,
//! effects are carried out. No decisions here.
//!
//! It belongs on one arbiter, with [`Peers`] of its own: their traffic is gossip's alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, SpawnHandle,
    WrapFuture,
};
use anello_protocol::{
    cluster::{ClusterState, Phase},
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    message::{
        admin::{AlterError, AlterKeyspace, AlterRing, DescribeCluster, FetchCluster},
        gossip::GossipPacket,
    },
    time::{Moment, Now},
};
use anello_ring::{Ring, RingMember};
use anello_transport::{Call, CallContext, CallError, Caller, Peers, ReplyTo};
use tokio::sync::oneshot;

use crate::{
    Alteration, Effect, Input, Membership, MembershipConfig, MembershipEvent, MembershipStore,
    Ticket, To, Unserviceable,
};

/// How long a departing node waits for its goodbyes to arrive.
const GOODBYE_TIME: Duration = Duration::from_millis(500);
/// Packets that can wait in the mailbox; more are refused, and sent again by those who care.
const MAILBOX: usize = 1024;

/// Takes the keyspaces that the node holds data of, or why that can't be told.
pub type HoldingDone = Box<dyn FnOnce(Result<BTreeSet<KeyspaceId>, String>) + Send>;

/// What the node's vnodes hold, and the brake on their writes.
pub trait Holdings {
    /// Finds out of which keyspaces the node holds data. Must not block.
    fn inspect(&self, done: HoldingDone);

    /// Has data writes refused from here on, waits until those under way are durable or failed, then finds
    /// out of which keyspaces the node holds data. May be called again while frozen. Must not block.
    fn freeze(&self, done: HoldingDone);

    /// Has data writes taken again.
    fn thaw(&self);
}

/// The shell around [`Membership`].
///
/// Answers `Call<GossipPacket>`, `Call<FetchCluster>`, `Call<DescribeCluster>`, `Call<AlterKeyspace>`,
/// `Call<AlterRing>` and [`Depart`].
pub struct GossipActor {
    membership: Membership,
    me: NodeId,
    store: Arc<dyn MembershipStore>,
    holdings: Box<dyn Holdings>,
    peers: Peers,
    /// How long a packet and what is said to it at once may take; whatever they say is stale after that. An
    /// answer that is too late to count is still worth knowing of.
    packet_time: Duration,
    on_event: Box<dyn FnMut(MembershipEvent)>,
    begin: Instant,
    alarm: Option<SpawnHandle>,
    waiting: HashMap<u64, ReplyTo<Result<Epoch, AlterError>>>,
    tokens_given: u64,
    known: BTreeMap<NodeId, String>,
    /// How many tokens each member owns, under which epoch.
    owned: (Epoch, BTreeMap<NodeId, u32>),
}

/// What the rest of the node says of whether it can serve.
#[derive(Clone, Debug)]
pub enum Condition {
    /// It acts under a cluster state that it was told of.
    Acting,
    /// Why what the node holds must be shown to nobody, if it must not.
    Unfit(Option<String>),
}

impl Message for Condition {
    type Result = ();
}

/// This node is through with a phase of a partition that is on the move, see [`Input::HandedOver`].
#[derive(Clone, Copy, Debug)]
pub struct HandedOver {
    /// Since when that is asked: see [`anello_protocol::cluster::RingChange::asked`].
    pub change: Epoch,
    /// The partition.
    pub partition: PartitionId,
    /// The phase that it can leave.
    pub phase: Phase,
}

impl Message for HandedOver {
    type Result = ();
}

/// How many hints this node keeps for others, those included that are about to be durable; see
/// [`Input::HintsLeft`].
#[derive(Clone, Copy, Debug)]
pub struct HintsLeft(pub u64);

impl Message for HintsLeft {
    type Result = ();
}

/// The node shuts down: tells its peers, and answers once they have heard it or half a second is over.
#[derive(Clone, Copy, Debug)]
pub struct Depart;

impl Message for Depart {
    type Result = ();
}

impl GossipActor {
    /// An actor for the node, with the record that its store holds. `seed` makes its random choices.
    ///
    /// `on_event` is called on the actor's thread, in order; it must not block.
    pub fn new(
        config: MembershipConfig,
        store: Arc<dyn MembershipStore>,
        holdings: Box<dyn Holdings>,
        peers: Peers,
        seed: u64,
        on_event: Box<dyn FnMut(MembershipEvent)>,
    ) -> Result<Self, Unserviceable> {
        let unreadable =
            |error| Unserviceable(format!("the membership record can't be read: {error}"));
        let stored = store.load().map_err(unreadable)?;
        let me = config.member.id.clone();
        let packet_time = config.timing.detector.answer_max * 2;
        Ok(Self {
            membership: Membership::new(config, stored.as_deref(), seed)?,
            me,
            store,
            holdings,
            peers,
            packet_time,
            on_event,
            begin: Instant::now(),
            alarm: None,
            waiting: HashMap::new(),
            tokens_given: 0,
            known: BTreeMap::new(),
            owned: (Epoch(0), BTreeMap::new()),
        })
    }

    fn now(&self) -> Now {
        let elapsed = self.begin.elapsed().as_micros();
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            moment: Moment(u64::try_from(elapsed).unwrap_or(u64::MAX)),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Gives the machine an input and does what it says.
    fn input(&mut self, input: Input, context: &mut Context<Self>) {
        for effect in self.decide(input) {
            self.perform(effect, context);
        }
    }

    fn decide(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = vec![];
        self.membership.handle(self.now(), input, &mut effects);
        effects
    }

    fn perform(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Send { to: To::Node(to), packet } => {
                let sending = self.peers.call(&to, packet, CallContext::within(self.packet_time));
                context.spawn(sending.into_actor(self).map(move |answer, actor, context| {
                    // Whoever didn't hear it is told something newer in the next round.
                    if let Ok(Some(packet)) = answer {
                        actor.input(Input::Heard { from: to, packet }, context);
                    }
                }));
            }
            Effect::Send { to: To::Address(to), packet } => self.send(to, packet, context),
            Effect::Save { ticket, record } => {
                let (told, outcome) = oneshot::channel();
                // The receiver is gone only if the actor has stopped.
                self.store.save(record, Box::new(move |saved| drop(told.send(saved))));
                self.expect(context, outcome, move |saved| match saved {
                    Ok(()) => Input::Saved(ticket),
                    Err(error) => Input::SaveFailed(error),
                });
            }
            Effect::Inspect { ticket } => {
                let done = self.expect_holding(ticket, context);
                self.holdings.inspect(done);
            }
            Effect::Freeze { ticket } => {
                let done = self.expect_holding(ticket, context);
                self.holdings.freeze(done);
            }
            Effect::Thaw => self.holdings.thaw(),
            Effect::Answer { token, result } => {
                if let Some(reply) = self.waiting.remove(&token) {
                    reply.send(result);
                }
            }
            Effect::WakeAt(moment) => {
                let wait = moment.since(self.now().moment);
                let alarm = context.run_later(wait, |actor, context| {
                    actor.input(Input::TimeUp, context);
                });
                if let Some(before) = self.alarm.replace(alarm) {
                    context.cancel_future(before);
                }
            }
            Effect::Event(event) => self.tell(event),
            Effect::Note(line) => tracing::info!("{line}"),
        }
    }

    /// Turns an outcome to come into an input. Not through the mailbox, which may be full.
    fn expect<T: 'static>(
        &self,
        context: &mut Context<Self>,
        outcome: oneshot::Receiver<T>,
        input: impl FnOnce(T) -> Input + 'static,
    ) {
        context.spawn(outcome.into_actor(self).map(|outcome, actor, context| {
            if let Ok(outcome) = outcome {
                actor.input(input(outcome), context);
            }
        }));
    }

    fn expect_holding(&self, ticket: Ticket, context: &mut Context<Self>) -> HoldingDone {
        let (told, outcome) = oneshot::channel();
        context.spawn(outcome.into_actor(self).map(move |outcome, actor: &mut Self, context| {
            match outcome {
                Ok(Ok(keyspaces)) => {
                    actor.input(Input::Holding { ticket, keyspaces }, context);
                }
                Ok(Err(error)) => tracing::error!("can't tell what data the node holds: {error}"),
                Err(_) => {}
            }
        }));
        Box::new(move |held| drop(told.send(held)))
    }

    fn send(&self, to: String, packet: GossipPacket, context: &mut Context<Self>) {
        let peers = self.peers.clone();
        let within = CallContext::within(self.packet_time);
        let sending = async move {
            let answer = peers.call_address(&to, packet, within).await;
            answer.inspect_err(|error| tracing::debug!("{to}: {error}"))
        };
        context.spawn(sending.into_actor(self).map(|answer, actor, context| {
            if let Ok((from, Some(packet))) = answer {
                actor.input(Input::Heard { from, packet }, context);
            }
        }));
    }

    fn tell(&mut self, event: MembershipEvent) {
        match &event {
            MembershipEvent::ClusterChanged(state) => self.know(state),
            MembershipEvent::NotReady(reason) => tracing::info!("not ready: {reason}"),
            MembershipEvent::Refused(reason) => tracing::error!("refused: {reason}"),
            MembershipEvent::Left => tracing::info!("left the cluster"),
            MembershipEvent::Ready => tracing::info!("ready"),
            MembershipEvent::LostDisk => {
                tracing::warn!("back in the cluster without what was on its disk");
            }
            MembershipEvent::Reachability { .. } => {}
        }
        (self.on_event)(event);
    }

    /// Keeps the peers' addresses what the cluster state says.
    fn know(&mut self, state: &ClusterState) {
        tracing::debug!("cluster state {} with {} members", state.epoch, state.members.len());
        let others = state.members.values().filter(|member| member.id != self.me);
        let next = others.map(|member| (member.id.clone(), member.quic.clone())).collect();
        let before = std::mem::replace(&mut self.known, next);
        for gone in before.keys().filter(|id| !self.known.contains_key(*id)) {
            self.peers.forget(gone);
        }
        for (id, address) in &self.known {
            if before.get(id) != Some(address) {
                self.peers.know(id, address);
            }
        }
    }

    /// How many tokens each member owns, worked out once an epoch.
    fn owned(&mut self) -> &BTreeMap<NodeId, u32> {
        if let Some(state) = self.membership.cluster()
            && state.epoch != self.owned.0
        {
            self.owned = (state.epoch, count_owned(state));
        }
        &self.owned.1
    }
}

fn count_owned(state: &ClusterState) -> BTreeMap<NodeId, u32> {
    let members = state.owners().map(|member| RingMember {
        id: member.id.clone(),
        datacenter: member.datacenter.clone(),
        rack: member.rack.clone(),
        weight: member.weight,
    });
    let mut owned = BTreeMap::new();
    let ring = match Ring::build(state.epoch, state.partitions, members) {
        Ok(ring) => ring,
        Err(error) => {
            tracing::error!("no ring under cluster state {}: {error}", state.epoch);
            return owned;
        }
    };
    for datacenter in ring.datacenters() {
        for partition in ring.partition_ids() {
            if let Some(owner) = ring.owner(partition, datacenter) {
                *owned.entry(owner.id.clone()).or_insert(0) += 1;
            }
        }
    }
    owned
}

impl Actor for GossipActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(MAILBOX);
        self.input(Input::Started, context);
    }
}

impl Handler<Call<GossipPacket>> for GossipActor {
    type Result = ();

    fn handle(&mut self, call: Call<GossipPacket>, context: &mut Context<Self>) {
        let Caller::Node(from) = call.caller else {
            return call.reply.fail(CallError::Refused("gossip is for nodes".into()));
        };
        let mut answer = None;
        for effect in self.decide(Input::Heard { from: from.clone(), packet: call.message }) {
            match effect {
                Effect::Send { to: To::Node(to), packet } if to == from && answer.is_none() => {
                    answer = Some(packet);
                }
                effect => self.perform(effect, context),
            }
        }
        call.reply.send(answer);
    }
}

impl Handler<Call<FetchCluster>> for GossipActor {
    type Result = ();

    fn handle(&mut self, call: Call<FetchCluster>, _: &mut Context<Self>) {
        let newer = self.membership.cluster().filter(|state| state.epoch > call.message.have);
        call.reply.send(newer.map(|state| ClusterState::clone(state)));
    }
}

impl Handler<Call<DescribeCluster>> for GossipActor {
    type Result = ();

    fn handle(&mut self, call: Call<DescribeCluster>, _: &mut Context<Self>) {
        let now = self.now();
        let owned = self.owned().clone();
        call.reply.send(self.membership.view(now, &owned));
    }
}

impl Handler<Call<AlterKeyspace>> for GossipActor {
    type Result = ();

    fn handle(&mut self, call: Call<AlterKeyspace>, context: &mut Context<Self>) {
        self.tokens_given += 1;
        let token = self.tokens_given;
        self.waiting.insert(token, call.reply);
        let request = Alteration::Keyspace(call.message);
        self.input(Input::Alter { token, request }, context);
    }
}

impl Handler<Call<AlterRing>> for GossipActor {
    type Result = ();

    fn handle(&mut self, call: Call<AlterRing>, context: &mut Context<Self>) {
        self.tokens_given += 1;
        let token = self.tokens_given;
        self.waiting.insert(token, call.reply);
        let request = Alteration::Ring(call.message.change);
        self.input(Input::Alter { token, request }, context);
    }
}

impl Handler<HandedOver> for GossipActor {
    type Result = ();

    fn handle(&mut self, message: HandedOver, context: &mut Context<Self>) {
        let HandedOver { change, partition, phase } = message;
        self.input(Input::HandedOver { change, partition, phase }, context);
    }
}

impl Handler<HintsLeft> for GossipActor {
    type Result = ();

    fn handle(&mut self, HintsLeft(count): HintsLeft, context: &mut Context<Self>) {
        self.input(Input::HintsLeft(count), context);
    }
}

impl Handler<Condition> for GossipActor {
    type Result = ();

    fn handle(&mut self, condition: Condition, context: &mut Context<Self>) {
        let input = match condition {
            Condition::Acting => Input::Acting,
            Condition::Unfit(reason) => Input::Unfit(reason),
        };
        self.input(input, context);
    }
}

impl Handler<Depart> for GossipActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Depart, context: &mut Context<Self>) -> ResponseFuture<()> {
        let mut goodbyes = vec![];
        for effect in self.decide(Input::Departing) {
            match effect {
                Effect::Send { to: To::Node(to), packet } => {
                    let goodbye =
                        self.peers.call(&to, packet, CallContext::within(self.packet_time));
                    goodbyes.push(goodbye);
                }
                effect => self.perform(effect, context),
            }
        }
        Box::pin(async move {
            let heard = async {
                for goodbye in goodbyes {
                    // Whoever can't be told finds out.
                    let _ = goodbye.await;
                }
            };
            let _ = tokio::time::timeout(GOODBYE_TIME, heard).await;
        })
    }
}
