use super::*;
use crate::config::Timing;

fn node(number: usize) -> NodeId {
    NodeId::new(&format!("n{number:04}")).expect("a good name")
}

fn heartbeats(me: usize, members: usize) -> Heartbeats {
    let mut heartbeats = Heartbeats::new(node(me), 1, "1.0".into(), Timing::lan().detector);
    let members: Vec<NodeId> = (0..members).map(node).collect();
    heartbeats.set_members(at(0), members.iter());
    heartbeats.beat(at(0), Epoch(1));
    heartbeats
}

fn at(ms: u64) -> Moment {
    Moment(ms * 1_000)
}

/// One exchange: digest, delta, delta.
fn exchange(now: Moment, from: &mut Heartbeats, to: &mut Heartbeats) -> Vec<Verdict> {
    let mut verdicts = vec![];
    let GossipBody::Digest { pulse, heard } = from.digest() else { panic!("a digest") };
    let (one, other) = (from.own().beat.node.clone(), to.own().beat.node.clone());
    verdicts.extend(to.hear(now, &pulse, &one));
    let GossipBody::Delta { pulses, wanted, .. } = to.delta(&pulse, &heard) else {
        panic!("a delta")
    };
    for pulse in pulses {
        verdicts.extend(from.answered(now, &other, &pulse.beat));
        verdicts.extend(from.hear(now, &pulse, &other));
    }
    let GossipBody::Delta { pulses, .. } = from.wanted(&wanted) else { panic!("a delta") };
    for pulse in pulses {
        verdicts.extend(to.hear(now, &pulse, &one));
    }
    verdicts
}

#[test]
fn news_travels_through_others() {
    let (mut a, mut b, mut c) = (heartbeats(0, 3), heartbeats(1, 3), heartbeats(2, 3));
    exchange(at(0), &mut a, &mut b);
    assert!(a.is_reachable(&node(1)) && b.is_reachable(&node(0)));
    exchange(at(100), &mut b, &mut c);
    assert!(!c.is_reachable(&node(0)), "the first word of a node may be an old one");
    a.beat(at(0), Epoch(1));
    exchange(at(250), &mut a, &mut b);
    let verdicts = exchange(at(300), &mut b, &mut c);
    assert_eq!(verdicts.len(), 1);
    assert!(c.is_reachable(&node(0)), "its heart has beaten since");
}

#[test]
fn the_silent_are_suspected_once_and_the_returned_are_back_at_once() {
    let (mut a, mut b) = (heartbeats(0, 2), heartbeats(1, 2));
    for n in 0..40 {
        a.beat(at(0), Epoch(1));
        exchange(at(n * 250), &mut a, &mut b);
    }
    assert_eq!(b.suspect(at(11_000)), vec![]);
    let verdicts = b.suspect(at(14_000));
    assert!(verdicts.len() == 1 && !verdicts[0].reachable, "{verdicts:?}");
    assert_eq!(b.suspect(at(15_000)), vec![]);
    let mut again = heartbeats(0, 2);
    again.renew(2);
    again.beat(at(0), Epoch(1));
    assert!(
        exchange(at(16_000), &mut again, &mut b).iter().any(|v| v.node == node(0) && v.reachable)
    );
}

#[test]
fn who_was_never_heard_of_is_unreachable_after_a_while() {
    let mut a = heartbeats(0, 3);
    assert_eq!(a.suspect(at(500)), vec![], "it may be about to speak");
    let mut b = heartbeats(1, 3);
    exchange(at(600), &mut b, &mut a);
    b.beat(at(0), Epoch(1));
    exchange(at(4_000), &mut b, &mut a);
    let verdicts = a.suspect(at(5_000));
    assert!(matches!(&verdicts[..], [v] if v.node == node(2) && !v.reachable), "{verdicts:?}");
    assert_eq!(a.suspect(at(5_100)), vec![]);
    let mut c = heartbeats(2, 3);
    c.beat(at(0), Epoch(1));
    assert!(exchange(at(6_000), &mut c, &mut a).iter().any(|v| v.node == node(2)));
    assert!(a.is_reachable(&node(2)));
}

#[test]
fn who_is_waited_for_no_longer_is_unreachable_until_it_speaks() {
    let (mut a, mut b) = (heartbeats(0, 3), heartbeats(1, 3));
    exchange(at(100), &mut b, &mut a);
    let verdicts = a.miss();
    assert!(matches!(&verdicts[..], [v] if v.node == node(2) && !v.reachable), "{verdicts:?}");
    assert_eq!((a.miss(), a.suspect(at(500))), (vec![], vec![]), "it is said once");
    let mut c = heartbeats(2, 3);
    let verdicts = exchange(at(600), &mut c, &mut a);
    assert!(verdicts.iter().any(|v| v.node == node(2) && v.reachable), "{verdicts:?}");
}

#[test]
fn who_says_that_it_goes_is_unreachable_at_once_and_old_news_change_nothing() {
    let (mut a, mut b) = (heartbeats(0, 2), heartbeats(1, 2));
    exchange(at(0), &mut a, &mut b);
    let old = a.own().clone();
    a.leave();
    let verdict = b.hear(at(10), &a.own().clone(), &node(0)).expect("a verdict");
    assert!(!verdict.reachable);
    assert_eq!(b.hear(at(20), &old, &node(0)), None);
    assert!(!b.is_reachable(&node(0)));
}

#[test]
fn a_node_that_lost_count_learns_it() {
    let (mut a, mut b) = (heartbeats(0, 2), heartbeats(1, 2));
    a.renew(7);
    a.beat(at(0), Epoch(1));
    exchange(at(0), &mut a, &mut b);
    let mut again = heartbeats(0, 2);
    let GossipBody::Digest { heard, .. } = b.digest() else { panic!("a digest") };
    assert_eq!(again.forgotten(&heard[1]), Some(8));
    again.renew(8);
    assert_eq!(again.forgotten(&heard[1]), None);
}

#[test]
fn strangers_have_no_heartbeat_and_a_large_cluster_is_covered_in_turns() {
    let mut a = heartbeats(0, 300);
    let mut stranger = heartbeats(999, 1);
    stranger.beat(at(0), Epoch(1));
    assert_eq!(a.hear(at(0), &stranger.own().clone(), &node(999)), None);
    let mut spoken_of = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let GossipBody::Digest { heard, .. } = a.digest() else { panic!("a digest") };
        assert!(heard.len() <= MAX_BEATS);
        spoken_of.extend(heard.into_iter().map(|beat| beat.node));
    }
    assert_eq!(spoken_of.len(), 300, "all of them, the node itself included");
}

#[test]
fn however_large_the_cluster_every_member_is_spoken_of_every_other_round() {
    for (members, partners) in [(2, 3), (6, 3), (300, 3), (1_000, 8)] {
        let mut a = heartbeats(0, members);
        assert_eq!(a.partners(3), partners, "{members} members");
        let mut spoken_of = std::collections::BTreeSet::new();
        for _ in 0..2 * partners {
            let GossipBody::Digest { heard, .. } = a.digest() else { panic!("a digest") };
            spoken_of.extend(heard.into_iter().map(|beat| beat.node));
        }
        assert_eq!(spoken_of.len(), members);
    }
}

#[test]
fn among_many_the_first_word_of_a_node_may_take_a_while() {
    for (members, ms) in [(3, 3_500), (1_000, 6_000)] {
        let mut a = heartbeats(0, members);
        let given_up = |a: &mut Heartbeats, ms| a.suspect(at(ms)).len();
        assert_eq!(given_up(&mut a, ms - 1_500), 0, "{members} members");
        assert_eq!(given_up(&mut a, ms), members - 1);
    }
}
