//! One simulated node: the real machines, and the shell that carries out what they say.
//!
//! The shell decides nothing. It passes messages between the machines of its own node on the spot, hands
//! packets for others and alarms to the fleet, and keeps the disk. What the actors do in a real node, it
//! does here.

mod calls;
mod comparing;
mod coordinating;
mod events;
mod following;
mod hinting;
mod messages;
mod purging;
mod starting;
mod vnodes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use anello_antientropy::{
    AntiEntropy, AntiEntropyConfig, Input as TreeInput,
    purge::{self, PurgeConfig, Purger},
    quarantine::{self, Quarantine, QuarantineConfig},
};
use anello_gossip::{Input as GossipInput, Membership, MembershipConfig, Ticket};
use anello_protocol::{
    id::{NodeId, PartitionId},
    time::{Moment, Now},
};
use anello_replica::{
    coordinator::{
        Coordinator, CoordinatorConfig, Input as CoordinatorInput, Token as CoordinatorToken,
    },
    hints::{HintStore, HintStoreConfig, Input as HintInput},
    replica::{CommitOutcome, Input as ReplicaInput, Replica, ReplicaConfig},
};
use anello_ring::view::View;

use self::calls::{Asker, Caller, not_before};
pub use self::events::{ClientCall, Machine, NodeInput, Out, SyncOutcome};
use crate::{
    disk::{Disk, DiskWrite},
    rng::Rng,
    wire::WireCall,
};

/// The bounds and delays of a node's machines.
#[derive(Clone, Debug, Default)]
pub struct NodeSettings {
    /// Of the coordinator.
    pub coordinator: CoordinatorConfig,
    /// Of the vnodes.
    pub replica: ReplicaConfig,
    /// Of the hint store.
    pub hints: HintStoreConfig,
    /// Of anti-entropy.
    pub trees: AntiEntropyConfig,
    /// Of the purger.
    pub purge: PurgeConfig,
    /// Of the quarantine.
    pub quarantine: QuarantineConfig,
}

/// A node that is switched on.
struct Running {
    membership: Membership,
    coordinator: Coordinator,
    replicas: BTreeMap<PartitionId, Replica>,
    hints: HintStore,
    trees: AntiEntropy,
    purger: Purger,
    quarantine: Quarantine,
    /// Those that it should have and can't open.
    missing: BTreeSet<PartitionId>,
    view: Option<Arc<View>>,
    is_ready: bool,
    refused: Option<String>,
    /// How many hints it keeps for others.
    hints_left: u64,
    unreachable: BTreeSet<NodeId>,
    reached: BTreeSet<NodeId>,
    is_frozen: bool,
    /// Freezes that wait for vnodes and the hint store.
    freezing: Vec<(Ticket, BTreeSet<Freezer>)>,
    asked: BTreeMap<u64, Asker>,
    calls: BTreeMap<WireCall, (Caller, NodeId)>,
    alarms: BTreeMap<Machine, Moment>,
}

/// Who has writes under way that a freeze waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Freezer {
    Vnode(PartitionId),
    Hints,
}

/// Inputs of one machine of the node to another.
enum Inner {
    Coordinator(CoordinatorInput),
    Replica(PartitionId, ReplicaInput),
    Gossip(GossipInput),
    Hints(HintInput),
    Trees(TreeInput),
    Purger(purge::Input),
    Quarantine(quarantine::Input),
}

/// See the head of this file.
pub struct Node {
    config: MembershipConfig,
    settings: NodeSettings,
    /// What survives a crash.
    pub disk: Disk,
    rng: Rng,
    running: Option<Running>,
    numbers: u64,
}

impl Node {
    /// A node that is switched off.
    pub fn new(config: MembershipConfig, settings: NodeSettings, rng: Rng) -> Self {
        let disk = Disk::new(config.partitions);
        Self { config, settings, disk, rng, running: None, numbers: 0 }
    }

    /// Its name.
    pub fn id(&self) -> &NodeId {
        &self.config.member.id
    }

    /// Its place and addresses.
    pub fn member(&self) -> &anello_protocol::cluster::Member {
        &self.config.member
    }

    /// Whether it is switched on.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_ready)
    }

    /// Whether it shows nobody what it holds.
    pub fn is_quarantined(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.quarantine.is_on())
    }

    /// Why it serves nothing, if that is a quarantine.
    pub fn quarantine_reason(&self) -> Option<String> {
        self.running.as_ref().and_then(|running| running.quarantine.reason())
    }

    /// Why it will never serve, if so.
    pub fn refused(&self) -> Option<&str> {
        self.running.as_ref().and_then(|running| running.refused.as_deref())
    }

    /// Whether there are vnodes that it should have and couldn't open.
    pub fn lacks_vnodes(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.missing.is_empty())
    }

    /// The state that it acts under.
    pub fn view(&self) -> Option<&Arc<View>> {
        self.running.as_ref().and_then(|running| running.view.as_ref())
    }

    /// Whether it believes that all members can be reached.
    pub fn reaches_all(&self) -> bool {
        let Some(running) = &self.running else { return false };
        let Some(view) = &running.view else { return false };
        running.unreachable.is_empty() && running.reached.len() + 1 == view.cluster().members.len()
    }

    /// The nodes that it believes can't be reached.
    pub fn unreachable(&self) -> BTreeSet<NodeId> {
        self.running.as_ref().map(|running| running.unreachable.clone()).unwrap_or_default()
    }

    /// The calls that it waits for the answer of, to a node.
    pub fn calls_to(&self, to: &NodeId) -> Vec<WireCall> {
        let Some(running) = &self.running else { return Vec::new() };
        let calls = running.calls.iter().filter(|(_, (_, callee))| callee == to);
        calls.map(|(call, _)| *call).collect()
    }

    /// What of clients' requests is still open at a time when nothing should be.
    pub fn leftovers(&self) -> Option<String> {
        let running = self.running.as_ref()?;
        let in_flight = running.coordinator.in_flight();
        let open = |asker: &&Asker| match asker {
            Asker::Client(_) | Asker::Own(Caller::Coordinator(_)) => true,
            // Repair and purging never end; the caller's own deadline is the bound.
            Asker::Node(..) | Asker::Own(_) => false,
        };
        let asked = running.asked.values().filter(open).count();
        (in_flight + asked > 0).then(|| {
            format!(
                "{}: {in_flight} requests in flight, {asked} questions have no answer",
                self.id()
            )
        })
    }

    /// Kills it.
    pub fn crash(&mut self, out: &mut Vec<Out>) {
        self.running = None;
        let fresh = self.disk.crash(&mut self.rng);
        out.extend(fresh.into_iter().map(Out::Durable));
    }

    /// Gives it an input; what is to be done about it is pushed, in order.
    pub fn take(&mut self, now: Now, input: NodeInput, out: &mut Vec<Out>) {
        let Some(running) = &mut self.running else { return };
        let inner = match input {
            NodeInput::Packet(from, frame) => self.packet(from, frame, out),
            NodeInput::Get(client, get) => {
                let token = CoordinatorToken(self.note_asker(Asker::Client(client)));
                Some(Inner::Coordinator(CoordinatorInput::Get { token, get }))
            }
            NodeInput::Write(client, write) => {
                let token = CoordinatorToken(self.note_asker(Asker::Client(client)));
                Some(Inner::Coordinator(CoordinatorInput::Write { token, write }))
            }
            NodeInput::Alter(token, request) => {
                Some(Inner::Gossip(GossipInput::Alter { token, request }))
            }
            NodeInput::Alarm(machine) => {
                running.alarms.remove(&machine);
                Some(match machine {
                    Machine::Gossip => Inner::Gossip(GossipInput::TimeUp),
                    Machine::Coordinator => Inner::Coordinator(CoordinatorInput::TimeUp),
                    Machine::Hints => Inner::Hints(HintInput::TimeUp),
                    Machine::Trees => Inner::Trees(TreeInput::TimeUp),
                    Machine::Purger => Inner::Purger(purge::Input::TimeUp),
                    Machine::Quarantine => Inner::Quarantine(quarantine::Input::TimeUp),
                })
            }
            NodeInput::Loaded(partition, key) => {
                let found = Ok(self.disk.read(&key));
                Some(Inner::Replica(partition, ReplicaInput::Loaded(key, found)))
            }
            NodeInput::HintLoaded(owner, key) => {
                let found = Ok(self.disk.hint(&owner, &key));
                Some(Inner::Hints(HintInput::Loaded { owner, key, found }))
            }
            NodeInput::HintsPaged { page, owner, from, count, bytes } => {
                let found = Ok(self.disk.hint_page(&owner, from, count, bytes));
                Some(Inner::Hints(HintInput::Paged(page, found)))
            }
            NodeInput::Looked(ticket, look) => {
                let looked = anello_antientropy::look(&self.disk, look);
                Some(Inner::Trees(TreeInput::Looked(ticket, looked)))
            }
            NodeInput::Listed(list) => Some(self.list_tombstones(list)),
            NodeInput::CallFailed(call, failure) => self.call_ended(call, Err(failure)),
            NodeInput::Inspected(ticket) => {
                let keyspaces = self.disk.keyspaces();
                Some(Inner::Gossip(GossipInput::Holding { ticket, keyspaces }))
            }
            NodeInput::Synced(outcome) => return self.synced(now, outcome, out),
        };
        if let Some(inner) = inner {
            self.turn(now, inner, out);
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn synced(&mut self, now: Now, outcome: SyncOutcome, out: &mut Vec<Out>) {
        let (batch, fresh) = match outcome {
            SyncOutcome::Durable => self.disk.end_sync(),
            SyncOutcome::FailedKept => self.disk.fail_sync(true),
            SyncOutcome::FailedLost => self.disk.fail_sync(false),
        };
        out.extend(fresh.into_iter().map(Out::Durable));
        let ended = match outcome {
            SyncOutcome::Durable => CommitOutcome::Durable,
            _ => CommitOutcome::Failed("the disk failed".into()),
        };
        for write in batch {
            let inner = match write {
                DiskWrite::Commit(number, commit) => {
                    Inner::Replica(commit.partition, ReplicaInput::Committed(number, ended.clone()))
                }
                DiskWrite::Hint(number, _) => {
                    Inner::Hints(HintInput::Committed(number, ended.clone()))
                }
                DiskWrite::Record(ticket, _) => Inner::Gossip(GossipInput::Saved(ticket)),
                DiskWrite::Alive(_) | DiskWrite::Lost | DiskWrite::Release(_) => continue,
            };
            self.turn(now, inner, out);
        }
        self.sync(out);
    }

    fn sync(&mut self, out: &mut Vec<Out>) {
        if self.disk.begin_sync() {
            out.push(Out::Sync);
        }
    }

    /// One input, and all that follows from it within the node.
    fn turn(&mut self, now: Now, first: Inner, out: &mut Vec<Out>) {
        let mut queue = VecDeque::from([first]);
        let mut budget = 100_000_u32;
        while let Some(inner) = queue.pop_front() {
            budget -= 1;
            if budget == 0 {
                out.push(Out::Broke("D: the run ends", format!("{} goes round", self.id())));
                return;
            }
            match inner {
                Inner::Gossip(input) => self.gossip(now, input, &mut queue, out),
                Inner::Coordinator(input) => self.coordinate(now, input, &mut queue, out),
                Inner::Replica(partition, input) => {
                    self.replicate(now, partition, input, &mut queue, out);
                }
                Inner::Hints(input) => self.keep_hints(now, input, &mut queue, out),
                Inner::Trees(input) => self.compare(now, input, &mut queue, out),
                Inner::Purger(input) => self.purge(now, input, &mut queue, out),
                Inner::Quarantine(input) => self.watch(now, input, &mut queue, out),
            }
        }
        self.set_alarms(now, out);
        self.sync(out);
        self.count_hints(now, out);
    }

    /// A node that leaves does so once it keeps nothing for others.
    fn count_hints(&mut self, now: Now, out: &mut Vec<Out>) {
        let count = self.disk.hints_left();
        let Some(running) = &mut self.running else { return };
        if std::mem::replace(&mut running.hints_left, count) != count {
            self.turn(now, Inner::Gossip(GossipInput::HintsLeft(count)), out);
        }
    }

    fn set_alarms(&mut self, now: Now, out: &mut Vec<Out>) {
        let Some(running) = &mut self.running else { return };
        let wakes = [
            (Machine::Coordinator, running.coordinator.next_wake()),
            (Machine::Hints, running.hints.next_wake()),
            (Machine::Trees, running.trees.next_wake()),
            (Machine::Purger, running.purger.next_wake()),
            (Machine::Quarantine, Some(running.quarantine.next_wake())),
        ];
        for (machine, wake) in wakes {
            let Some(wake) = wake.map(|wake| not_before(now, wake)) else { continue };
            if running.alarms.get(&machine).is_none_or(|alarm| wake < *alarm) {
                running.alarms.insert(machine, wake);
                out.push(Out::At(wake, NodeInput::Alarm(machine)));
            }
        }
    }
}
