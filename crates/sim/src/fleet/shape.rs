//! What a run is like, drawn from its seed: how many nodes, where, how they are set, what clients do, how the
//! weather is.

use std::{collections::BTreeMap, time::Duration};

use anello_antientropy::{AntiEntropyConfig, purge::PurgeConfig, quarantine::QuarantineConfig};
use anello_gossip::{MembershipConfig, Timing};
use anello_protocol::{
    cluster::{Member, MemberState},
    id::Datacenter,
};
use anello_replica::{
    coordinator::CoordinatorConfig, hints::HintStoreConfig, replica::ReplicaConfig,
};

use crate::{
    client::{Habits, Mix},
    faults::Bounds,
    network::Weather,
    node::NodeSettings,
    rng::Rng,
    run::Settings,
};

/// The longest that a process stands still, in a run in which nothing is forgotten.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// The same where tombstones are forgotten, so that [`SETTLE`] need not be longer.
const SHORT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// More than the longest life of a message: a client's request ends after 2 s and lingers for 2 s, its
/// coordinator may stand still for 2 s in between, and so may a relay and the receiver behind it; each of them
/// may be starved for 0.8 s, a disk take 0.6 s, and a straggler 0.3 s.
const SETTLE: Duration = Duration::from_secs(15);
/// No more than the shortest grace, so that nodes are quarantined here as well.
const AWAY_MIN: Duration = Duration::from_secs(8);

/// See the head of this file.
pub struct Shape {
    /// Into how many partitions the hash space is cut.
    pub partitions: u32,
    /// The datacenter of each node.
    pub datacenters: Vec<&'static str>,
    /// The rack of each node.
    pub racks: Vec<&'static str>,
    /// How the nodes' machines are set.
    pub node: NodeSettings,
    /// How many of the nodes, the last ones, are no members at first.
    pub spares: usize,
    /// The most replicas in a datacenter.
    pub replicas_max: usize,
    /// What the faults keep to.
    pub bounds: Bounds,
    /// How wrong the clocks are at the beginning, in milliseconds, by a draw of the fault plan.
    pub skewed: Vec<bool>,
    /// Whether faults begin before the cluster is formed.
    pub is_faulty_from_start: bool,
    /// How many keys a keyspace has.
    pub keys: u64,
    /// How many clients there are.
    pub writers: u64,
    /// How many operations they do together.
    pub operations: u64,
    /// How they go about it.
    pub habits: Habits,
    /// How bad the links are.
    pub weather: Weather,
}

impl Shape {
    /// Draws it.
    pub fn draw(settings: Settings, shape: &mut Rng) -> Self {
        let datacenters = shape.within(1..3);
        // Where there are more nodes than replicas, there are stand-ins.
        let replicas_max = *shape.pick(&[3, 3, 3, 2]);
        let reshapes = settings.faults.reshapes().unwrap_or(shape.chance(250));
        let (nodes, spares) = match reshapes {
            false => (shape.within(3..7) as usize, 0),
            // A datacenter keeps as many nodes as a key has replicas there.
            true => {
                let each = replicas_max as u64 + shape.within(0..2);
                let spares = shape.within(1..4);
                ((each * datacenters + spares) as usize, spares as usize)
            }
        };
        let partitions = *shape.pick(&[8, 16]);
        let requests_max = *shape.pick(&[4096, 4096, 4096, 24, 12]);
        let (forgets, loses) = (shape.chance(350), shape.chance(200));
        let forgets = settings.faults.forgets().unwrap_or(forgets);
        let loses = settings.faults.loses().unwrap_or(loses);
        // Where a clock is wrong by days, the age of a tombstone says nothing.
        let skews = !forgets || shape.chance(300);
        let grace = forgets.then(|| Duration::from_secs(shape.within(8..20)));
        let skewed = (0..nodes).map(|_| skews && shape.chance(500)).collect();
        let place = |number: usize| {
            if (number as u64).is_multiple_of(datacenters) { "eu" } else { "us" }
        };
        // Clients that rest see what was forgotten meanwhile.
        let operations = if forgets { shape.within(100..250) } else { shape.within(150..400) };
        // A change of the ring takes its time.
        let operations = if reshapes { operations * 2 } else { operations };
        Self {
            partitions,
            datacenters: (0..nodes).map(place).collect(),
            racks: (0..nodes).map(|_| *shape.pick(&["a", "b", "c"])).collect(),
            node: NodeSettings {
                coordinator: CoordinatorConfig { requests_max, ..CoordinatorConfig::default() },
                replica: ReplicaConfig { requests_max, ..ReplicaConfig::default() },
                hints: HintStoreConfig {
                    bytes_max: *shape.pick(&[256 << 20, 256 << 20, 4 << 10]),
                    grant_bytes: *shape.pick(&[4 << 20, 16 << 10]),
                    // So short that hints expire in most runs: none may be one that a write was acknowledged with.
                    age_max: Duration::from_secs(10),
                    ..HintStoreConfig::default()
                },
                trees: AntiEntropyConfig {
                    round: Duration::from_secs(shape.within(4..10)),
                    scrub: Duration::from_secs(60),
                    ..AntiEntropyConfig::default()
                },
                purge: PurgeConfig { settle: SETTLE, ..PurgeConfig::default() },
                quarantine: QuarantineConfig { away_min: AWAY_MIN },
            },
            spares,
            replicas_max,
            bounds: Bounds {
                grace,
                loses,
                skews,
                pause_max: if forgets { SHORT_PAUSE_MAX } else { PAUSE_MAX },
            },
            skewed,
            is_faulty_from_start: shape.chance(250),
            keys: shape.within(3..7),
            writers: shape.within(3..7),
            operations,
            habits: Habits {
                strict_per_mille: *shape.pick(&[0, 500, 500, 500, 1000]),
                is_careful: loses,
                rests: forgets,
            },
            weather: Weather::draw(shape),
        }
    }

    /// A quiet place for a story: as many nodes in each datacenter as is said, right clocks, calm links.
    pub fn quiet(places: &[(&'static str, usize)]) -> Self {
        let datacenters: Vec<_> =
            places.iter().flat_map(|(name, count)| vec![*name; *count]).collect();
        let nodes = datacenters.len();
        Self {
            partitions: 8,
            racks: (0..nodes).map(|number| ["a", "b", "c"][number % 3]).collect(),
            datacenters,
            node: NodeSettings {
                trees: AntiEntropyConfig {
                    round: Duration::from_secs(8),
                    ..AntiEntropyConfig::default()
                },
                purge: PurgeConfig { settle: SETTLE, ..PurgeConfig::default() },
                quarantine: QuarantineConfig { away_min: AWAY_MIN },
                ..NodeSettings::default()
            },
            spares: 0,
            replicas_max: 3,
            bounds: Bounds { grace: None, loses: false, skews: false, pause_max: SHORT_PAUSE_MAX },
            skewed: vec![false; nodes],
            is_faulty_from_start: false,
            keys: 0,
            writers: 0,
            operations: 0,
            habits: Habits { strict_per_mille: 0, is_careful: false, rests: false },
            weather: Weather {
                near_us: 200,
                far_us: 20_000,
                jitter_us: 100,
                stragglers_per_mille: 0,
                loss_per_mille: 0,
                duplicates_per_mille: 0,
            },
        }
    }

    /// How many replicas a key has, by datacenter.
    pub fn replication(&self) -> BTreeMap<Datacenter, usize> {
        let mut replication = BTreeMap::new();
        for name in &self.datacenters {
            *replication.entry(name.parse().expect("a good name")).or_insert(0) += 1;
        }
        replication.values_mut().for_each(|nodes: &mut usize| {
            *nodes = (*nodes).min(self.replicas_max);
        });
        replication
    }

    /// What each node's membership is told.
    pub fn memberships(&self) -> impl Iterator<Item = MembershipConfig> + use<'_> {
        let seeds = (self.datacenters.len() - self.spares).min(3);
        (0..self.datacenters.len()).map(move |number| {
            let others = (0..seeds).filter(|seed| *seed != number).map(address);
            MembershipConfig {
                member: self.member(number),
                cluster: "sim".parse().expect("a good name"),
                partitions: self.partitions,
                other_seeds: others.collect(),
                first_seed: number == 0,
                program: "sim".into(),
                timing: Timing::lan(),
            }
        })
    }

    fn member(&self, number: usize) -> Member {
        Member {
            id: format!("n{number}").parse().expect("a good name"),
            datacenter: self.datacenters[number].parse().expect("a good name"),
            rack: self.racks[number].parse().expect("a good name"),
            weight: 1.0,
            quic: address(number),
            http: format!("n{number}:7480"),
            state: MemberState::Up,
        }
    }
}

/// The mixes for which the clients' keyspaces matter.
pub(super) fn uses_lww(mix: Mix) -> bool {
    matches!(mix, Mix::Any | Mix::Lww)
}

fn address(number: usize) -> String {
    format!("n{number}:7400")
}
