//! What membership says: packets, records and freezes, and acting under what the members have agreed on.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use anello_antientropy::{Input as TreeInput, purge, quarantine};
use anello_gossip::{Effect as GossipEffect, Input as GossipInput, MembershipEvent};
use anello_protocol::{
    cluster::Phase,
    id::{NodeId, PartitionId},
    time::Now,
};
use anello_replica::{
    coordinator::Input as CoordinatorInput,
    hints::Input as HintInput,
    replica::{Input as ReplicaInput, Replica},
};
use anello_ring::view::{KeyspaceView, View};

use super::{Freezer, Inner, Machine, Node, NodeInput, Out};
use crate::{disk::DiskWrite, wire::Frame};

impl Node {
    pub(super) fn gossip(
        &mut self,
        now: Now,
        input: GossipInput,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let Some(running) = &mut self.running else { return };
        let mut effects = Vec::new();
        running.membership.handle(now, input, &mut effects);
        for effect in effects {
            let Some(running) = &mut self.running else { return };
            match effect {
                GossipEffect::Send { to, packet } => out.push(Out::Send(to, Frame::Gossip(packet))),
                GossipEffect::Save { ticket, record } => {
                    self.disk.push(DiskWrite::Record(ticket, record));
                }
                GossipEffect::Inspect { ticket } => {
                    out.push(Out::At(now.moment, NodeInput::Inspected(ticket)));
                }
                GossipEffect::Freeze { ticket } => {
                    running.is_frozen = true;
                    let mut waits_for = BTreeSet::from([Freezer::Hints]);
                    queue.push_back(Inner::Hints(HintInput::Freeze));
                    for partition in running.replicas.keys() {
                        waits_for.insert(Freezer::Vnode(*partition));
                        queue.push_back(Inner::Replica(*partition, ReplicaInput::Freeze));
                    }
                    running.freezing.push((ticket, waits_for));
                }
                GossipEffect::Thaw => {
                    running.is_frozen = false;
                    running.freezing.clear();
                    for partition in running.replicas.keys() {
                        queue.push_back(Inner::Replica(*partition, ReplicaInput::Thaw));
                    }
                    queue.push_back(Inner::Hints(HintInput::Thaw));
                }
                GossipEffect::Answer { token, result } => out.push(Out::Altered(token, result)),
                GossipEffect::WakeAt(at) => {
                    out.push(Out::At(at, NodeInput::Alarm(Machine::Gossip)))
                }
                GossipEffect::Event(event) => self.event(event, queue, out),
                GossipEffect::Note(line) => out.push(Out::Note(format!("{}: {line}", self.id()))),
            }
        }
    }

    fn event(&mut self, event: MembershipEvent, queue: &mut VecDeque<Inner>, out: &mut Vec<Out>) {
        let me = self.id().clone();
        let Some(running) = &mut self.running else { return };
        match event {
            MembershipEvent::ClusterChanged(state) => {
                out.push(Out::Agreed(Arc::clone(&state)));
                running.reached.retain(|node| state.members.contains_key(node));
                running.unreachable.retain(|node| state.members.contains_key(node));
                match View::of(Arc::clone(&state)) {
                    Ok(view) => self.act_under(Arc::new(view), queue),
                    Err(error) => {
                        let what = format!("{me}: no ring under {}: {error}", state.epoch);
                        out.push(Out::Broke("an agreed state has a ring", what));
                    }
                }
            }
            MembershipEvent::Reachability { node, reachable, reason } => {
                let verdict = if reachable { "reachable" } else { "unreachable" };
                out.push(Out::Note(format!("{me}: {node} is {verdict}: {reason}")));
                out.push(Out::Judged(reachable));
                if reachable {
                    running.unreachable.remove(&node);
                    running.reached.insert(node.clone());
                } else {
                    running.reached.remove(&node);
                    running.unreachable.insert(node.clone());
                }
                let to = || (node.clone(), reachable);
                queue.extend([
                    {
                        let (node, reachable) = to();
                        let input = CoordinatorInput::ReachabilityChanged { node, reachable };
                        Inner::Coordinator(input)
                    },
                    {
                        let (node, reachable) = to();
                        Inner::Hints(HintInput::ReachabilityChanged { node, reachable })
                    },
                    {
                        let (node, reachable) = to();
                        Inner::Trees(TreeInput::ReachabilityChanged { node, reachable })
                    },
                    {
                        let (node, reachable) = to();
                        Inner::Purger(purge::Input::ReachabilityChanged { node, reachable })
                    },
                    {
                        let (node, reachable) = to();
                        Inner::Quarantine(quarantine::Input::ReachabilityChanged {
                            node,
                            reachable,
                        })
                    },
                ]);
            }
            MembershipEvent::LostDisk => {
                self.disk.push(DiskWrite::Lost);
                queue.push_back(Inner::Quarantine(quarantine::Input::Lost));
            }
            MembershipEvent::Ready => running.is_ready = true,
            MembershipEvent::NotReady(_) => running.is_ready = false,
            MembershipEvent::Left => {
                out.push(Out::Note(format!("{me}: has left")));
                running.is_ready = false;
                running.refused = Some("left the cluster".into());
            }
            MembershipEvent::Refused(reason) => {
                out.push(Out::Note(format!("{me}: refused: {reason}")));
                running.is_ready = false;
                running.refused = Some(reason);
            }
        }
    }

    /// First the vnodes are made that the node holds, then all act under the new state.
    fn act_under(&mut self, view: Arc<View>, queue: &mut VecDeque<Inner>) {
        let me = self.id().clone();
        let Some(running) = &mut self.running else { return };
        let names = view.cluster().keyspaces.keys();
        let keyspaces = names.filter_map(|name| view.keyspace(name));
        let held: BTreeSet<PartitionId> =
            keyspaces.flat_map(|keyspace| view.held_in(keyspace, &me)).collect();
        let (mut trees, mut filled) = (BTreeSet::new(), Vec::new());
        for (_, keyspace) in view.keyspaces() {
            for partition in view.held_in(keyspace, &me) {
                trees.insert((keyspace.id, partition));
                if is_filled(&view, keyspace, partition, &me) {
                    filled.push((keyspace.id, partition));
                }
            }
        }
        if let Some(change) = &view.cluster().change {
            filled.into_iter().for_each(|tree| self.disk.empty(tree, change.began));
        }
        for partition in held {
            let (disk, rng) = (&self.disk, &mut self.rng);
            let config = &self.settings.replica;
            if running.replicas.contains_key(&partition) {
                continue;
            }
            if disk.is_unreadable && rng.chance(300) {
                running.missing.insert(partition);
                continue;
            }
            running.missing.remove(&partition);
            if running.is_frozen {
                queue.push_back(Inner::Replica(partition, ReplicaInput::Freeze));
            }
            let remembered = disk.vnode(partition);
            let replica =
                Replica::new(me.clone(), partition, config.clone(), rng.draw(), remembered);
            running.replicas.insert(partition, replica);
            if running.quarantine.is_on() {
                let input = ReplicaInput::Quarantined(true);
                queue.push_back(Inner::Replica(partition, input));
            }
        }
        for partition in running.replicas.keys() {
            let input = ReplicaInput::ClusterChanged(Arc::clone(&view));
            queue.push_back(Inner::Replica(*partition, input));
        }
        let quarantined = match running.quarantine.is_on() {
            true => running.replicas.keys().copied().collect(),
            false => BTreeSet::new(),
        };
        queue.extend([
            Inner::Trees(TreeInput::ClusterChanged(Arc::clone(&view))),
            Inner::Trees(TreeInput::Quarantined {
                partitions: quarantined,
                was_restored: self.disk.was_restored,
            }),
            Inner::Quarantine(quarantine::Input::ClusterChanged(Arc::clone(&view))),
            Inner::Hints(HintInput::ClusterChanged(Arc::clone(&view))),
            Inner::Purger(purge::Input::ClusterChanged(Arc::clone(&view))),
            Inner::Coordinator(CoordinatorInput::ClusterChanged(Arc::clone(&view))),
            Inner::Gossip(GossipInput::Acting),
        ]);
        running.view = Some(view);
        // Behind what was written while they were still held.
        self.disk.push(DiskWrite::Release(trees));
    }

    /// A machine's writes have ended since the freeze.
    pub(super) fn quiet(&mut self, now: Now, freezer: Freezer, out: &mut Vec<Out>) {
        let Some(running) = &mut self.running else { return };
        for (ticket, waits_for) in &mut running.freezing {
            if waits_for.remove(&freezer) && waits_for.is_empty() {
                out.push(Out::At(now.moment, NodeInput::Inspected(*ticket)));
            }
        }
    }
}

/// Whether a node is a new owner of a partition, to be filled in the change that is under way.
fn is_filled(view: &View, keyspace: &KeyspaceView, partition: PartitionId, node: &NodeId) -> bool {
    let placement = view.placement_of(keyspace, partition);
    let (Some(others), Some(at)) = (&placement.others, placement.index_of(node)) else {
        return false;
    };
    let phase = view.cluster().change.as_ref().map(|change| change.phase(partition));
    match phase {
        Some(Phase::Filling) => !placement.readers.contains(at),
        Some(Phase::Serving) => !others.contains(at),
        _ => false,
    }
}
