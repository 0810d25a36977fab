//! Reading, merging, changing and writing back, over the real transport.

mod support;

use anello_client::{Bytes, Change, ErrorKind, Read};
use support::fleet;

/// The union of comma-separated words.
fn union(values: Vec<Bytes>) -> Bytes {
    let texts: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
    let words: std::collections::BTreeSet<_> = texts.iter().flat_map(|t| t.split(',')).collect();
    words.into_iter().collect::<Vec<_>>().join(",").into()
}

fn with(word: &'static str) -> impl FnOnce(Option<Bytes>) -> Bytes {
    move |old| union(old.into_iter().chain([Bytes::from(word)]).collect())
}

#[tokio::test]
async fn an_update_replaces_what_it_has_read() {
    let (world, nodes) = fleet(&["eu-1", "eu-2"]).await;
    let client = world.client(&nodes).await;
    assert_eq!(client.update("k", with("a")).await.unwrap().value, Some("a".into()));
    assert_eq!(client.update("k", with("b")).await.unwrap().value, Some("a,b".into()));
    let Read::One { value, .. } = client.get("k").await.unwrap() else { panic!("one value") };
    assert_eq!(value, "a,b");
}

#[tokio::test]
async fn siblings_are_merged_or_left_alone() {
    let (world, nodes) = fleet(&["eu-1"]).await;
    let client = world.client(&nodes).await;
    client.put("k", "a").await.unwrap();
    client.put("k", "b").await.unwrap();
    let error = client.update("k", with("c")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unresolved { siblings: 2 });
    assert!(!error.may_have_happened());
    let Read::Siblings { siblings, .. } = client.get("k").await.unwrap() else { panic!("two") };
    assert_eq!(siblings.len(), 2);
    let merged = client.update("k", with("c")).resolver(union).await.unwrap();
    assert_eq!(merged.value, Some("a,b,c".into()));
    let Read::One { value, .. } = client.get("k").await.unwrap() else { panic!("one value") };
    assert_eq!(value, "a,b,c");
}

#[tokio::test]
async fn no_concurrent_update_is_lost() {
    let (world, nodes) = fleet(&["eu-1", "eu-2"]).await;
    let client = world.client(&nodes).await;
    let carts = client.keyspace("default").resolver(union);
    let words = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let tasks: Vec<_> =
        words.map(|word| tokio::spawn(carts.update("k", with(word)).into_future())).into();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let all = carts.update("k", |old| old).await.unwrap();
    assert_eq!(all.value, Some(words.join(",").into()));
}

#[tokio::test]
async fn a_change_can_delete_or_keep() {
    let (world, nodes) = fleet(&["eu-1"]).await;
    let client = world.client(&nodes).await;
    let nothing = client.update("k", |_| Change::Delete).await.unwrap();
    assert_eq!((nothing.value, nothing.context), (None, None));
    assert_eq!(nodes[0].writes().len(), 0, "there was nothing to delete");
    client.put("k", "v").await.unwrap();
    let kept = client.update("k", |_| Change::Keep).await.unwrap();
    assert_eq!(kept.value, Some("v".into()));
    assert_eq!(nodes[0].writes().len(), 1);
    let gone = client.update("k", |_| None::<Bytes>).await.unwrap();
    assert_eq!(gone.value, None);
    assert!(matches!(client.get("k").await.unwrap(), Read::Deleted { .. }));
}
