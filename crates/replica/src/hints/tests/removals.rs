//! What is counted and what lets hints go: totals against pages, places in the order, age, and removals
//! that the shelf doesn't take.

use super::*;

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
        let mut begin = |world: &mut World| {
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
