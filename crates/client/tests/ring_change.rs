//! What the client makes of a ring that changes while it is at work.

mod support;

use std::time::Duration;

use anello_client::ErrorKind;
use anello_protocol::{
    cluster::Phase,
    message::{admin::RingRequest, client::RequestError},
};
use support::{FakeNode, Manner, fleet, until};

/// The client asks for the ring when nothing hints at a change, too: every few seconds.
const FOLLOWED: Duration = Duration::from_secs(15);

#[tokio::test]
async fn who_joins_is_asked_once_it_is_read() {
    let (world, nodes) = fleet(&["eu-1", "eu-2", "eu-3"]).await;
    let client = world.client(&nodes).await;
    let new = FakeNode::start(&world, "eu-4").await;
    let read = async |count: usize| {
        for at in 0..count {
            let _ = client.get(format!("key {at}")).await.unwrap();
        }
    };
    world.begin_join(&new);
    client.drop_keyspace("unheard-of").await.unwrap_err();
    // An agreed change is what makes the client look at once.
    client.set_keyspace("other", Default::default()).await.unwrap();
    read(200).await;
    assert_eq!(new.asked(), 0, "it is being filled");
    world.enter(Phase::Serving);
    client.set_keyspace("another", Default::default()).await.unwrap();
    until("a request to the new node", async || {
        read(100).await;
        new.asked() > 0
    })
    .await;
}

#[tokio::test]
async fn a_node_that_has_left_costs_no_operation() {
    let (world, mut nodes) = fleet(&["eu-1", "eu-2", "eu-3", "eu-4"]).await;
    let client = world.client(&nodes).await;
    let leaver = nodes[0].id.clone();
    let epoch = client.alter_ring(RingRequest::Leave(leaver.clone())).await.unwrap();
    assert_eq!(client.cluster_state().await.unwrap().epoch, epoch);
    world.enter(Phase::Serving);
    let write = async |from: usize| {
        for at in from..from + 50 {
            client.put(format!("key {at}"), "v").await.unwrap();
            let _ = client.get(format!("key {at}")).await.unwrap();
        }
    };
    write(0).await;
    world.epoch(|state| {
        state.change = None;
        state.members.remove(&leaver);
        state.removed.insert(leaver.clone());
    });
    // It is no member any more, can't reach anybody, and then it is gone.
    nodes[0].behave(Manner::Failing(RequestError::Unavailable { required: 1, alive: 0 }));
    write(50).await;
    nodes[0].stop().await;
    write(100).await;
    let before = nodes[0].asked();
    tokio::time::timeout(FOLLOWED, async {
        nodes[0].listen().await;
        while client.cluster_state().await.unwrap().members.contains_key(&leaver) {}
    })
    .await
    .unwrap();
    write(150).await;
    assert_eq!(nodes[0].asked(), before, "it is forgotten");
}

#[tokio::test]
async fn one_change_at_a_time() {
    let (world, nodes) = fleet(&["eu-1", "eu-2", "eu-3"]).await;
    let client = world.client(&nodes).await;
    client.alter_ring(RingRequest::Leave(nodes[0].id.clone())).await.unwrap();
    let error = client.alter_ring(RingRequest::Leave(nodes[1].id.clone())).await.unwrap_err();
    let ErrorKind::Conflict(why) = error.kind() else { panic!("{error}") };
    assert!(why.contains("eu-1 leaving"), "{why}");
    assert!(error.is_retryable() && !error.may_have_happened());
    drop(world);
}
