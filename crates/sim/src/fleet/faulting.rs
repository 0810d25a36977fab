//! What goes wrong, carried out, and how it is mended.

use std::time::Duration;

use super::{Event, Fault, Fleet, Moment, NodeInput, Phase};
use crate::node::Machine;

impl Fleet {
    pub(super) fn fault(&mut self) {
        let pause = self.plan.pause();
        self.schedule.after(pause, Event::Fault);
        let is_on = self.phase == Phase::Working
            || (self.phase == Phase::Forming && self.is_faulty_from_start);
        if !is_on {
            return;
        }
        let Some(fault) = self.plan.draw() else { return };
        self.counters.faults += 1;
        let now = self.schedule.now();
        self.history.note(now, format_args!("fault {fault:?}"));
        match fault {
            Fault::Cut { some, others, is_one_way } => {
                for one in &some {
                    for other in &others {
                        let one = self.slots[*one].node.id().clone();
                        let other = self.slots[*other].node.id().clone();
                        self.network.cut(&one, &other);
                        if !is_one_way {
                            self.network.cut(&other, &one);
                        }
                    }
                }
            }
            Fault::Heal => self.network.heal(),
            Fault::Crash(nodes) => {
                for (node, away) in nodes {
                    self.crash(node);
                    self.start_after(node, away);
                }
            }
            Fault::Clock(node, skew_ms) => self.slots[node].skew_ms = skew_ms,
            Fault::Pause(node, length) => self.slots[node].paused_until = now + length,
            Fault::Starve(node, length) => {
                self.slots[node].starved_until = now + length;
                if self.slots[node].core_at < now {
                    self.starve(node);
                }
            }
            Fault::LateGossip(node, length) => {
                self.slots[node].gossip_late_until = now + length;
            }
            Fault::SlowDisk(node, is_slow) => self.slots[node].is_disk_slow = is_slow,
            Fault::DiskFails(node, is_kept) => self.slots[node].disk_fails = Some(is_kept),
            Fault::FullStore(node, is_full) => self.slots[node].node.disk.is_full = is_full,
            Fault::UnreadableVnodes(node, is_unreadable) => {
                self.slots[node].node.disk.is_unreadable = is_unreadable;
            }
            Fault::Alarms(node) => {
                for machine in Machine::ALL {
                    self.local_after(node, Duration::ZERO, NodeInput::Alarm(machine));
                }
            }
            Fault::Absence(node, away) => {
                self.crash(node);
                self.start_after(node, away);
            }
            Fault::Wipe(node, away) => {
                self.crash(node);
                self.wipe(node);
                self.start_after(node, away);
            }
            Fault::Backup(node) => self.back_up(node),
            Fault::Restore(node, away) => {
                if self.slots[node].backup.is_some() {
                    self.plan.has_restored();
                    self.restore(node);
                    self.start_after(node, away);
                }
            }
        }
    }

    pub(super) fn back_up(&mut self, node: usize) {
        self.slots[node].backup = Some(self.slots[node].node.disk.backup());
    }

    /// Puts an empty disk into a node that is switched off.
    pub(super) fn wipe(&mut self, node: usize) {
        self.slots[node].lost_at = Some(self.schedule.now());
        self.slots[node].node.disk.wipe();
    }

    /// Puts the last copy of a node's data back; it is switched off.
    pub(super) fn restore(&mut self, node: usize) {
        if let Some(backup) = self.slots[node].backup.clone() {
            self.crash(node);
            self.slots[node].lost_at = Some(self.schedule.now());
            self.slots[node].node.disk.restore(backup);
        }
    }

    /// A starved node had a core for a moment, and waits for the next one.
    pub(super) fn starve(&mut self, node: usize) {
        let now = self.schedule.now();
        if self.slots[node].starved_until <= now {
            return;
        }
        let wait = Duration::from_millis(self.rng.within(50..800));
        let slot = &mut self.slots[node];
        slot.paused_until = slot.paused_until.max(now + wait);
        slot.core_at = now + wait + Duration::from_millis(1);
        self.schedule.at(slot.core_at, Event::Core(node));
    }

    /// Mends everything, and switches everybody on.
    pub(super) fn mend(&mut self) {
        self.network.heal();
        for node in 0..self.slots.len() {
            let slot = &mut self.slots[node];
            slot.is_disk_slow = false;
            slot.starved_until = Moment::default();
            slot.gossip_late_until = Moment::default();
            slot.disk_fails = None;
            slot.node.disk.is_full = false;
            slot.node.disk.is_unreadable = false;
            if slot.node.lacks_vnodes() {
                // Who reads the log restarts it.
                self.crash(node);
            }
            let slot = &self.slots[node];
            if self.is_gone(node) {
                self.crash(node);
            } else if !slot.node.is_running() && slot.is_unserviceable.is_none() {
                self.start_after(node, Duration::from_millis(10));
            }
        }
    }
}
