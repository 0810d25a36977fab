//! What makes a change of the cluster state valid, and which data it would move.

use anello_protocol::version::ConflictRule;

use super::*;

fn member(id: &str, datacenter: &str) -> Member {
    Member {
        id: NodeId::new(id).expect("a good name"),
        datacenter: Datacenter::new(datacenter).expect("a good name"),
        rack: "a".parse().expect("a good name"),
        weight: 1.0,
        quic: format!("{id}:7400"),
        http: format!("{id}:7480"),
        state: MemberState::Up,
    }
}

fn decree() -> Decree {
    let founder = member("eu-1", "eu");
    let admitted = BTreeMap::from([(founder.id.clone(), 1)]);
    let state = ClusterState::founded("demo".parse().expect("a good name"), 8, founder);
    Decree { origin: 1, state, admitted }
}

fn apply(decree: &Decree, change: Change) -> Decree {
    change.apply(decree).expect("a valid change").expect("a change")
}

fn admit(decree: &Decree, members: &[Member]) -> Decree {
    let candidates = members.iter().map(|member| Candidate { member: member.clone(), birth: 2 });
    apply(decree, Change::Admit(candidates.collect()))
}

fn set(name: &str, config: &KeyspaceConfig) -> Change {
    let name = KeyspaceName::new(name).expect("a good name");
    Change::Keyspace(AlterKeyspace { name, change: KeyspaceChange::Set(config.clone()) })
}

fn drop_keyspace(name: &str) -> Change {
    let name = KeyspaceName::new(name).expect("a good name");
    Change::Keyspace(AlterKeyspace { name, change: KeyspaceChange::Drop })
}

fn replication(counts: &[(&str, u16)]) -> Replication {
    let counts = counts.iter().map(|(name, count)| (Datacenter::new(name).expect("good"), *count));
    Replication::PerDatacenter(counts.collect())
}

fn three_and_three() -> Decree {
    let others = ["eu-2", "eu-3"].map(|id| member(id, "eu"));
    let abroad = ["us-1", "us-2", "us-3"].map(|id| member(id, "us"));
    admit(&admit(&decree(), &others), &abroad)
}

#[test]
fn a_keyspace_keeps_its_id_for_life_and_gets_another_in_the_next() {
    let config = KeyspaceConfig::default();
    let created = apply(&decree(), set("k", &config));
    let id = |decree: &Decree| decree.state.keyspaces[&KeyspaceName::new("k").expect("good")].id;
    assert_eq!(id(&created), KeyspaceId(created.state.epoch.0));
    let altered =
        apply(&created, set("k", &KeyspaceConfig { tombstone_grace_s: 5, ..config.clone() }));
    assert_eq!(id(&altered), id(&created));
    let again = apply(&apply(&altered, drop_keyspace("k")), set("k", &config));
    assert_ne!(id(&again), id(&created));
}

#[test]
fn a_new_conflict_rule_begins_a_new_reign() {
    let config = KeyspaceConfig::default();
    let before = apply(&decree(), set("k", &config));
    let lww = KeyspaceConfig { conflict: ConflictRule::Lww, ..config };
    let after = apply(&before, set("k", &lww));
    let keyspace = &after.state.keyspaces[&KeyspaceName::new("k").expect("good")];
    assert_eq!(keyspace.ruled_since, after.state.epoch);
    assert_eq!(keyspace.id, KeyspaceId(before.state.epoch.0));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let decree = three_and_three();
    let good = KeyspaceConfig::default();
    let with = |replication| KeyspaceConfig { replication, ..good.clone() };
    let bad = [
        with(replication(&[("asia", 3)])),
        with(replication(&[("eu", 17)])),
        with(replication(&[("eu", 0), ("us", 0)])),
        with(Replication::PerDatacenter(BTreeMap::new())),
        KeyspaceConfig { read: Consistency::EachQuorum, ..good.clone() },
        KeyspaceConfig { write: Consistency::Count(7), ..good.clone() },
        KeyspaceConfig { read: Consistency::Count(0), ..good.clone() },
        KeyspaceConfig { tombstone_grace_s: u64::MAX, ..good.clone() },
    ];
    for config in bad {
        let result = set("k", &config).apply(&decree);
        assert!(matches!(result, Err(AlterError::Invalid(_))), "{config:?}: {result:?}");
    }
    assert!(set("k", &with(replication(&[("eu", 16)]))).apply(&decree).is_ok());
    assert!(matches!(drop_keyspace("default").apply(&decree), Err(AlterError::Invalid(_))));
    assert!(matches!(drop_keyspace("k").apply(&decree), Err(AlterError::NoSuchKeyspace(_))));
}

#[test]
fn keyspaces_are_bounded() {
    let mut decree = decree();
    let template = decree.state.keyspaces[&KeyspaceName::default_keyspace()].clone();
    for number in 1..MAX_KEYSPACES {
        let name = KeyspaceName::new(&format!("k{number}")).expect("a good name");
        decree.state.keyspaces.insert(name, template.clone());
    }
    let one_more = set("one-more", &KeyspaceConfig::default()).apply(&decree);
    assert!(matches!(one_more, Err(AlterError::Invalid(_))));
}

#[test]
fn nothing_to_change_is_no_change() {
    let decree = decree();
    assert_eq!(set("default", &KeyspaceConfig::default()).apply(&decree), Ok(None));
    let known = Candidate { member: member("eu-1", "eu"), birth: 9 };
    assert_eq!(Change::Admit(vec![known]).apply(&decree), Ok(None));
}

#[test]
fn the_removed_are_not_taken_in() {
    let mut decree = decree();
    let gone = member("eu-9", "eu");
    decree.state.removed.insert(gone.id.clone());
    let candidate = Candidate { member: gone, birth: 2 };
    assert_eq!(Change::Admit(vec![candidate]).apply(&decree), Ok(None));
}

#[test]
fn only_what_changes_owners_moves_data() {
    let before = three_and_three();
    let default = KeyspaceName::default_keyspace();
    let id = before.state.keyspaces[&default].id;
    let moves = |change: Change| moved(&before.state, &apply(&before, change).state);
    let newcomer = Candidate { member: member("eu-4", "eu"), birth: 2 };
    assert_eq!(moves(Change::Admit(vec![newcomer])), BTreeSet::from([id]));
    let good = KeyspaceConfig::default();
    let fewer = KeyspaceConfig { replication: replication(&[("eu", 2)]), ..good.clone() };
    assert_eq!(moves(set("default", &fewer)), BTreeSet::from([id]));
    // Three of three nodes in each datacenter is what `auto` comes to as well.
    let same = KeyspaceConfig { replication: replication(&[("eu", 5), ("us", 3)]), ..good.clone() };
    assert_eq!(moves(set("default", &same)), BTreeSet::new());
    assert_eq!(moves(set("new", &good)), BTreeSet::new());
    let node = before.state.members.keys().next().expect("a member").clone();
    let there = Change::Readdress { node, quic: "new:1".into(), http: "new:2".into() };
    assert_eq!(moves(there), BTreeSet::new());
}
