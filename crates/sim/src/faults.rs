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
    /// A node is killed and comes back with an empty disk.
    Wipe(usize, Duration),
    /// A copy is made of what a disk holds.
    Backup(usize),
    /// A node is killed and comes back with what the last copy of its disk holds, if there is one.
    Restore(usize, Duration),
    /// A node is killed and stays away for longer than the tombstone grace.
    Absence(usize, Duration),
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
    /// A node or two are away at nearly any time, so that much is kept as hints, which are delivered to slow
    /// disks.
    SlowReceivers,
    /// One disk is lost.
    Losses,
    /// One disk is put back from an old copy, and tombstones are forgotten soon.
    Restores,
    /// Nodes are away for longer than the grace, which is short.
    Absences,
    /// The weather, with a short grace.
    Forgetting,
    /// Nodes join, leave, get other weights, while others crash and links are cut.
    Reshaping,
    /// The same, and a node dies for good and is taken out.
    Removals,
}

impl FaultMix {
    /// Whether tombstones are to be forgotten within the run; nothing if that is left to the seed.
    pub fn forgets(self) -> Option<bool> {
        match self {
            FaultMix::Any => None,
            FaultMix::Restores | FaultMix::Absences | FaultMix::Forgetting => Some(true),
            _ => Some(false),
        }
    }

    /// Whether the ring changes; nothing if that is left to the seed.
    pub fn reshapes(self) -> Option<bool> {
        match self {
            FaultMix::Any => None,
            FaultMix::Reshaping | FaultMix::Removals => Some(true),
            _ => Some(false),
        }
    }

    /// Whether a disk may be lost; nothing if that is left to the seed.
    pub fn loses(self) -> Option<bool> {
        match self {
            FaultMix::Any => None,
            FaultMix::Losses | FaultMix::Restores | FaultMix::Removals => Some(true),
            _ => Some(false),
        }
    }
}

/// What a plan has to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The grace of tombstones, where they are forgotten within the run.
    pub grace: Option<Duration>,
    /// Whether a disk may be lost: one in the whole run.
    pub loses: bool,
    /// Whether clocks may be wrong.
    pub skews: bool,
    /// The longest that a process stands still.
    pub pause_max: Duration,
}

/// Draws faults.
#[derive(Debug)]
pub struct FaultPlan {
    rng: Rng,
    nodes: usize,
    bounds: Bounds,
    has_lost: bool,
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
    Wipe,
    Backup,
    Restore,
    Absence,
}

const DAY_MS: i64 = 86_400_000;

impl FaultPlan {
    /// A plan for so many nodes.
    pub fn new(mix: FaultMix, nodes: usize, bounds: Bounds, mut rng: Rng) -> Self {
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
        let mut kinds = match mix {
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
            FaultMix::SlowReceivers => {
                vec![CrashOne, CrashOne, CrashSome, SlowDisk, SlowDisk, Starve, Cut, Heal]
            }
            FaultMix::Losses => vec![Wipe, CrashOne, CrashOne, Cut, Heal, Heal],
            FaultMix::Restores => vec![Backup, Restore, CrashOne, Cut, Heal, Heal],
            FaultMix::Absences => vec![Absence, CrashOne, Cut, Heal, Heal, Pause, OneWay],
            FaultMix::Forgetting => vec![],
            FaultMix::Reshaping | FaultMix::Removals => {
                vec![CrashOne, CrashOne, CrashSome, Cut, Heal, Heal, Pause, SlowDisk]
            }
        };
        if mix == FaultMix::Any {
            if bounds.grace.is_some() {
                kinds.push(Absence);
            }
            if bounds.loses {
                kinds.extend(if rng.chance(500) { vec![Wipe] } else { vec![Backup, Restore] });
            }
        }
        kinds.retain(|kind| *kind != Clock || bounds.skews);
        Self { rng, nodes, bounds, has_lost: false, kinds }
    }

    /// How long until the next one.
    pub fn pause(&mut self) -> Duration {
        // What takes long to have an end is not to be hidden by what comes after.
        let most = if self.bounds.grace.is_some() { 6_000 } else { 2_500 };
        Duration::from_millis(self.rng.within(100..most))
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
            Kind::Pause => {
                let most = self.bounds.pause_max.as_millis() as u64;
                Fault::Pause(node, Duration::from_millis(self.rng.within(50..most)))
            }
            Kind::SlowDisk => Fault::SlowDisk(node, self.rng.chance(600)),
            Kind::DiskFails => Fault::DiskFails(node, self.rng.chance(500)),
            Kind::FullStore => Fault::FullStore(node, self.rng.chance(600)),
            Kind::UnreadableVnodes => Fault::UnreadableVnodes(node, self.rng.chance(600)),
            Kind::Alarms => Fault::Alarms(node),
            Kind::Starve => Fault::Starve(node, self.spell()),
            Kind::LateGossip => Fault::LateGossip(node, self.spell()),
            Kind::Backup => Fault::Backup(node),
            Kind::Absence => {
                let grace = self.bounds.grace.unwrap_or_default();
                Fault::Absence(node, grace + Duration::from_secs(self.rng.within(1..30)))
            }
            // One disk a run: whoever acknowledged a write on two nodes may lose one of them.
            Kind::Wipe | Kind::Restore if self.has_lost => Fault::Heal,
            Kind::Wipe => {
                self.has_lost = true;
                Fault::Wipe(node, self.away())
            }
            Kind::Restore => Fault::Restore(node, self.away()),
        })
    }

    /// Whether a disk was lost already.
    pub fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// A disk was put back from a copy, or a node is lost for good.
    pub fn has_restored(&mut self) {
        self.has_lost = true;
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
