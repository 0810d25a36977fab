//! The fleet's ring changes: who is told of it when, and what the new owners are given.

use super::{promises::lived, *};

impl Fleet {
    /// Everybody is told of a newer state, sooner or later.
    pub(super) fn tell(&mut self, view: Arc<View>) {
        self.view = view.clone();
        for at in 0..NODES.len() {
            let in_us = 1_000 + self.draw(300_000);
            self.at(in_us, Event::Told { at, view: view.clone() });
        }
        let in_us = 200_000 + self.draw(500_000);
        self.at(in_us, Event::Handover);
    }

    /// Once everybody acts under a phase, the new owners are given what the old ones hold by then.
    pub(super) fn hand_over(&mut self) {
        let epoch = self.view.epoch();
        self.handovers = (self.handovers.0 + 1, 0);
        if !self.nodes.iter().all(|node| node.replica.epoch() == epoch) {
            return self.at(50_000, Event::Handover);
        }
        let pairs = OLD.iter().flat_map(|from| NEW.iter().map(move |to| (*from, *to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            let (from, to) = (self.place(&node(from)), self.place(&node(to)));
            let versions = self.nodes[from].disk.clone();
            let store = StoreVersions { epoch, key: data_key(), rule: self.rule, versions };
            let asker = Asker::Handover(self.handovers.0);
            self.handovers.1 += 1;
            let (in_us, message) = (self.delay(), Outgoing::Store(store));
            self.at(in_us, Event::Call { to, asker, message });
        }
    }

    pub(super) fn handed_over(&mut self, number: u64, outcome: &Result<Incoming, CallFailure>) {
        if number != self.handovers.0 {
            return;
        }
        if !matches!(outcome, Ok(Incoming::Stored(Ok(_)))) {
            self.handovers.0 += 1;
            return self.at(50_000, Event::Handover);
        }
        self.handovers.1 -= 1;
        if self.handovers.1 > 0 {
            return;
        }
        let epoch = self.view.epoch().0;
        let moving = |phase| moving(epoch + 1, &OLD, &NEW, phase, config(self.rule));
        match epoch {
            2 => self.tell(single(moving(Phase::Serving))),
            3 => {
                self.view = single(moving(Phase::Done));
                for at in 0..NODES.len() {
                    let (in_us, view) = (1_000 + self.draw(300_000), self.view.clone());
                    self.at(in_us, Event::Told { at, view });
                }
            }
            _ => {}
        }
    }
}

/// One whose ring changes meanwhile: a node leaves and another one joins.
pub(super) fn moved_fleet_after(seed: u64, rule: ConflictRule) -> Fleet {
    let mut fleet = Fleet::new(seed, rule, &OLD);
    fleet.run(100_000);
    fleet.tell(single(moving(2, &OLD, &NEW, Phase::Filling, config(rule))));
    let fleet = lived(fleet);
    let has_moved = |node: &Node| node.view.epoch().0 == 4;
    assert!(fleet.nodes.iter().all(has_moved), "the change is through");
    fleet
}
