//! What holds of every ring, by property: over topologies of 1 to 1,000 nodes, 1 to 5 datacenters,
//! 1 to 6 racks, of equal and unequal sizes and weights.

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    time::Instant,
};

use anello_protocol::{
    id::{Datacenter, Epoch, NodeId, PartitionId, Rack},
    key::KeyHash,
};
use anello_ring::{ReplicaCounts, Ring, RingError, RingMember, TransferPlan};
use proptest::{prelude::*, test_runner::RngSeed};

/// Weights that nodes take in turn.
const EQUAL: &[f64] = &[1.0];
const UNEQUAL: &[f64] = &[1.0, 0.5, 2.0, 4.0, 1.5];

/// For each datacenter, the nodes of each rack.
type Sizes = Vec<Vec<usize>>;

fn sizes(datacenters: usize, racks: usize, nodes: usize) -> impl Strategy<Value = Sizes> {
    let rack = 1..=nodes;
    let equal = (1..=racks, rack.clone()).prop_map(|(racks, nodes)| vec![nodes; racks]);
    let unequal = prop::collection::vec(rack, 1..=racks);
    prop::collection::vec(prop_oneof![equal, unequal], 1..=datacenters)
}

fn weights() -> impl Strategy<Value = &'static [f64]> {
    prop_oneof![Just(EQUAL), Just(UNEQUAL)]
}

fn datacenter(number: usize) -> Datacenter {
    Datacenter::new(&format!("dc{number}")).expect("a valid name")
}

fn member(dc: usize, rack: usize, node: &str, weight: f64) -> RingMember {
    RingMember {
        id: NodeId::new(&format!("dc{dc}-{rack}-{node}")).expect("a valid name"),
        datacenter: datacenter(dc),
        rack: Rack::new(&format!("r{rack}")).expect("a valid name"),
        weight,
    }
}

fn members(sizes: &Sizes, weights: &[f64]) -> Vec<RingMember> {
    let mut weights = weights.iter().cycle();
    let mut members = Vec::new();
    for (dc, racks) in sizes.iter().enumerate() {
        for (rack, nodes) in racks.iter().enumerate() {
            for node in 0..*nodes {
                let weight = weights.next().copied().unwrap_or(1.0);
                members.push(member(dc, rack, &node.to_string(), weight));
            }
        }
    }
    members
}

/// At least 64 partitions for each node of the largest datacenter.
fn enough_partitions(sizes: &Sizes) -> u32 {
    let largest = sizes.iter().map(|racks| racks.iter().sum::<usize>()).max().unwrap_or(1);
    (largest as u32 * 64).next_power_of_two().min(1 << 16)
}

fn build(partitions: u32, members: impl IntoIterator<Item = RingMember>) -> Ring {
    Ring::build(Epoch(1), partitions, members).expect("a valid ring")
}

/// Every datacenter's replicas are on distinct nodes and on as many racks as there can be; the whole
/// walk is every node once.
fn check_places(ring: &Ring, partition: PartitionId) {
    for dc in ring.datacenters() {
        let racks = ring.members_in(dc).map(|m| &m.rack).collect::<BTreeSet<_>>().len();
        let nodes = ring.members_in(dc).count();
        let walk: Vec<&RingMember> = ring.walk(partition, dc).collect();
        assert_eq!(walk.len(), nodes);
        let (mut seen_nodes, mut seen_racks) = (BTreeSet::new(), BTreeSet::new());
        for (at, member) in walk.into_iter().enumerate() {
            assert_eq!(member.datacenter, *dc);
            assert!(seen_nodes.insert(&member.id), "{} twice", member.id);
            seen_racks.insert(&member.rack);
            assert_eq!(seen_racks.len(), racks.min(at + 1), "a rack again too early");
        }
    }
}

/// No node of a rack holds more than 1.10 times what is its part of what the rack holds.
fn check_balance(ring: &Ring, replicas: usize) {
    let counts: ReplicaCounts = ring.datacenters().map(|dc| (dc.clone(), replicas)).collect();
    let mut load: BTreeMap<&NodeId, f64> = BTreeMap::new();
    for partition in ring.partition_ids() {
        for member in ring.preference_list(partition, &counts).replicas() {
            *load.entry(&member.id).or_default() += 1.0;
        }
    }
    let held = |m: &RingMember| load.get(&m.id).copied().unwrap_or(0.0);
    let fair: BTreeMap<&NodeId, f64> =
        ring.members().iter().map(|m| (&m.id, ring.fair_holdings(&m.id, replicas))).collect();
    let mut racks: BTreeMap<(&Datacenter, &Rack), (f64, f64)> = BTreeMap::new();
    for member in ring.members() {
        let sums = racks.entry((&member.datacenter, &member.rack)).or_default();
        sums.0 += held(member);
        sums.1 += fair[&member.id];
    }
    for member in ring.members() {
        let (rack_held, rack_fair) = racks[&(&member.datacenter, &member.rack)];
        let mean = rack_held * fair[&member.id] / rack_fair;
        // A light node has few of the 64 partitions a node, and partitions can't be cut.
        let allowed = (1.10 * mean).max(mean + 2.0);
        assert!(
            held(member) <= allowed + 1e-6,
            "{} holds {} of {mean:.1} for {replicas} replicas",
            member.id,
            held(member)
        );
    }
}

/// From one ring to another, at most 1.25 times the least is moved.
///
/// Where there are more replicas than racks and weights differ widely, heavy nodes hold nearly every
/// partition already, and what they can't take shifts between the others: there 3 % of all holdings
/// may move on top, which shows when a light node of a small fleet comes or goes.
fn check_movement(old: &Ring, new: &Ring, replicas: usize) {
    let racks = |ring: &Ring, dc: &Datacenter| {
        ring.members_in(dc).map(|m| &m.rack).collect::<BTreeSet<_>>().len()
    };
    let few_racks = old.datacenters().any(|dc| racks(old, dc) < replicas);
    let unequal = old.members().iter().any(|m| m.weight != old.members()[0].weight);
    let shift = if few_racks && unequal { 0.03 } else { 0.0 };
    let holdings = replicas as f64 * f64::from(old.partitions());
    let counts = |ring: &Ring| ring.datacenters().map(|dc| (dc.clone(), replicas)).collect();
    let plan =
        TransferPlan::between(old, &counts(old), new, &counts(new)).expect("the same partitions");
    let gone = plan.releases().iter().filter(|release| new.member(&release.from).is_none()).count();
    // The strictest reading of the least possible: for a leave exactly what the node held.
    let least = if gone > 0 { gone as f64 } else { plan.least_moves() };
    let allowed = 1.25 * least + shift * holdings;
    assert!(
        plan.moves().len() as f64 <= allowed + 1.0,
        "{} moves for {replicas} replicas, the least is {least:.1}",
        plan.moves().len(),
    );
}

proptest! {
    // The bounds on balance and movement are measured, not proved, so the cases are the same every
    // time; thousands of other cases were tried when the claim was settled.
    #![proptest_config(ProptestConfig {
        cases: 48,
        rng_seed: RngSeed::Fixed(0xA11E),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn replicas_are_on_distinct_nodes_and_racks(
        sizes in sizes(5, 6, 12), weights in weights(), bits in 0u32..9,
    ) {
        let ring = build(1 << bits, members(&sizes, weights));
        for partition in ring.partition_ids() {
            check_places(&ring, partition);
        }
    }

    #[test]
    fn no_node_is_far_above_its_rack(sizes in sizes(3, 6, 12), weights in weights()) {
        let ring = build(enough_partitions(&sizes), members(&sizes, weights));
        for replicas in [1, 2, 3] {
            check_balance(&ring, replicas);
        }
    }

    #[test]
    fn a_join_or_leave_moves_little_more_than_it_must(
        sizes in sizes(2, 6, 12), weights in weights(), at in any::<prop::sample::Index>(),
    ) {
        let partitions = enough_partitions(&sizes);
        let members = members(&sizes, weights);
        let ring = build(partitions, members.clone());
        let place = members[at.index(members.len())].clone();

        let joiner = RingMember { id: NodeId::new("joiner").expect("a valid name"), ..place.clone() };
        let joined = build(partitions, members.iter().cloned().chain([joiner]));
        check_movement(&ring, &joined, 3);

        let left = build(partitions, members.into_iter().filter(|m| m.id != place.id));
        check_movement(&ring, &left, 3);
    }

    #[test]
    fn a_new_rack_moves_little_more_than_it_must(
        sizes in sizes(1, 5, 12), weights in weights(),
    ) {
        let partitions = enough_partitions(&sizes);
        let members = members(&sizes, weights);
        let ring = build(partitions, members.clone());
        let joined = build(partitions, members.into_iter().chain([member(0, 9, "0", 1.0)]));
        check_movement(&ring, &joined, 3);
    }

    #[test]
    fn the_order_of_the_members_does_not_matter(
        sizes in sizes(2, 4, 5), weights in weights(), seed in any::<u64>(),
    ) {
        let members = members(&sizes, weights);
        let mut shuffled = members.clone();
        let mut state = seed;
        for at in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(at, (state >> 33) as usize % (at + 1));
        }
        let (a, b) = (build(64, members), build(64, shuffled));
        for partition in a.partition_ids() {
            for dc in a.datacenters() {
                prop_assert!(a.walk(partition, dc).eq(b.walk(partition, dc)));
            }
        }
    }

    #[test]
    fn a_datacenter_knows_nothing_of_the_others(sizes in sizes(3, 3, 5)) {
        let all = members(&sizes, EQUAL);
        let alone = build(128, all.iter().filter(|m| m.datacenter == datacenter(0)).cloned());
        let ring = build(128, all);
        for partition in ring.partition_ids() {
            let here = datacenter(0);
            prop_assert!(ring.walk(partition, &here).eq(alone.walk(partition, &here)));
        }
    }

    #[test]
    fn a_plan_turns_the_old_holdings_into_the_new(
        old_sizes in sizes(2, 3, 4), new_sizes in sizes(2, 3, 4), replicas in 1usize..5,
    ) {
        let (old, new) = (build(32, members(&old_sizes, EQUAL)), build(32, members(&new_sizes, UNEQUAL)));
        let counts = |ring: &Ring| -> ReplicaCounts {
            ring.datacenters().map(|dc| (dc.clone(), replicas)).collect()
        };
        let (old_counts, new_counts) = (counts(&old), counts(&new));
        let plan = TransferPlan::between(&old, &old_counts, &new, &new_counts)
            .expect("the same partitions");
        let holdings = |ring: &Ring, counts: &ReplicaCounts| -> BTreeSet<(PartitionId, NodeId)> {
            let ids = ring.members().iter().map(|m| &m.id);
            ids.flat_map(|id| ring.vnodes_of(id, counts).into_iter().map(|p| (p, id.clone()))).collect()
        };
        let before = holdings(&old, &old_counts);
        let mut held = before.clone();
        for one in plan.moves() {
            prop_assert!(one.sources.iter().all(|id| before.contains(&(one.partition, id.clone()))));
            prop_assert!(held.insert((one.partition, one.to.clone())));
        }
        for release in plan.releases() {
            prop_assert!(held.remove(&(release.partition, release.from.clone())));
        }
        prop_assert_eq!(held, holdings(&new, &new_counts));
    }
}

#[test]
fn a_thousand_nodes_are_balanced_and_move_little() {
    for sizes in [vec![vec![334, 333, 333]], vec![vec![40, 30, 30, 60, 20, 20]; 5]] {
        let partitions = enough_partitions(&sizes);
        let members = members(&sizes, EQUAL);
        let ring = build(partitions, members.clone());
        for replicas in [1, 3] {
            check_balance(&ring, replicas);
        }
        for partition in ring.partition_ids().step_by(997) {
            check_places(&ring, partition);
        }
        let joined = build(partitions, members.iter().cloned().chain([member(0, 1, "new", 1.0)]));
        check_movement(&ring, &joined, 3);
        let left = build(partitions, members.into_iter().skip(1));
        check_movement(&ring, &left, 3);
    }
}

#[test]
fn a_lookup_is_far_from_costing_a_microsecond() {
    let ring = build(1 << 16, members(&vec![vec![334, 333, 333]], EQUAL));
    let here = datacenter(0);
    let lookups = 200_000u64;
    // The best of several runs, and five times what is asked for: neighbours can't make it fail.
    let best = (0..10)
        .map(|_| {
            let begun = Instant::now();
            for lookup in 0..lookups {
                let hash = KeyHash(lookup.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let partition = ring.partition_of(black_box(hash));
                black_box(ring.replicas(partition, &here, 3).map(|m| m.weight).sum::<f64>());
            }
            begun.elapsed().as_nanos() as u64 / lookups
        })
        .min();
    assert!(best < Some(1_000), "{best:?} ns");
}

/// Nodes of different versions must claim alike, so what the claim yields is frozen.
#[test]
fn the_claim_never_changes() {
    let sizes = vec![vec![2, 2, 2], vec![3, 1], vec![5]];
    let ring = build(8, members(&sizes, UNEQUAL));
    let walk = |partition, dc| {
        let walk = ring.walk(PartitionId(partition), &datacenter(dc)).take(4);
        walk.map(|m| m.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    let walks: Vec<String> =
        (0..3).flat_map(|dc| [0, 3, 7].map(|partition| walk(partition, dc))).collect();
    let expected = [
        "dc0-0-0 dc0-2-0 dc0-1-1 dc0-2-1",
        "dc0-0-1 dc0-1-1 dc0-2-0 dc0-1-0",
        "dc0-2-1 dc0-1-1 dc0-0-0 dc0-2-0",
        "dc1-0-1 dc1-1-0 dc1-0-2 dc1-0-0",
        "dc1-0-2 dc1-1-0 dc1-0-1 dc1-0-0",
        "dc1-0-2 dc1-1-0 dc1-0-1 dc1-0-0",
        "dc2-0-1 dc2-0-3 dc2-0-4 dc2-0-2",
        "dc2-0-2 dc2-0-3 dc2-0-4 dc2-0-0",
        "dc2-0-3 dc2-0-2 dc2-0-1 dc2-0-4",
    ];
    assert_eq!(walks, expected);

    let sizes = vec![vec![20, 7, 3, 1], vec![30, 20], vec![1; 20], vec![25]];
    let ring = build(1024, members(&sizes, UNEQUAL));
    let fold = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    let mut sum = 0xCBF2_9CE4_8422_2325;
    for partition in ring.partition_ids() {
        for member in ring.datacenters().flat_map(|dc| ring.walk(partition, dc)) {
            sum = member.id.as_str().as_bytes().iter().fold(sum, fold);
        }
    }
    assert_eq!(sum, 14_401_632_065_187_357_227);
}

#[test]
fn stand_ins_are_everybody_else_with_the_own_datacenters_first() {
    let ring = build(64, members(&vec![vec![2, 2, 2], vec![1, 1, 1], vec![20]], EQUAL));
    let counts = ReplicaCounts::from([(datacenter(0), 2), (datacenter(2), 3)]);
    for partition in ring.partition_ids() {
        let list = ring.preference_list(partition, &counts);
        let stand_ins: Vec<&RingMember> = list.stand_ins().collect();
        let places: Vec<&str> = stand_ins.iter().map(|m| m.datacenter.as_str()).collect();
        let expected = [["dc0"; 4].as_slice(), &["dc2"; 17], &["dc1"; 3]].concat();
        assert_eq!(places, expected);
        let all: BTreeSet<&NodeId> =
            list.replicas().iter().chain(&stand_ins).map(|m| &m.id).collect();
        assert_eq!(all.len(), ring.members().len());
    }
}

#[test]
fn what_makes_no_ring_is_refused() {
    let one = || member(0, 0, "0", 1.0);
    let error = |partitions, members: Vec<RingMember>| {
        Ring::build(Epoch(1), partitions, members).expect_err("no ring")
    };
    for partitions in [0, 3, 1 << 17] {
        assert_eq!(error(partitions, vec![one()]), RingError::BadPartitions(partitions));
    }
    assert_eq!(error(8, vec![one(), one()]), RingError::DuplicateId(one().id));
    for weight in [0.0, -1.0, 100.1, f64::NAN, f64::INFINITY] {
        let bad = RingMember { weight, ..one() };
        assert!(matches!(error(8, vec![bad]), RingError::BadWeight { .. }), "{weight}");
    }
    let many = (0..4097).map(|node| member(0, 0, &node.to_string(), 1.0)).collect();
    assert_eq!(error(8, many), RingError::TooManyMembers);
}

#[test]
fn a_ring_of_nobody_and_a_place_that_is_not_there_have_no_replicas() {
    let empty = build(8, []);
    assert_eq!(empty.owner(PartitionId(0), &datacenter(0)), None);
    let ring = build(8, [member(0, 0, "0", 1.0)]);
    assert_eq!(ring.owner(PartitionId(8), &datacenter(0)), None);
    assert_eq!(ring.owner(PartitionId(0), &datacenter(1)), None);
    assert_eq!(ring.owner(PartitionId(7), &datacenter(0)), ring.members().first());
}

#[test]
fn more_nodes_than_partitions_and_extreme_weights_are_fine() {
    let sizes = vec![vec![100, 7, 1]];
    let ring = build(1, members(&sizes, &[1e-300, 100.0, 1.0]));
    check_places(&ring, PartitionId(0));
    let heavy_racks = vec![[vec![60], vec![1; 30]].concat()];
    let ring = build(256, members(&heavy_racks, &[100.0, 100.0, 0.001]));
    for partition in ring.partition_ids() {
        check_places(&ring, partition);
    }
}
