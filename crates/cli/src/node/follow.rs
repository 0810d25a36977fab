//! How far a change of the ring is, until it is through.

use std::{collections::BTreeSet, time::Duration};

use anello_client::Client;
use anello_protocol::{
    cluster::{ClusterState, Phase, RingChange},
    id::Epoch,
    message::admin::RingRequest,
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::{connect::Session, outcome::Failure, progress::Progress};

/// Between two looks at the agreed state.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two questions what stands in the way.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long a node has to say so.
const PATIENCE: Duration = Duration::from_secs(1);
/// So long nobody may answer before the look is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Shows how far it is, until it is through. Not bounded by the command's time: data moves for as long as
/// it takes.
pub(super) async fn to_the_end(
    session: &Session,
    request: &RingRequest,
    began: Epoch,
) -> Result<(), Failure> {
    let client = session.client();
    let mut progress = Progress::begin("partitions", None, 0);
    let (mut heard, mut asked) = (Instant::now(), Instant::now());
    let mut said = BTreeSet::new();
    loop {
        match client.cluster_state().await {
            Ok(state) => {
                heard = Instant::now();
                if is_through(&state, request, began) {
                    progress.end();
                    return Ok(());
                }
                if let Some(change) = &state.change {
                    let (done, all) = steps(change);
                    progress.of(all);
                    progress.at(done, done);
                }
                if asked.elapsed() >= ASK_EVERY {
                    for line in obstacles(client, &state).await {
                        if said.insert(line.clone()) {
                            progress.say(&line);
                        }
                    }
                    asked = Instant::now();
                }
            }
            Err(error) if heard.elapsed() >= SILENCE_MAX => {
                progress.end();
                return Err(Failure::failed(format_args!(
                    "can't tell how far it is, and it goes on by itself: {error}"
                )));
            }
            // The node that was asked may be the one that has left.
            Err(_) => {}
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Whether what was asked for has come about.
fn is_through(state: &ClusterState, request: &RingRequest, began: Epoch) -> bool {
    match request {
        // Another change may come before this one.
        RingRequest::Leave(node)
        | RingRequest::Remove(node)
        | RingRequest::Replace { old: node, .. } => !state.members.contains_key(node),
        RingRequest::Weigh { .. } => {
            state.epoch >= began && state.change.as_ref().is_none_or(|it| it.began > began)
        }
    }
}

/// Each partition goes through two phases.
fn steps(change: &RingChange) -> (u64, u64) {
    let done = change.phases.iter().map(|phase| match phase {
        Phase::Filling => 0,
        Phase::Serving => 1,
        Phase::Done => 2,
    });
    (done.sum(), 2 * change.phases.len() as u64)
}

/// What nodes say that they wait for.
async fn obstacles(client: &Client, state: &ClusterState) -> Vec<String> {
    let asked = state.members.values().map(async |member| {
        let node = client.to_node(&member.quic);
        let status = timeout(PATIENCE, node.status()).await.ok()?.ok()?;
        Some((member.id.clone(), status.transfers?))
    });
    let answers = join_all(asked).await.into_iter().flatten();
    let lines = answers.flat_map(|(node, transfers)| {
        let awaited = transfers.awaited.into_iter();
        awaited.filter_map(move |(other, awaited)| {
            let obstacle = awaited.obstacle?;
            Some(format!("{node} waits for what {other} has: {obstacle}"))
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use anello_protocol::{
        cluster::{Layout, Member, MemberState, Purpose},
        id::{ClusterName, NodeId},
    };

    use super::*;

    fn cluster(nodes: &[&str]) -> ClusterState {
        let member = |id: &str| Member {
            id: id.parse().unwrap(),
            datacenter: "eu".parse().unwrap(),
            rack: "a".parse().unwrap(),
            weight: 1.0,
            quic: String::new(),
            http: String::new(),
            state: MemberState::Up,
        };
        let name = ClusterName::new("demo").unwrap();
        let mut state = ClusterState::founded(name, 4, member(nodes[0]));
        for node in nodes {
            state.members.insert(node.parse().unwrap(), member(node));
        }
        state.epoch = Epoch(9);
        state
    }

    fn change(began: u64, phases: [Phase; 4]) -> Box<RingChange> {
        let began = Epoch(began);
        let purpose = Purpose::Weigh(NodeId::new("a").unwrap());
        Box::new(RingChange {
            began,
            asked: began,
            purpose,
            old: Layout::default(),
            phases: phases.into(),
        })
    }

    #[test]
    fn a_change_is_through_when_its_outcome_is_there() {
        let a: NodeId = "a".parse().unwrap();
        for request in [RingRequest::Leave(a.clone()), RingRequest::Remove(a.clone())] {
            assert!(!is_through(&cluster(&["a", "b"]), &request, Epoch(7)));
            assert!(is_through(&cluster(&["b"]), &request, Epoch(7)));
        }
        let weigh = RingRequest::Weigh { node: a, weight: 2.0 };
        let mut state = cluster(&["a", "b"]);
        assert!(is_through(&state, &weigh, Epoch(9)), "it may have been through at once");
        assert!(!is_through(&state, &weigh, Epoch(10)), "the node that is asked is behind");
        state.change = Some(change(7, [Phase::Done, Phase::Filling, Phase::Serving, Phase::Done]));
        assert!(!is_through(&state, &weigh, Epoch(7)));
        assert_eq!(steps(state.change.as_ref().unwrap()), (5, 8));
        state.change = Some(change(8, [Phase::Filling; 4]));
        assert!(is_through(&state, &weigh, Epoch(7)), "that is another one");
    }
}
