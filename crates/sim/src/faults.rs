//! What goes wrong, drawn from the seed: links, machines, disks, clocks.

use std::time::Duration;

use crate::rng::Rng;

/// One thing that goes wrong, or is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing gets from the first to the second, nor back unless `is_one_way`.
    Cut {
        /// On one side.
        some: Vec<usize>,
        /// On the other.
        others: Vec<usize>,
        /// Whether the way back stays open.
        is_one_way: bool,
    },
    /// All links are mended.
    Heal,
    /// Nodes are killed, and come back after a while each.
    Crash(Vec<(usize, Duration)>),
    /// A wall clock is set to something else, in milliseconds off the true time.
    Clock(usize, i64),
    /// A process stands still.
    Pause(usize, Duration),
    /// A process gets a core only now and then: whatever it is told waits for up to 0.8 s.
    Starve(usize, Duration),
    /// Gossip from and to a node is late by up to 15 s; the rest of its packets isn't.
    LateGossip(usize, Duration),
    /// A disk is slow, or as fast as before.
    SlowDisk(usize, bool),
    /// The next sync of a disk fails; whether it kept the data all the same.
    DiskFails(usize, bool),
    /// A store takes only some of the commits that it is given, or all again.
    FullStore(usize, bool),
    /// Some of the vnodes that a node makes can't be opened, or all can again.
    UnreadableVnodes(usize, bool),
    /// Alarms go off that nobody set.
    Alarms(usize),
}

/// Which faults a run draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultMix {
    /// A different selection every seed.
    Any,
    /// None but the weather.
    Calm,
    /// Partitions that come and go.
    Partitions,
    /// Crashes of one, several or all.
    Crashes,
    /// All nodes are killed within a second, again and again.
    CrashAll,
    /// Clocks that disagree by days and jump.
    Clocks,
    /// Processes that stand still.
    Pauses,
    /// What looks like death and isn't: links that work one way, starved processes, late gossip.
    Undead,
    /// Processes that wait for a core, and nothing else.
    Starved,
}

/// Draws faults.
#[derive(Debug)]
pub struct FaultPlan {
    rng: Rng,
    nodes: usize,
    /// The kinds that this run has, each as often as it is listed.
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cut,
    OneWay,
    Heal,
    CrashOne,
    CrashSome,
    CrashAll,
    Clock,
    Pause,
    SlowDisk,
    DiskFails,
    FullStore,
    UnreadableVnodes,
    Alarms,
    Starve,
    LateGossip,
}

const DAY_MS: i64 = 86_400_000;

impl FaultPlan {
    /// A plan for so many nodes.
    pub fn new(mix: FaultMix, nodes: usize, mut rng: Rng) -> Self {
        use Kind::*;
        let all = [
            Cut,
            OneWay,
            Heal,
            Heal,
            CrashOne,
            CrashOne,
            CrashSome,
            CrashAll,
            Clock,
            Pause,
            SlowDisk,
            DiskFails,
            FullStore,
            UnreadableVnodes,
            Alarms,
        ];
        let kinds = match mix {
            FaultMix::Any => {
                let mut some: Vec<Kind> = all.iter().copied().filter(|_| rng.chance(600)).collect();
                // Links that are never mended would leave most of the run without an answer.
                if some.contains(&Cut) || some.contains(&OneWay) {
                    some.push(Heal);
                }
                some
            }
            FaultMix::Calm => vec![],
            FaultMix::Partitions => vec![Cut, Heal, OneWay, Heal],
            FaultMix::Crashes => vec![
                CrashOne,
                CrashSome,
                CrashAll,
                SlowDisk,
                DiskFails,
                FullStore,
                UnreadableVnodes,
            ],
            FaultMix::CrashAll => vec![CrashAll],
            FaultMix::Clocks => vec![Clock, Clock, CrashOne, Cut, Heal],
            FaultMix::Pauses => vec![Pause, Pause, CrashSome, Alarms],
            FaultMix::Undead => vec![OneWay, Heal, Heal, Starve, LateGossip],
            FaultMix::Starved => vec![Starve],
        };
        Self { rng, nodes, kinds }
    }

    /// How long until the next one.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.within(100..2_500))
    }

    /// The next thing that goes wrong.
    pub fn draw(&mut self) -> Option<Fault> {
        if self.kinds.is_empty() {
            return None;
        }
        let kind = *self.rng.pick(&self.kinds);
        let node = self.rng.within(0..self.nodes as u64) as usize;
        Some(match kind {
            Kind::Cut | Kind::OneWay => {
                let (mut some, mut others) = (Vec::new(), Vec::new());
                for node in 0..self.nodes {
                    if self.rng.chance(500) { &mut some } else { &mut others }.push(node);
                }
                Fault::Cut { some, others, is_one_way: kind == Kind::OneWay }
            }
            Kind::Heal => Fault::Heal,
            Kind::CrashOne => Fault::Crash(vec![(node, self.away())]),
            Kind::CrashSome => {
                let nodes: Vec<_> = (0..self.nodes).filter(|_| self.rng.chance(500)).collect();
                Fault::Crash(nodes.into_iter().map(|node| (node, self.away())).collect())
            }
            Kind::CrashAll => {
                Fault::Crash((0..self.nodes).map(|node| (node, self.away())).collect())
            }
            Kind::Clock => Fault::Clock(node, self.skew()),
            Kind::Pause => Fault::Pause(node, Duration::from_millis(self.rng.within(50..8_000))),
            Kind::SlowDisk => Fault::SlowDisk(node, self.rng.chance(600)),
            Kind::DiskFails => Fault::DiskFails(node, self.rng.chance(500)),
            Kind::FullStore => Fault::FullStore(node, self.rng.chance(600)),
            Kind::UnreadableVnodes => Fault::UnreadableVnodes(node, self.rng.chance(600)),
            Kind::Alarms => Fault::Alarms(node),
            Kind::Starve => Fault::Starve(node, self.spell()),
            Kind::LateGossip => Fault::LateGossip(node, self.spell()),
        })
    }

    /// How wrong a clock is.
    pub fn skew(&mut self) -> i64 {
        let most = *self.rng.pick(&[10, 1_000, 60_000, DAY_MS, 10 * DAY_MS]);
        self.rng.within(0..2 * most as u64) as i64 - most
    }

    fn spell(&mut self) -> Duration {
        Duration::from_millis(self.rng.within(2_000..20_000))
    }

    fn away(&mut self) -> Duration {
        Duration::from_millis(self.rng.within(10..4_000))
    }
}
