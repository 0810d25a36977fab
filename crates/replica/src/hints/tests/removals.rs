//! What is counted and what lets hints go: totals against pages, places in the order, age, and removals
//! that the shelf doesn't take.

use super::{transcripts::minted, *};

/// A commit that ends between the reading of a page and its arrival.
#[test]
fn a_page_that_was_read_before_a_commit_says_nothing_about_it() {
    // The commit was under way when the page was asked for, or began after that.
    for is_before in [true, false] {
        let keys = keys_of("a", 2);
        let mut world = World::new();
        // The sweep, which reads pages too, has had its turn.
        world.input(Input::TimeUp);
        world.reach("a", true);
        // One that never came to the disk, so that there is something to look for.
        world.ask(store("a", &keys[0], version(1, &[], b"v")));
        world.read_one();
        let begin = |world: &mut World| {
            world.ask(store("a", &keys[1], version(2, &[], b"v")));
            assert!(matches!(world.reads.back(), Some(Effect::Load(..))));
            let load = world.reads.pop_back().expect("it is there");
            world.reads.push_front(load);
            world.read_one();
        };
        if is_before {
            begin(&mut world);
        }
        world.turn_clock(world.now.moment + Duration::from_secs(2));
        if !is_before {
            world.commit_one(CommitOutcome::Failed("the disk".into()), false);
            world.reads.clear();
            let (owner, key) = (node("a"), keys[0].clone());
            world.input(Input::Loaded { owner, key, found: Err("the disk".into()) });
        }
        world.input(Input::TimeUp);
        let Some(Effect::Page { page, owner, from, count, bytes }) = world.reads.pop_front() else {
            panic!("a run begins")
        };
        let found = world.shelf.page(&owner, from, count, bytes).expect("memory reads");
        assert_eq!(found, [], "nothing is durable when it is read");
        if !is_before {
            begin(&mut world);
        }
        while world.commit_one(CommitOutcome::Durable, true) {}
        world.input(Input::Paged(page, Ok(found)));
        assert!(world.count("a") >= 1, "what is durable is counted");
        assert!(world.is_kept(&keys[1]), "so nobody may purge it");
        assert_eq!(world.tell(read(&keys[1])), full(version(2, &[], b"v")), "readers see it");
        for _ in 0..10 {
            world.pass(500);
            world.deliver();
        }
        assert_eq!(world.holds("a", &keys[1]), version(2, &[], b"v"), "and its owner gets it");
        assert_eq!(
            world.count("a"),
            0,
            "what never came to the disk counts for nothing in the end"
        );
    }
}

#[test]
fn a_place_in_the_order_is_never_given_out_twice() {
    let keys = keys_of("a", 3);
    let mut world = World::new();
    let number = |world: &World| {
        let page = world.shelf.page(&node("a"), 0, 9, 1 << 20).expect("memory reads");
        page.last().expect("something is kept").1.number
    };
    world.tell(store("a", &keys[0], version(1, &[], b"v")));
    world.tell(store("a", &keys[1], version(2, &[], b"v")));
    assert_eq!(number(&world), 2);
    world.reach("a", true);
    world.pass(10);
    assert_eq!(world.deliver(), 2);
    // Nothing is left to be done for the owner, and nothing of it is remembered.
    world.view = view(2);
    world.input(Input::ClusterChanged(world.view.clone()));
    assert!(world.machine.owners.is_empty());
    world.view = view(1);
    let Request::Store(mut hint) = store("a", &keys[2], version(3, &[], b"v")) else {
        panic!("it is a store")
    };
    hint.store.epoch = Epoch(2);
    world.tell(Request::Store(hint));
    assert_eq!(number(&world), 3);
}

const HOUR_MS: u64 = 3600 * 1000;

fn counting(owner: &str, key: &DataKey, versions: Versions) -> Request {
    let Request::Store(hint) = store(owner, key, versions) else { panic!("it is a store") };
    Request::Store(StoreHint { counts: true, ..hint })
}

#[test]
fn a_hint_that_a_write_counts_never_gets_too_old() {
    let keys = keys_of("a", 5);
    let mut world = World::new();
    world.tell(store("a", &keys[0], version(1, &[], b"v")));
    world.tell(counting("a", &keys[1], version(2, &[], b"v")));
    minted(world.tell(mint("a", &keys[2], 3, &Context::new())));
    // Kept for nobody's sake first, and then counted: by another coordinator, with nothing new to join, and
    // by one whose write it stands for.
    world.tell(store("a", &keys[3], version(4, &[], b"v")));
    assert_eq!(world.tell(counting("a", &keys[3], version(4, &[], b"v"))), stored());
    world.tell(store("a", &keys[4], version(5, &[], b"v")));
    assert_eq!(minted(world.tell(mint("a", &keys[4], 5, &Context::new()))).write_id, WriteId(5));
    // What counted once does so after a write that doesn't.
    world.tell(store("a", &keys[1], version(6, &[], b"v")));
    world.pass(HOUR_MS);
    world.crash();
    world.pass(30 * HOUR_MS);
    let kept: Vec<_> = keys.iter().map(|key| world.is_kept(key)).collect();
    assert_eq!(kept, [false, true, true, true, true]);
    assert_eq!(world.machine.figures(world.now).dropped, 1);
    world.reach("a", true);
    world.pass(10);
    world.deliver();
    assert!(keys[1..].iter().all(|key| !world.holds("a", key).is_empty()), "they go to the owner");
    assert_eq!(world.count("a"), 0);
}

#[test]
fn age_is_counted_from_the_last_write() {
    let keys = keys_of("a", 3);
    let mut world = World::new();
    for (birth, key) in (1..).zip(&keys) {
        world.tell(store("a", key, version(birth, &[], b"v")));
    }
    world.pass(3 * HOUR_MS - 20_000);
    world.tell(store("a", &keys[0], version(8, &[], b"v")));
    // Nothing new is joined.
    world.tell(store("a", &keys[1], version(2, &[], b"v")));
    world.pass(HOUR_MS);
    let kept: Vec<_> = keys.iter().map(|key| world.is_kept(key)).collect();
    assert_eq!(kept, [true, false, false], "those behind a younger one go too");
    world.pass(3 * HOUR_MS);
    assert!(!world.is_kept(&keys[0]));
    assert_eq!(world.machine.figures(world.now).dropped, 3);
}

/// Between the page that shows an old hint and its removal.
#[test]
fn what_is_counted_or_grows_while_it_is_swept_stays() {
    let again = counting as fn(&str, &DataKey, Versions) -> Request;
    for (request, birth) in [(again, 1), (store, 2)] {
        let key = &keys_of("a", 1)[0];
        let mut world = World::new();
        world.tell(store("a", key, version(1, &[], b"v")));
        world.turn_clock(world.now.moment + Duration::from_millis(4 * HOUR_MS));
        world.input(Input::TimeUp);
        let Some(Effect::Page { page, owner, from, count, bytes }) = world.reads.pop_front() else {
            panic!("a sweep begins")
        };
        let found = world.shelf.page(&owner, from, count, bytes).expect("memory reads");
        assert_eq!(found.len(), 1, "it is old there");
        assert_eq!(world.tell(request("a", key, version(birth, &[], b"v"))), stored());
        world.input(Input::Paged(page, Ok(found)));
        world.disk();
        assert!(world.is_kept(key), "what was acknowledged is there");
        world.pass(HOUR_MS);
        assert!(world.is_kept(key));
    }
}

#[test]
fn a_wall_clock_that_jumps_makes_nothing_old() {
    let keys = keys_of("a", 2);
    let mut world = World::new();
    world.tell(store("a", &keys[0], version(1, &[], b"v")));
    world.now.wall_ms += 1000 * HOUR_MS;
    world.pass(HOUR_MS);
    world.tell(store("a", &keys[1], version(2, &[], b"v")));
    assert!(world.is_kept(&keys[0]));
    assert_eq!(world.machine.figures(world.now).owners[&node("a")].oldest_s, 3600);
    world.now.wall_ms -= 500 * HOUR_MS;
    world.pass(2 * HOUR_MS + 400_000);
    assert!(!world.is_kept(&keys[0]), "its age is past the bound by the moments");
    assert!(world.is_kept(&keys[1]));
}

/// A hint is sent again because its removal came to nothing: ever more seldom.
#[test]
fn a_removal_that_is_not_taken_is_not_tried_all_the_time() {
    let key = &keys_of("a", 1)[0];
    let mut world = World::new();
    world.tell(store("a", key, version(1, &[], b"v")));
    world.reach("a", true);
    let mut sent = Vec::new();
    for _ in 0..1_000 {
        world.pass(20);
        world.is_full = true;
        let stores = world.deliver();
        sent.extend(std::iter::repeat_n(world.now.moment, stores));
        world.is_full = false;
    }
    let pauses: Vec<_> = sent.windows(2).map(|two| two[1].since(two[0]).as_millis()).collect();
    assert!((8..=16).contains(&sent.len()), "in 20 s: {pauses:?}");
    assert!(pauses.is_sorted_by(|one, two| *one <= two + 40), "{pauses:?}");
    assert!(pauses.last() >= Some(&1_900), "{pauses:?}");
    world.pass(2_500);
    assert_eq!((world.deliver(), world.count("a")), (1, 0), "once the shelf takes it");
    assert_eq!(world.machine.figures(world.now).delivered, 1);
}
