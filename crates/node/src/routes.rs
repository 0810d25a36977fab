//! Which actor of this node answers a message: by partition, by coordinator, or one for the whole node.
//!
//! Shared by all threads. What isn't there yet while the node starts is answered `Busy`, which the sender
//! may try again.

use std::sync::{
    Arc, OnceLock, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use anello_protocol::{
    id::{Epoch, PartitionId},
    key::KeyHash,
    message::{
        Message,
        admin::{
            AlterKeyspace, AlterRing, DescribeCluster, DescribeNode, FetchCluster, StartRepair,
        },
        client::{Get, LocateKey, Write},
        gossip::GossipPacket,
        hint::{CheckHints, MarkForRepair, MintHint, ReadHints, RequestCredit, StoreHint},
        repair::{CompareKeys, CompareRanges, CompareRoots, PurgeVersions},
        replica::{
            ForwardWrite, MintVersion, ReadVersions, Refusal, RelayVersions, RelayedAck,
            StoreVersions,
        },
    },
};
use anello_transport::{ActorRef, Call, CallError, Router};

/// One vnode of this node.
#[derive(Clone, Debug)]
pub(crate) struct VnodeRefs {
    pub(crate) read: ActorRef<ReadVersions>,
    pub(crate) store: ActorRef<StoreVersions>,
    pub(crate) mint: ActorRef<MintVersion>,
    pub(crate) purge: ActorRef<PurgeVersions>,
}

/// One coordinator of this node.
#[derive(Clone, Debug)]
pub(crate) struct CoordinatorRefs {
    pub(crate) get: ActorRef<Get>,
    pub(crate) write: ActorRef<Write>,
    pub(crate) locate: ActorRef<LocateKey>,
    pub(crate) forward: ActorRef<ForwardWrite>,
    pub(crate) relay: ActorRef<RelayVersions>,
    pub(crate) acked: ActorRef<RelayedAck>,
}

/// What goes on behind requests: hints, comparing, forgetting.
#[derive(Clone, Debug)]
pub(crate) struct StewardRefs {
    pub(crate) keep_hint: ActorRef<StoreHint>,
    pub(crate) read_hints: ActorRef<ReadHints>,
    pub(crate) mint_hint: ActorRef<MintHint>,
    pub(crate) check_hints: ActorRef<CheckHints>,
    pub(crate) credit: ActorRef<RequestCredit>,
    pub(crate) mark: ActorRef<MarkForRepair>,
    pub(crate) roots: ActorRef<CompareRoots>,
    pub(crate) ranges: ActorRef<CompareRanges>,
    pub(crate) keys: ActorRef<CompareKeys>,
    pub(crate) repair: ActorRef<StartRepair>,
}

/// The node's membership.
#[derive(Clone, Debug)]
pub(crate) struct MembershipRefs {
    pub(crate) packet: ActorRef<GossipPacket>,
    pub(crate) fetch: ActorRef<FetchCluster>,
    pub(crate) describe: ActorRef<DescribeCluster>,
    pub(crate) alter: ActorRef<AlterKeyspace>,
    pub(crate) alter_ring: ActorRef<AlterRing>,
}

/// See the head of this file. Clones are the same.
#[derive(Clone)]
pub(crate) struct Routes(Arc<Inner>);

struct Inner {
    partitions: u32,
    /// By partition; replaced as a whole when the node gets or loses some.
    vnodes: RwLock<Arc<[Option<VnodeRefs>]>>,
    /// The state that the node's vnodes act under, or go over to; 0 if there is none yet.
    epoch: AtomicU64,
    coordinators: OnceLock<Vec<CoordinatorRefs>>,
    membership: OnceLock<MembershipRefs>,
    steward: OnceLock<StewardRefs>,
    /// Data of a damaged store is being brought back.
    is_salvaging: AtomicBool,
    status: ActorRef<DescribeNode>,
}

impl Routes {
    /// Routes to nothing yet but the node's status.
    pub(crate) fn new(partitions: u32, status: ActorRef<DescribeNode>) -> Self {
        let none = (0..partitions).map(|_| None).collect();
        Self(Arc::new(Inner {
            partitions,
            vnodes: RwLock::new(none),
            epoch: AtomicU64::new(0),
            coordinators: OnceLock::new(),
            membership: OnceLock::new(),
            steward: OnceLock::new(),
            is_salvaging: AtomicBool::new(false),
            status,
        }))
    }

    /// The coordinators, in the order of the arbiters. To be called once.
    pub(crate) fn set_coordinators(&self, coordinators: Vec<CoordinatorRefs>) {
        // A second call would be a mistake that changes nothing.
        let _ = self.0.coordinators.set(coordinators);
    }

    /// The membership. To be called once.
    pub(crate) fn set_membership(&self, membership: MembershipRefs) {
        let _ = self.0.membership.set(membership);
    }

    /// What goes on behind requests. To be called once.
    pub(crate) fn set_steward(&self, steward: StewardRefs) {
        let _ = self.0.steward.set(steward);
    }

    /// Adds vnodes.
    pub(crate) fn add_vnodes(&self, made: Vec<(PartitionId, VnodeRefs)>) {
        self.put_vnodes(made.into_iter().map(|(partition, refs)| (partition, Some(refs))));
    }

    /// Removes vnodes: who asks for one of them is refused.
    pub(crate) fn remove_vnodes(&self, gone: &[PartitionId]) {
        self.put_vnodes(gone.iter().map(|partition| (*partition, None)));
    }

    fn put_vnodes(&self, changed: impl Iterator<Item = (PartitionId, Option<VnodeRefs>)>) {
        let mut vnodes = self.0.vnodes.write().unwrap_or_else(PoisonError::into_inner);
        let mut table = vnodes.to_vec();
        for (partition, refs) in changed {
            if let Some(place) = table.get_mut(partition.0 as usize) {
                *place = refs;
            }
        }
        *vnodes = table.into();
    }

    /// The state that the node's vnodes act under, or go over to: by it requests for others are refused.
    pub(crate) fn set_epoch(&self, epoch: Epoch) {
        self.0.epoch.store(epoch.0, Ordering::Release);
    }

    fn vnodes(&self) -> Arc<[Option<VnodeRefs>]> {
        Arc::clone(&self.0.vnodes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What others may ask of this node, at the arbiter of that number.
    pub(crate) fn router(&self, arbiter: usize) -> Router {
        Router::builder()
            .serve(self.read())
            .serve(self.store())
            .serve(self.purge())
            .serve(self.keep_hint())
            .serve(self.read_hints())
            .serve(self.check_hints())
            .serve(self.to_steward(|refs| &refs.credit))
            .serve(self.to_steward(|refs| &refs.mark))
            .serve(self.to_steward(|refs| &refs.roots))
            .serve(self.to_steward(|refs| &refs.ranges))
            .serve(self.to_steward(|refs| &refs.keys))
            .serve(self.repair())
            .serve(self.get())
            .serve(self.write())
            .serve(self.to(move |routes, _: &LocateKey| {
                routes.coordinator(arbiter).map(|refs| refs.locate.clone())
            }))
            .serve(self.to(|routes, message: &ForwardWrite| {
                let hash = KeyHash::of(&message.write.keyspace, &message.write.key);
                routes.coordinator_of(hash).map(|refs| refs.forward.clone())
            }))
            .serve(self.to(|routes, message: &RelayVersions| {
                routes.coordinator_of(message.store.key.hash).map(|refs| refs.relay.clone())
            }))
            .serve(self.to(|routes, message: &RelayedAck| {
                let number = usize::from(message.ticket.coordinator);
                routes.coordinator(number).map(|refs| refs.acked.clone())
            }))
            .serve(self.packets())
            .serve(self.fetch())
            .serve(self.describe())
            .serve(self.alter())
            .serve(self.alter_ring())
            .serve(self.status())
            .build()
    }

    /// To the vnode of the key.
    pub(crate) fn read(&self) -> ActorRef<ReadVersions> {
        let key = |message: &ReadVersions| message.key.hash;
        self.to_vnode(key, |message| message.epoch, |vnode| &vnode.read, Err)
    }

    /// To the vnode of the key.
    pub(crate) fn store(&self) -> ActorRef<StoreVersions> {
        let key = |message: &StoreVersions| message.key.hash;
        self.to_vnode(key, |message| message.epoch, |vnode| &vnode.store, Err)
    }

    /// To the vnode of the key.
    pub(crate) fn mint(&self) -> ActorRef<MintVersion> {
        let key = |message: &MintVersion| message.key.hash;
        self.to_vnode(key, |message| message.epoch, |vnode| &vnode.mint, Err)
    }

    /// To the vnode of the key.
    pub(crate) fn purge(&self) -> ActorRef<PurgeVersions> {
        let key = |message: &PurgeVersions| message.key.hash;
        self.to_vnode(key, |message| message.epoch, |vnode| &vnode.purge, Err)
    }

    /// To the node's hint store.
    pub(crate) fn keep_hint(&self) -> ActorRef<StoreHint> {
        self.to_steward(|refs| &refs.keep_hint)
    }

    /// To the node's hint store.
    pub(crate) fn read_hints(&self) -> ActorRef<ReadHints> {
        self.to_steward(|refs| &refs.read_hints)
    }

    /// To the node's hint store.
    pub(crate) fn mint_hint(&self) -> ActorRef<MintHint> {
        self.to_steward(|refs| &refs.mint_hint)
    }

    /// To the node's hint store. As long as data of a damaged store is being brought back, it can't be said
    /// what may yet turn up here, so nothing that was deleted may be forgotten.
    pub(crate) fn check_hints(&self) -> ActorRef<CheckHints> {
        self.to(|routes, _| {
            let steward = routes.0.steward.get();
            let is_known = !routes.0.is_salvaging.load(Ordering::Acquire);
            steward.filter(|_| is_known).map(|refs| refs.check_hints.clone())
        })
    }

    /// Whether data of a damaged store is being brought back.
    pub(crate) fn set_salvaging(&self, is_salvaging: bool) {
        self.0.is_salvaging.store(is_salvaging, Ordering::Release);
    }

    /// To the node's anti-entropy.
    pub(crate) fn repair(&self) -> ActorRef<StartRepair> {
        self.to_steward(|refs| &refs.repair)
    }

    /// To the coordinator beside the vnode of the key.
    ///
    /// A request that came in on another thread changes over once here, instead of once for each
    /// replica: the vnode of this node is at hand then, and so, over the connections of that thread,
    /// are those of the other nodes.
    pub(crate) fn get(&self) -> ActorRef<Get> {
        self.to(|routes, get: &Get| {
            let hash = KeyHash::of(&get.keyspace, &get.key);
            routes.coordinator_of(hash).map(|refs| refs.get.clone())
        })
    }

    /// To the coordinator beside the vnode of the key; see [`Routes::get`].
    pub(crate) fn write(&self) -> ActorRef<Write> {
        self.to(|routes, write: &Write| {
            let hash = KeyHash::of(&write.keyspace, &write.key);
            routes.coordinator_of(hash).map(|refs| refs.write.clone())
        })
    }

    fn packets(&self) -> ActorRef<GossipPacket> {
        self.to_membership(|refs| &refs.packet)
    }

    /// To the node's membership.
    pub(crate) fn fetch(&self) -> ActorRef<FetchCluster> {
        self.to_membership(|refs| &refs.fetch)
    }

    /// To the node's membership.
    pub(crate) fn describe(&self) -> ActorRef<DescribeCluster> {
        self.to_membership(|refs| &refs.describe)
    }

    /// To the node's membership.
    pub(crate) fn alter(&self) -> ActorRef<AlterKeyspace> {
        self.to_membership(|refs| &refs.alter)
    }

    /// To the node's membership.
    pub(crate) fn alter_ring(&self) -> ActorRef<AlterRing> {
        self.to_membership(|refs| &refs.alter_ring)
    }

    /// The node's own figures.
    pub(crate) fn status(&self) -> ActorRef<DescribeNode> {
        self.0.status.clone()
    }

    fn coordinator(&self, number: usize) -> Option<&CoordinatorRefs> {
        self.0.coordinators.get()?.get(number)
    }

    /// The coordinator beside the vnode of a key.
    fn coordinator_of(&self, hash: KeyHash) -> Option<&CoordinatorRefs> {
        let coordinators = self.0.coordinators.get()?;
        let partition = hash.partition(self.0.partitions);
        coordinators.get(arbiter_of(partition, coordinators.len()))
    }

    fn to_vnode<M: Message>(
        &self,
        hash: fn(&M) -> KeyHash,
        epoch: fn(&M) -> Epoch,
        part: fn(&VnodeRefs) -> &ActorRef<M>,
        refused: fn(Refusal) -> M::Reply,
    ) -> ActorRef<M> {
        let routes = self.clone();
        ActorRef::function(move |call: Call<M>| {
            let partition = hash(&call.message).partition(routes.0.partitions);
            match routes.vnodes().get(partition.0 as usize) {
                Some(Some(vnode)) => part(vnode).deliver(call),
                _ => {
                    let refusal = routes.without_vnode(epoch(&call.message));
                    call.reply.send(refused(refusal));
                    Ok(())
                }
            }
        })
    }

    /// What a vnode that isn't there would say to a request under that state.
    fn without_vnode(&self, epoch: Epoch) -> Refusal {
        let own = Epoch(self.0.epoch.load(Ordering::Acquire));
        match epoch.cmp(&own) {
            std::cmp::Ordering::Less => Refusal::StaleEpoch(own),
            std::cmp::Ordering::Greater => Refusal::Behind(own),
            std::cmp::Ordering::Equal => Refusal::NotOwner,
        }
    }

    fn to_membership<M: Message>(&self, part: fn(&MembershipRefs) -> &ActorRef<M>) -> ActorRef<M> {
        self.to(move |routes, _| routes.0.membership.get().map(|refs| part(refs).clone()))
    }

    fn to_steward<M: Message>(&self, part: fn(&StewardRefs) -> &ActorRef<M>) -> ActorRef<M> {
        self.to(move |routes, _| routes.0.steward.get().map(|refs| part(refs).clone()))
    }

    fn to<M: Message>(
        &self,
        find: impl Fn(&Routes, &M) -> Option<ActorRef<M>> + Send + Sync + 'static,
    ) -> ActorRef<M> {
        let routes = self.clone();
        ActorRef::function(move |call: Call<M>| match find(&routes, &call.message) {
            Some(actor) => actor.deliver(call),
            None => {
                call.reply.fail(CallError::Busy);
                Err(CallError::Busy)
            }
        })
    }
}

/// Which of so many arbiters has the vnode of a partition.
pub(crate) fn arbiter_of(partition: PartitionId, arbiters: usize) -> usize {
    partition.0 as usize % arbiters.max(1)
}
