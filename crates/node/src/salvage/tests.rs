use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use anello_protocol::{
    cluster::{ClusterState, Member, MemberState},
    id::{ClusterName, Datacenter, Rack},
    message::replica::Stored,
    time::HybridTime,
    version::Version,
};
use anello_transport::Call;

use super::*;
use crate::{
    config::Durability,
    rocks::tests::{disk, key, open, versions, write},
};

const WRECK: &str = "db.damaged-1";
const ENTRIES: u64 = 64;

fn member(name: &str) -> Member {
    Member {
        id: NodeId::new(name).expect("a name"),
        datacenter: Datacenter::new("eu").expect("a name"),
        rack: Rack::new("r1").expect("a name"),
        weight: 1.0,
        quic: format!("{name}:1"),
        http: format!("{name}:2"),
        state: MemberState::Up,
    }
}

/// A view in which each of these nodes is a replica of everything.
fn view(names: &[&str]) -> Arc<View> {
    let name = ClusterName::new("test").expect("a name");
    let mut state = ClusterState::founded(name, 256, member(names[0]));
    state.members.extend(names.iter().map(|name| (member(name).id, member(name))));
    Arc::new(View::of(Arc::new(state)).expect("a ring"))
}

/// A node whose vnodes take everything in, and count it.
struct Fixture {
    dir: tempfile::TempDir,
    store: Arc<Mutex<Option<Arc<RocksStore>>>>,
    taken: Arc<AtomicU64>,
}

impl Fixture {
    /// One with a damaged store to be salvaged.
    fn new(damage_log: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(WRECK);
        let wreck = RocksStore::open(&path, Durability::Sync, 256).expect("opens");
        for number in 0..ENTRIES {
            write(&wreck, &key(1, number), versions(number, 8_000));
        }
        drop(wreck);
        if damage_log {
            disk::damage(&disk::largest(&path, "log"), 1, 2);
        }
        assert_eq!(Wreck::open(&path).expect("opens").is_whole(), !damage_log);
        let store = Arc::new(Mutex::new(Some(open(&dir))));
        Self { dir, store, taken: Arc::default() }
    }

    fn salvage(&self, members: &[&str], ends_meanwhile: bool) -> Salvage {
        let (store, taken) = (Arc::clone(&self.store), Arc::clone(&self.taken));
        let vnodes = ActorRef::function(move |call: Call<StoreVersions>| {
            taken.fetch_add(1, Ordering::Relaxed);
            if ends_meanwhile {
                drop(store.lock().expect("not poisoned").take());
            }
            call.reply.send(Ok(Stored { lost_to: None, is_quarantined: false }));
            Ok(())
        });
        let store = self.store.lock().expect("not poisoned");
        Salvage {
            node: member("n-1").id,
            data_dir: self.dir.path().into(),
            store: Arc::downgrade(store.as_ref().expect("it is open")),
            vnodes,
            views: watch::channel(Some(view(members))).1,
        }
    }

    /// Whether it was all done, and how many keys were handed over.
    fn run(&self, members: &[&str], ends_meanwhile: bool) -> (bool, u64) {
        let salvage = self.salvage(members, ends_meanwhile);
        let replacement = Replacement { damaged: vec![WRECK.into()], lost_membership: false };
        let is_done = actix::System::new().block_on(salvage.run(replacement));
        (is_done, self.taken.load(Ordering::Relaxed))
    }
}

#[test]
fn it_is_done_once_that_is_durable() {
    let fixture = Fixture::new(false);
    assert_eq!(fixture.run(&["n-1", "n-2", "n-3"], false), (true, ENTRIES));
    drop(fixture.store.lock().expect("not poisoned").take());
    let replacement = open(&fixture.dir).replacement().expect("read").expect("noted");
    assert_eq!(replacement.damaged, Vec::<String>::new());
}

/// The next start hands it over again: until then the others must not forget what was deleted.
#[test]
fn it_is_not_done_if_that_could_not_be_noted() {
    let fixture = Fixture::new(false);
    assert!(!fixture.run(&["n-1", "n-2", "n-3"], true).0);
}

/// All of it is from 1970.
#[test]
fn what_may_have_been_forgotten_is_not_brought_back_from_behind_a_damaged_log() {
    let fixture = Fixture::new(true);
    assert_eq!(fixture.run(&["n-1", "n-2", "n-3"], false), (true, 0));
    assert!(fixture.dir.path().join(WRECK).exists(), "it is still in there");
}

#[test]
fn the_sole_replica_brings_back_all_that_it_has() {
    let (is_done, taken) = Fixture::new(true).run(&["n-1"], false);
    assert!(is_done && (1..ENTRIES).contains(&taken), "{taken}");
}

#[test]
fn only_what_is_younger_than_the_grace_can_not_have_been_forgotten() {
    let fixture = Fixture::new(false);
    let view = view(&["n-1", "n-2", "n-3"]);
    let grace = view.keyspace_of(key(1, 1).keyspace).expect("it is there").config.tombstone_grace_s;
    let salvage = fixture.salvage(&["n-1", "n-2", "n-3"], false);
    for (age_s, is_whole, is_offered) in [
        (grace - 60, false, true),
        (grace + 60, false, false),
        (grace + 60, true, true),
        (0, false, true),
    ] {
        let written = wall_clock() - Duration::from_secs(age_s);
        let time = HybridTime::from_wall_ms(written.as_millis() as u64);
        let version = versions(1, 10).into_iter().map(|version| Version { time, ..version });
        let versions = Versions::from(version.last().expect("there is one"));
        let fate = salvage.fate(&view, &key(1, 1), &versions, is_whole);
        let found = matches!(fate, Fate::Offered(_));
        assert_eq!(found, is_offered, "{age_s} s old, of a whole one: {is_whole}");
    }
}
