//! What the ring costs and how well it claims: lookup and build times, and for each topology the
//! balance and what a join and a leave move, as a table. Run with `cargo bench -p anello-ring`;
//! `-- quick` leaves out the fleets of 1,000 nodes.

use std::{collections::BTreeMap, hint::black_box, time::Instant};

use anello_protocol::{
    id::{Datacenter, Epoch, NodeId, Rack},
    key::KeyHash,
};
use anello_ring::{ReplicaCounts, Ring, RingMember, TransferPlan};

const EQUAL: &[f64] = &[1.0];
const UNEQUAL: &[f64] = &[1.0, 0.5, 2.0, 4.0, 1.5];

/// Nodes per rack of one datacenter, and the weights that they take in turn.
struct Topology {
    racks: Vec<usize>,
    weights: &'static [f64],
}

fn topologies(quick: bool) -> Vec<Topology> {
    let mut list: Vec<(Vec<usize>, &'static [f64])> = vec![
        (vec![3], EQUAL),
        (vec![6], EQUAL),
        (vec![10], EQUAL),
        (vec![50], EQUAL),
        (vec![2, 2], EQUAL),
        (vec![5, 5], EQUAL),
        (vec![20, 20], EQUAL),
        (vec![10, 2], EQUAL),
        (vec![1, 1, 1], EQUAL),
        (vec![2, 2, 2], EQUAL),
        (vec![5, 5, 5], EQUAL),
        (vec![20, 20, 20], EQUAL),
        (vec![8, 4, 2], EQUAL),
        (vec![1, 10, 10], EQUAL),
        (vec![1; 4], EQUAL),
        (vec![3; 4], EQUAL),
        (vec![8, 8, 8, 4], EQUAL),
        (vec![10, 10, 10, 1], EQUAL),
        (vec![4; 5], EQUAL),
        (vec![1; 6], EQUAL),
        (vec![2; 6], EQUAL),
        (vec![16; 6], EQUAL),
        (vec![9, 7, 5, 3, 2, 1], EQUAL),
        (vec![1; 30], EQUAL),
        (vec![30; 10], EQUAL),
        (vec![10], UNEQUAL),
        (vec![6, 6], UNEQUAL),
        (vec![5, 5, 5], UNEQUAL),
        (vec![20, 20, 20], UNEQUAL),
        (vec![8, 8, 8, 4], UNEQUAL),
        (vec![10; 6], UNEQUAL),
    ];
    if !quick {
        list.extend([
            (vec![1000], EQUAL),
            (vec![500, 500], EQUAL),
            (vec![334, 333, 333], EQUAL),
            (vec![250, 250, 250, 250], EQUAL),
            (vec![200; 5], EQUAL),
            (vec![167, 167, 167, 167, 166, 166], EQUAL),
            (vec![400, 300, 200, 100], EQUAL),
            (vec![334, 333, 333], UNEQUAL),
            (vec![1; 1000], EQUAL),
        ]);
    }
    list.into_iter().map(|(racks, weights)| Topology { racks, weights }).collect()
}

fn datacenter() -> Datacenter {
    Datacenter::new("dc").expect("a valid name")
}

fn member(rack: usize, node: &str, weight: f64) -> RingMember {
    RingMember {
        id: NodeId::new(&format!("dc-{rack}-{node}")).expect("a valid name"),
        datacenter: datacenter(),
        rack: Rack::new(&format!("r{rack}")).expect("a valid name"),
        weight,
    }
}

impl Topology {
    fn members(&self) -> Vec<RingMember> {
        let places = self.racks.iter().enumerate();
        places
            .flat_map(|(rack, nodes)| (0..*nodes).map(move |node| (rack, node)))
            .zip(self.weights.iter().cycle())
            .map(|((rack, node), weight)| member(rack, &node.to_string(), *weight))
            .collect()
    }

    fn partitions(&self) -> u32 {
        let nodes: usize = self.racks.iter().sum();
        (nodes as u32 * 64).next_power_of_two().min(1 << 16)
    }

    fn name(&self) -> String {
        let mut name = match self.racks.as_slice() {
            racks if racks.iter().all(|nodes| *nodes == racks[0]) => {
                format!("{} x {}", racks.len(), racks[0])
            }
            racks => racks.iter().map(usize::to_string).collect::<Vec<_>>().join(" "),
        };
        if self.weights.len() > 1 {
            name.push_str(" weighted");
        }
        name
    }
}

fn build(partitions: u32, members: Vec<RingMember>) -> Ring {
    Ring::build(Epoch(1), partitions, members).expect("a valid ring")
}

/// The most loaded node of a rack, as a multiple of the rack's mean by fair holdings.
fn imbalance(ring: &Ring, replicas: usize) -> f64 {
    let datacenter = datacenter();
    let mut load: BTreeMap<&NodeId, f64> = BTreeMap::new();
    for partition in ring.partition_ids() {
        for member in ring.replicas(partition, &datacenter, replicas) {
            *load.entry(&member.id).or_default() += 1.0;
        }
    }
    let fair: BTreeMap<&NodeId, f64> =
        ring.members().iter().map(|m| (&m.id, ring.fair_holdings(&m.id, replicas))).collect();
    let mut racks: BTreeMap<&Rack, (f64, f64)> = BTreeMap::new();
    for member in ring.members() {
        let (held, due) = racks.entry(&member.rack).or_default();
        *held += load.get(&member.id).copied().unwrap_or(0.0);
        *due += fair[&member.id];
    }
    let relative = ring.members().iter().map(|member| {
        let (held, due) = racks[&member.rack];
        load.get(&member.id).copied().unwrap_or(0.0) / (held / due * fair[&member.id])
    });
    relative.fold(0.0, f64::max)
}

/// What is moved, as a multiple of the least possible and of the strictest reading of it.
fn movement(old: &Ring, new: &Ring, replicas: usize) -> f64 {
    let counts = ReplicaCounts::from([(datacenter(), replicas)]);
    let plan = TransferPlan::between(old, &counts, new, &counts).expect("the same partitions");
    let gone =
        plan.releases().iter().filter(|release| new.member(&release.from).is_none()).count() as f64;
    let least = if gone > 0.0 { gone } else { plan.least_moves() };
    if least < 0.5 { 1.0 } else { plan.moves().len() as f64 / least }
}

#[derive(Default)]
struct Figure {
    sum: f64,
    max: f64,
    count: f64,
}

impl Figure {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.max = self.max.max(value);
        self.count += 1.0;
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:5.2} {:5.2}", self.sum / self.count.max(1.0), self.max)
    }
}

fn table(quick: bool) {
    println!("balance: most loaded node / its rack's mean; join, leave: moved / least possible");
    println!(
        "{:24} {:>6} {:>7} | balance N=1    2    3    5 | join N=3 (max)  leave N=3 (max) | \
         N=1: join        leave       | N=5: join        leave",
        "nodes per rack", "Q", "build"
    );
    for topology in topologies(quick) {
        let (partitions, members) = (topology.partitions(), topology.members());
        let begun = Instant::now();
        let ring = build(partitions, members.clone());
        let built = begun.elapsed();
        let changes = if members.len() > 500 { 3 } else { 8 };
        let mut joins: [Figure; 3] = Default::default();
        let mut leaves: [Figure; 3] = Default::default();
        for change in 0..changes {
            let rack = change % topology.racks.len();
            let weight = topology.weights[(change + 1) % topology.weights.len()];
            let mut more = members.clone();
            more.push(member(rack, &format!("new{change}"), weight));
            let more = build(partitions, more);
            let mut fewer = members.clone();
            fewer.remove((change * 7919) % members.len());
            let fewer = build(partitions, fewer);
            for (at, replicas) in [1, 3, 5].into_iter().enumerate() {
                joins[at].add(movement(&ring, &more, replicas));
                leaves[at].add(movement(&ring, &fewer, replicas));
            }
        }
        let balance = [1, 2, 3, 5].map(|replicas| format!("{:.2}", imbalance(&ring, replicas)));
        println!(
            "{:24} {:>6} {:>5.0}ms |        {} | {}     {}     | {} {} | {} {}",
            topology.name(),
            partitions,
            built.as_secs_f64() * 1e3,
            balance.join(" "),
            joins[1],
            leaves[1],
            joins[0],
            leaves[0],
            joins[2],
            leaves[2],
        );
    }
}

/// The time of one lookup, key's hash to replicas, at 1,000 nodes.
fn lookups() {
    let topology = Topology { racks: vec![334, 333, 333], weights: EQUAL };
    let ring = build(1 << 16, topology.members());
    let datacenter = datacenter();
    let counts = ReplicaCounts::from([(datacenter.clone(), 3)]);
    let time = |what: &str, lookup: &dyn Fn(KeyHash) -> usize| {
        const LOOKUPS: u64 = 2_000_000;
        let begun = Instant::now();
        let mut sum = 0;
        for lookup_no in 0..LOOKUPS {
            sum += lookup(KeyHash(lookup_no.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        }
        black_box(sum);
        println!("{what}: {:.0} ns", begun.elapsed().as_nanos() as f64 / LOOKUPS as f64);
    };
    println!("1,000 nodes, 65,536 partitions, keys in random order");
    let length = |member: &RingMember| member.id.as_str().len();
    time("replicas of a key", &|hash| {
        ring.replicas(ring.partition_of(hash), &datacenter, 3).map(length).sum()
    });
    time("preference list of a key", &|hash| {
        let list = ring.preference_list(ring.partition_of(hash), &counts);
        list.replicas().iter().map(|member| length(member)).sum()
    });
    time("preference list and first stand-in", &|hash| {
        let list = ring.preference_list(ring.partition_of(hash), &counts);
        list.stand_ins().next().map_or(0, length)
    });
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "quick");
    lookups();
    println!();
    table(quick);
}
