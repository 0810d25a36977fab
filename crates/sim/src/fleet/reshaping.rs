//! Operators at work while all else goes on: nodes join, leave, are taken out after they have died for good, and
//! get other weights. In the end every change has to be through.

use std::time::Duration;

use anello_gossip::Alteration;
use anello_protocol::{
    cluster::{ClusterState, MemberState},
    id::{Datacenter, NodeId},
    message::admin::RingRequest,
};

use super::{Event, Fleet, NodeInput, Phase};

/// How often an operator insists that a dead node be taken out.
const INSIST: Duration = Duration::from_secs(3);

impl Fleet {
    /// The newest state that anybody has acted under.
    pub(super) fn newest(&self) -> Option<&ClusterState> {
        self.states.last_key_value().map(|(_, state)| &**state)
    }

    /// Whether a node is out of the cluster, or will be, and is never to come back.
    pub(super) fn is_gone(&self, node: usize) -> bool {
        let slot = &self.slots[node];
        let removed = |state: &ClusterState| state.removed.contains(slot.node.id());
        slot.is_dead || self.newest().is_some_and(removed)
    }

    /// The nodes that are to be members in the end.
    pub(super) fn stays(&self) -> impl Iterator<Item = usize> {
        (0..self.slots.len()).filter(|node| !self.slots[*node].is_spare && !self.is_gone(*node))
    }

    /// Whether no change of the ring is under way, as far as is known to all.
    pub(super) fn is_settled(&self) -> bool {
        let is_whole = |state: &ClusterState| {
            let mut dead = self.slots.iter().filter(|slot| slot.is_dead);
            state.change.is_none()
                && state.expected.is_empty()
                && state.members.len() == self.stays().count()
                && dead.all(|slot| state.removed.contains(slot.node.id()))
        };
        self.newest().is_some_and(is_whole)
    }

    /// Whether a state is the first that is known after a change of the ring.
    pub(super) fn is_end_of_change(&self, state: &ClusterState) -> bool {
        let before = self.newest().and_then(|before| before.change.as_ref());
        let now = state.change.as_ref().map(|change| change.began);
        before.is_some_and(|before| now != Some(before.began))
    }

    /// Somebody does something about the ring.
    pub(super) fn reshape(&mut self) {
        let pause = Duration::from_millis(self.rng.within(500..4_000));
        self.schedule.after(pause, Event::Reshape);
        if self.phase != Phase::Working {
            return;
        }
        match self.rng.within(0..10) {
            0..3 => self.switch_a_spare_on(),
            3..6 => self.have_one_leave(),
            6..8 => self.weigh_one(),
            _ => self.lose_one_for_good(),
        }
    }

    fn switch_a_spare_on(&mut self) {
        if let Some(spare) = self.slots.iter().position(|slot| slot.is_spare) {
            self.slots[spare].is_spare = false;
            self.history.note(self.schedule.now(), format_args!("n{spare} is new"));
            self.start_after(spare, Duration::ZERO);
        }
    }

    /// A member that its datacenter can do without, if the draw meets one.
    fn dispensable(&mut self) -> Option<usize> {
        let node = self.rng.within(0..self.slots.len() as u64) as usize;
        let state = self.newest()?;
        let stays = |id: &NodeId| {
            let member = state.members.get(id)?;
            let at = self.slots.iter().position(|slot| slot.node.id() == id)?;
            let is_up = member.state == MemberState::Up && !self.slots[at].is_dead;
            (is_up && !self.slots[at].is_leaving).then(|| member.datacenter.clone())
        };
        let home = stays(self.slots[node].node.id())?;
        let in_home = |datacenter: &Datacenter| *datacenter == home;
        let others = state.members.keys().filter_map(stays).filter(in_home).count();
        (others > self.replicas_max && !self.slots[node].is_leaving).then_some(node)
    }

    fn have_one_leave(&mut self) {
        let Some(node) = self.dispensable() else { return };
        // Not heard of by everybody, maybe: then it is asked for once more by who draws it again.
        self.slots[node].is_leaving = true;
        self.ask_for(RingRequest::Leave(self.slots[node].node.id().clone()));
    }

    fn weigh_one(&mut self) {
        let node = self.rng.within(0..self.slots.len() as u64) as usize;
        let weight = *self.rng.pick(&[0.5, 1.0, 2.0]);
        self.ask_for(RingRequest::Weigh { node: self.slots[node].node.id().clone(), weight });
    }

    /// A node dies with its disk, and is taken out by and by, or replaced.
    fn lose_one_for_good(&mut self) {
        if !self.bounds.loses || self.plan.has_lost() {
            return;
        }
        let Some(node) = self.dispensable() else { return };
        self.plan.has_restored();
        self.crash(node);
        self.wipe(node);
        self.slots[node].is_dead = true;
        self.history.note(self.schedule.now(), format_args!("n{node} is dead for good"));
        let after = Duration::from_millis(self.rng.within(100..6_000));
        self.schedule.after(after, Event::Insist);
    }

    /// An operator has dead nodes taken out, until they are.
    pub(super) fn insist(&mut self) {
        let known = |id: &NodeId| {
            self.newest().is_some_and(|it| it.written_off.contains(id) || it.removed.contains(id))
        };
        let dead = self.slots.iter().filter(|slot| slot.is_dead).map(|slot| slot.node.id());
        let Some(dead) = dead.into_iter().find(|id| !known(id)).cloned() else { return };
        self.ask_for(RingRequest::Remove(dead));
        self.schedule.after(INSIST, Event::Insist);
    }

    pub(super) fn ask_for(&mut self, request: RingRequest) {
        let node = self.rng.within(0..self.slots.len() as u64) as usize;
        self.alters += 1;
        let now = self.schedule.now();
        self.history.note(now, format_args!("n{node} is asked for {request:?}"));
        self.give(node, NodeInput::Alter(self.alters, Alteration::Ring(request)));
    }

    /// Who has learned that it is out of the cluster stops.
    pub(super) fn stop_the_gone(&mut self, node: usize) {
        let is_out = self.slots[node].is_leaving || self.is_gone(node);
        if self.slots[node].node.refused().is_some() && is_out {
            self.crash(node);
        }
    }

    /// What nodes hold that isn't theirs.
    pub(super) fn check_strays(&mut self) {
        for node in self.stays().collect::<Vec<_>>() {
            let slot = &self.slots[node];
            let Some(view) = slot.node.view() else { continue };
            let id = slot.node.id();
            let strays = slot.node.disk.strays(|(keyspace, partition)| {
                view.holds(id, keyspace, partition) || view.keyspace_of(keyspace).is_none()
            });
            if let Some(stray) = strays.first() {
                let what = format!("{id} holds {} keys such as {:?}", strays.len(), stray.key);
                self.broke("nothing is left where it doesn't belong", what);
            }
        }
    }
}
