//! One sample of everything that gossip says.

use std::collections::{BTreeMap, BTreeSet};

use anello_protocol::{
    cluster::{ClusterState, Phase},
    id::{Epoch, KeyspaceId, PartitionId},
    message::gossip::*,
};

use super::{cluster_state, node};

fn decree() -> Decree {
    let state: ClusterState = cluster_state();
    let births = 100_u64..;
    let admitted: BTreeMap<_, _> = state.members.keys().cloned().zip(births).collect();
    Decree { origin: 0x0123_4567_89ab_cdef, state, admitted }
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, proposer: node("eu-a-1"), salt: 0xfedc_ba98_7654_3210 }
}

fn pulse(leaving: bool) -> Pulse {
    let beat = Beat { node: node("eu-a-1"), generation: 3, version: 4_711 };
    Pulse { beat, epoch: Epoch(7), program: "0.1.0".into(), leaving }
}

/// Every body, by a name for its file.
pub(crate) fn packets() -> Vec<(&'static str, GossipPacket)> {
    let member = cluster_state().members[&node("eu-a-1")].clone();
    let candidate = Box::new(Candidate { member, birth: 99 });
    let answer = |answer| GossipBody::Answer { birth: 99, answer };
    let vote = |step| GossipBody::Vote { epoch: Epoch(7), ballot: ballot(2), step };
    let accepted = Some(Box::new((ballot(1), decree())));
    let holding = BTreeSet::from([KeyspaceId(1), KeyspaceId(5)]);
    let beat = Beat { node: node("eu-a-2"), generation: 1, version: 300 };
    let bodies = vec![
        ("knock", GossipBody::Knock { candidate, partitions: 256 }),
        ("answer-no-cluster", answer(KnockAnswer::NoCluster)),
        ("answer-wait", answer(KnockAnswer::Wait("soon".into()))),
        ("answer-not-now", answer(KnockAnswer::NotNow("data".into()))),
        ("answer-never", answer(KnockAnswer::Never("removed".into()))),
        ("digest", GossipBody::Digest { pulse: pulse(false), heard: vec![beat] }),
        (
            "delta",
            GossipBody::Delta {
                epoch: Epoch(7),
                pulses: vec![pulse(true)],
                wanted: vec![node("eu-a-2")],
            },
        ),
        ("prepare", vote(VoteStep::Prepare { freeze: true })),
        ("promise", vote(VoteStep::Promise { accepted, holding })),
        ("rejected", vote(VoteStep::Rejected { promised: ballot(3) })),
        ("accept", vote(VoteStep::Accept { decree: Box::new(decree()) })),
        ("accepted", vote(VoteStep::Accepted)),
        ("release", vote(VoteStep::Release)),
        ("decided", GossipBody::Decided(Box::new(decree()))),
        ("learned", GossipBody::Learned(Epoch(7))),
        (
            "handed-over",
            GossipBody::HandedOver {
                change: Epoch(6),
                partitions: vec![
                    (PartitionId(3), Phase::Filling),
                    (PartitionId(200), Phase::Serving),
                ],
            },
        ),
    ];
    let cluster = || "demo".parse().expect("a good name");
    bodies
        .into_iter()
        .map(|(name, body)| (name, GossipPacket { cluster: cluster(), body }))
        .collect()
}
