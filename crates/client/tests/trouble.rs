//! What the client makes of nodes that are down, silent, full or refuse, over the real transport.

mod support;

use std::time::{Duration, Instant};

use anello_client::{ErrorKind, KeyspaceConfig, Read};
use anello_protocol::message::client::RequestError;
use support::{FakeNode, Manner, fleet, until};

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn what_is_written_is_read() {
    let (world, nodes) = fleet(&["eu-1", "eu-2", "us-1"]).await;
    let client = world.client(&nodes).await;
    assert_eq!(client.get("k").await.unwrap(), Read::Missing);
    let context = client.put("k", "v").await.unwrap();
    let Read::One { value, .. } = client.get("k").await.unwrap() else { panic!("one value") };
    assert_eq!(value, "v");
    client.delete("k").context(context).await.unwrap();
    assert!(matches!(client.get("k").await.unwrap(), Read::Deleted { .. }));
}

#[tokio::test]
async fn requests_go_to_the_own_datacenter() {
    let (world, nodes) = fleet(&["eu-1", "eu-2", "eu-3", "us-1", "us-2"]).await;
    let client = world.client(&nodes[3..]).await;
    let asked = |nodes: &[FakeNode]| nodes.iter().map(FakeNode::asked).collect::<Vec<_>>();
    until("a request to each of the near nodes", async || {
        let _ = client.get("k").await.unwrap();
        asked(&nodes[..3]).iter().all(|asked| *asked > 0)
    })
    .await;
    let far = asked(&nodes[3..]);
    for at in 0..300 {
        let _ = client.get(format!("key {at}")).await.unwrap();
    }
    assert_eq!(asked(&nodes[3..]), far);
}

#[tokio::test]
async fn a_dead_node_costs_no_operation_and_is_used_again_when_it_is_back() {
    let (world, mut nodes) = fleet(&["eu-1", "eu-2", "eu-3"]).await;
    let client = world.client(&nodes).await;
    nodes[0].stop().await;
    for at in 0..50 {
        client.put(format!("key {at}"), "v").await.unwrap();
    }
    let before = nodes[0].asked();
    nodes[0].listen().await;
    until("the return of the node", async || {
        let _ = client.get("k").await.unwrap();
        nodes[0].asked() > before
    })
    .await;
}

#[tokio::test]
async fn the_client_reconnects_after_all_nodes_have_been_away() {
    let (world, mut nodes) = fleet(&["eu-1", "eu-2"]).await;
    let client = world.client(&nodes).await;
    client.put("k", "v").await.unwrap();
    for node in &mut nodes {
        node.stop().await;
    }
    let error = client.get("k").timeout(300 * MS).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unreachable(_)), "{error}");
    for node in &mut nodes {
        node.listen().await;
    }
    let Read::One { .. } = client.get("k").await.unwrap() else { panic!("one value") };
}

#[tokio::test]
async fn the_account_of_a_coordinator_outlives_nodes_that_are_down() {
    let (world, mut nodes) = fleet(&["eu-1", "eu-2", "eu-3"]).await;
    let client = world.client(&nodes).await;
    nodes[1].stop().await;
    nodes[2].stop().await;
    nodes[0].behave(Manner::Failing(RequestError::Unavailable { required: 3, alive: 1 }));
    for at in 0..10 {
        let error = client.get(format!("key {at}")).timeout(300 * MS).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable { required: 3, alive: 1 });
    }
}

#[tokio::test]
async fn a_silent_node_costs_one_attempt_and_its_write_stays_one_event() {
    let (world, nodes) = fleet(&["eu-1", "eu-2"]).await;
    let client = world.client(&nodes).await;
    until("a request to the node", async || {
        let _ = client.get("k").await.unwrap();
        nodes[0].asked() > 0
    })
    .await;
    nodes[0].behave(Manner::Silent);
    for at in 0..20 {
        let put = client.put("k", format!("v{at}")).attempt_timeout(200 * MS);
        put.idempotency_key(&format!("write {at}")).await.unwrap();
    }
    let silenced = nodes[0].writes();
    assert!((1..=3).contains(&silenced.len()), "{} attempts", silenced.len());
    for (_, id) in &silenced {
        assert!(nodes[1].writes().iter().any(|(_, other)| other == id), "retried elsewhere");
    }
    assert_eq!(world.events("k").len(), 20);
}

#[tokio::test]
async fn retries_have_one_write_id_of_their_own() {
    let (world, nodes) = fleet(&["eu-1"]).await;
    let client = world.client(&nodes).await;
    nodes[0].behave(Manner::Gone);
    let error = client.put("k", "v").timeout(300 * MS).await.unwrap_err();
    assert!(error.may_have_happened(), "{error}");
    let attempts = nodes[0].writes();
    assert!(attempts.len() > 1);
    assert!(attempts.iter().all(|(_, id)| *id == attempts[0].1));
    assert_eq!(world.events("k").len(), 1);
    nodes[0].behave(Manner::Well);
    client.put("k", "v").await.unwrap();
    assert_eq!(world.events("k").len(), 2);
}

#[tokio::test]
async fn only_writes_are_in_doubt() {
    let (world, nodes) = fleet(&["eu-1"]).await;
    let client = world.client(&nodes).await;
    nodes[0].behave(Manner::Silent);
    let write = client.put("k", "v").timeout(100 * MS).await.unwrap_err();
    assert_eq!(*write.kind(), ErrorKind::Timeout { tally: None });
    assert!(write.may_have_happened() && write.is_retryable());
    let read = client.get("k").timeout(100 * MS).await.unwrap_err();
    assert!(!read.may_have_happened() && read.is_retryable());
}

#[tokio::test]
async fn what_was_refused_for_sure_is_not_in_doubt() {
    let (world, nodes) = fleet(&["eu-1"]).await;
    let client = world.client(&nodes).await;
    nodes[0].behave(Manner::Failing(RequestError::Unavailable { required: 2, alive: 1 }));
    let error = client.put("k", "v").timeout(200 * MS).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable { required: 2, alive: 1 });
    assert!(!error.may_have_happened() && error.is_retryable());
    assert!(nodes[0].asked() > 1, "it was tried again");
    nodes[0].behave(Manner::Failing(RequestError::BadContext("forged".into())));
    let before = nodes[0].asked();
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Invalid("forged".into()));
    assert_eq!(nodes[0].asked(), before + 1, "it was not tried again");
}

#[tokio::test]
async fn an_overloaded_node_is_left_alone_for_as_long_as_it_asked() {
    let (world, nodes) = fleet(&["eu-1"]).await;
    let client = world.client(&nodes).await;
    nodes[0].behave(Manner::Failing(RequestError::Overloaded { retry_after_ms: 300 }));
    let error = client.put("k", "v").timeout(200 * MS).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Overloaded { .. }), "{error}");
    assert!(!error.may_have_happened());
    nodes[0].behave(Manner::Well);
    client.put("k", "v").await.unwrap();
    let writes = nodes[0].writes();
    let [(refused, _), (taken, _)] = writes[..] else { panic!("{writes:?}") };
    assert!(taken - refused >= 290 * MS, "{:?}", taken - refused);
}

#[tokio::test]
async fn a_full_node_is_passed_by() {
    let (world, nodes) = fleet(&["eu-1", "eu-2"]).await;
    let client = world.client(&nodes).await;
    nodes[0].behave(Manner::Full);
    for _ in 0..20 {
        client.put("k", "v").await.unwrap();
    }
}

#[tokio::test]
async fn retries_do_not_multiply_the_load() {
    let (world, nodes) = fleet(&["eu-1", "eu-2", "eu-3"]).await;
    let client = world.client(&nodes).await;
    for node in &nodes {
        node.behave(Manner::Failing(RequestError::Unavailable { required: 2, alive: 1 }));
    }
    let operations = 1000;
    let began = Instant::now();
    let tasks: Vec<_> = (0..operations)
        .map(|at| tokio::spawn(client.put(format!("{at}"), "v").timeout(1000 * MS).into_future()))
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().is_err());
    }
    let asked: usize = nodes.iter().map(FakeNode::asked).sum();
    let bound = operations + operations / 5 + 100 + 5 * (began.elapsed().as_secs() as usize + 1);
    assert!(asked <= bound, "{asked} attempts for {operations} operations");
}

#[tokio::test]
async fn changes_of_the_ring_are_followed() {
    let (world, mut nodes) = fleet(&["eu-1"]).await;
    let client = world.client(&nodes).await;
    client.put("k", "v").await.unwrap();
    nodes.push(FakeNode::start(&world, "eu-2").await);
    world.join(&nodes[1]);
    // Nothing but the failure of the only node that the client knows hints at the change.
    nodes[0].behave(Manner::Failing(RequestError::Unavailable { required: 1, alive: 0 }));
    until("a request to the new node", async || {
        let _ = client.get("k").await;
        nodes[1].asked() > 0
    })
    .await;
}

#[tokio::test]
async fn a_keyspace_is_there_for_its_creator_at_once_and_for_others_soon() {
    let (world, nodes) = fleet(&["eu-1", "eu-2"]).await;
    let (client, other) = (world.client(&nodes).await, world.client(&nodes).await);
    let error = client.keyspace("carts").get("k").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoSuchKeyspace(_)), "{error}");
    client.set_keyspace("carts", KeyspaceConfig::default()).await.unwrap();
    client.keyspace("carts").put("k", "v").await.unwrap();
    let _ = other.keyspace("carts").get("k").await.unwrap();
    assert!(client.keyspaces().await.unwrap().keys().any(|name| name.as_str() == "carts"));
    client.drop_keyspace("carts").await.unwrap();
    let error = client.drop_keyspace("carts").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoSuchKeyspace(_)), "{error}");
}

#[tokio::test]
async fn a_dead_seed_does_not_hold_up_the_start() {
    let (world, mut nodes) = fleet(&["eu-1", "eu-2", "eu-3"]).await;
    nodes[0].stop().await;
    let began = Instant::now();
    let client = world.client(&nodes).await;
    assert!(began.elapsed() < 1500 * MS, "{:?}", began.elapsed());
    client.put("k", "v").await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_cluster_says_so_or_waits_for_it() {
    let (world, mut nodes) = fleet(&["eu-1"]).await;
    nodes[0].stop().await;
    let builder = || world.builder(&[&nodes[0]]).connect_timeout(300 * MS);
    let error = builder().connect().await.unwrap_err();
    assert!(error.to_string().contains(&nodes[0].address.to_string()), "{error}");
    assert!(error.is_retryable() && !error.may_have_happened());
    let lazy = builder().connect_lazy().unwrap();
    nodes[0].listen().await;
    lazy.put("k", "v").await.unwrap();
}

#[tokio::test]
async fn a_stranger_is_told_so_at_once() {
    let (world, nodes) = fleet(&["eu-1"]).await;
    let (elsewhere, _) = fleet(&["us-1"]).await;
    let began = Instant::now();
    let error = elsewhere.builder(&[&nodes[0]]).connect().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Refused(_)), "{error}");
    let error = world.builder(&[&nodes[0]]).cluster("other").connect().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Refused(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn mistakes_show_when_the_operation_is_awaited() {
    let (world, nodes) = fleet(&["eu-1"]).await;
    let client = world.client(&nodes).await;
    let invalid = |error: anello_client::Error| {
        assert!(matches!(error.kind(), ErrorKind::Invalid(_)), "{error}");
        assert!(!error.is_retryable() && !error.may_have_happened());
    };
    invalid(client.get("").await.unwrap_err());
    invalid(client.put("k", vec![0; (1 << 20) + 1]).await.unwrap_err());
    invalid(client.keyspace("No Name").get("k").await.unwrap_err());
    invalid(client.put("k", "v").idempotency_key("").await.unwrap_err());
    assert_eq!(nodes[0].asked(), 0);
}

#[test]
fn a_client_can_be_used_from_other_runtimes() {
    let home = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (world, nodes, client) = home.block_on(async {
        let (world, nodes) = fleet(&["eu-1", "eu-2"]).await;
        let client = world.client(&nodes).await;
        (world, nodes, client)
    });
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let client = client.clone();
            std::thread::spawn(move || {
                let away = tokio::runtime::Builder::new_current_thread().enable_all().build();
                away.unwrap().block_on(async {
                    for at in 0..50 {
                        client.put(format!("{thread}/{at}"), "v").await.unwrap();
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(nodes.iter().map(FakeNode::asked).sum::<usize>() >= 200);
    drop((world, nodes));
}
