//! The laws of causality, by property: over random histories of real replicas that write, read and
//! exchange state, so that contexts are what servers hand out and nothing else.

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    time::HybridTime,
    version::{ConflictRule, Content, MAX_ABSORBED, Value, Version, Versions, WriteId},
};
use proptest::prelude::*;

const REPLICAS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// A write at a replica, with the context that was read at another one some steps ago, if any.
    Write { at: usize, read: Option<usize>, tombstone: bool, clock_ms: u64 },
    /// A client reads and keeps the context.
    Read { at: usize },
    /// One replica's state is merged into another's.
    Exchange { from: usize, to: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let replica = 0..REPLICAS;
    prop_oneof![
        (replica.clone(), proptest::option::of(0..8usize), any::<bool>(), 0..50u64).prop_map(
            |(at, read, tombstone, clock_ms)| Step::Write { at, read, tombstone, clock_ms }
        ),
        replica.clone().prop_map(|at| Step::Read { at }),
        (replica.clone(), replica).prop_map(|(from, to)| Step::Exchange { from, to }),
    ]
}

/// One write: what was there, with what context it came, and what was there afterwards.
struct Written {
    before: Versions,
    context: Context,
    dot: Dot,
    after: Versions,
}

/// Runs a history; gives every state that any replica was ever in, and every write.
fn run(steps: &[Step], rule: ConflictRule) -> (Vec<Versions>, Vec<Written>) {
    let mut replicas = vec![Versions::new(); REPLICAS];
    let mut contexts = Vec::new();
    let mut states = vec![Versions::new()];
    let mut writes = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Write { at, read, tombstone, clock_ms } => {
                let context = read
                    .and_then(|back| contexts.iter().rev().nth(back).cloned())
                    .unwrap_or_default();
                let before = replicas[at].clone();
                let version = mint(&before, at, &context, number, tombstone, clock_ms, rule);
                let dot = version.dot;
                replicas[at].merge(version.into(), rule);
                writes.push(Written { before, context, dot, after: replicas[at].clone() });
                states.push(replicas[at].clone());
            }
            Step::Read { at } => contexts.push(replicas[at].context()),
            Step::Exchange { from, to } => {
                let versions = replicas[from].clone();
                replicas[to].merge(versions, rule);
                states.push(replicas[to].clone());
            }
        }
    }
    (states, writes)
}

fn mint(
    held: &Versions,
    at: usize,
    context: &Context,
    number: usize,
    tombstone: bool,
    clock_ms: u64,
    rule: ConflictRule,
) -> Version {
    let incarnation = Incarnation(at as u64 + 1);
    let newborn = (ActorId { incarnation, birth: number as u64 }, 0);
    let ((actor, count), past) = match rule {
        ConflictRule::Siblings => (held.issued_by(incarnation).unwrap_or(newborn), context.clone()),
        ConflictRule::Lww => (newborn, Context::new()),
    };
    Version {
        dot: Dot { actor, counter: count + 1 },
        past,
        write_id: WriteId(number as u128),
        time: HybridTime::after(held.latest(), clock_ms),
        expires_ms: None,
        trace_id: None,
        absorbed: held.absorbed_by(context),
        content: if tombstone {
            Content::Tombstone
        } else {
            Content::Value(Value::new(number.to_string()).expect("short"))
        },
    }
}

fn joined(left: &Versions, right: &Versions, rule: ConflictRule) -> Versions {
    let mut joined = left.clone();
    joined.merge(right.clone(), rule);
    joined
}

fn rule() -> impl Strategy<Value = ConflictRule> {
    prop_oneof![Just(ConflictRule::Siblings), Just(ConflictRule::Lww)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn merging_is_a_join(
        steps in proptest::collection::vec(step(), 1..40),
        rule in rule(),
        picks in any::<[prop::sample::Index; 3]>(),
    ) {
        let (states, _) = run(&steps, rule);
        let [a, b, c] = picks.map(|pick| pick.get(&states).clone());
        prop_assert_eq!(joined(&a, &b, rule), joined(&b, &a, rule));
        prop_assert_eq!(joined(&joined(&a, &b, rule), &c, rule), joined(&a, &joined(&b, &c, rule), rule));
        prop_assert_eq!(joined(&a, &a, rule), a.clone());
        let both = joined(&a, &b, rule);
        prop_assert_eq!(joined(&both, &a, rule), both);
    }

    #[test]
    fn a_write_removes_exactly_what_its_context_covers(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let (_, writes) = run(&steps, ConflictRule::Siblings);
        for Written { before, context, dot, after } in writes {
            let kept: Vec<_> = before.iter().filter(|v| !context.covers(v.dot)).map(|v| v.dot).collect();
            let left: Vec<_> = after.iter().map(|v| v.dot).filter(|d| *d != dot).collect();
            prop_assert_eq!(kept, left);
            prop_assert!(after.iter().any(|v| v.dot == dot));
        }
    }

    #[test]
    fn nothing_vanishes_but_into_a_past(steps in proptest::collection::vec(step(), 1..40)) {
        let (states, writes) = run(&steps, ConflictRule::Siblings);
        let everything = states.iter().fold(Versions::new(), |all, state| {
            joined(&all, state, ConflictRule::Siblings)
        });
        let context = everything.context();
        for Written { dot, .. } in writes {
            let there = everything.iter().any(|v| v.dot == dot);
            let replaced = everything.iter().any(|v| v.past.covers(dot));
            prop_assert!(there != replaced, "{:?}: there {}, replaced {}", dot, there, replaced);
            prop_assert!(context.covers(dot));
        }
    }

    #[test]
    fn the_later_of_two_ordered_lww_writes_stays(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let (_, writes) = run(&steps, ConflictRule::Lww);
        for Written { before, dot, after, .. } in writes {
            prop_assert_eq!(after.len(), 1);
            prop_assert!(after.iter().all(|v| v.dot == dot));
            prop_assert!(after.latest() > before.latest());
        }
    }

    #[test]
    fn equal_sets_have_equal_digests_and_no_others(
        steps in proptest::collection::vec(step(), 1..40),
        rule in rule(),
    ) {
        let (states, _) = run(&steps, rule);
        for left in &states {
            for right in &states {
                prop_assert_eq!(left == right, left.digest() == right.digest());
            }
        }
    }

    #[test]
    fn a_context_is_an_exact_set(
        dots in proptest::collection::vec((0..3u64, 1..12u64), 0..30),
        more in proptest::collection::vec((0..3u64, 1..12u64), 0..30),
    ) {
        let dot = |&(birth, counter): &(u64, u64)| Dot {
            actor: ActorId { incarnation: Incarnation(7), birth },
            counter,
        };
        let mut context: Context = dots.iter().map(dot).collect();
        let other: Context = more.iter().map(dot).collect();
        context.merge(&other);
        for birth in 0..3 {
            for counter in 1..13 {
                let there = dots.contains(&(birth, counter)) || more.contains(&(birth, counter));
                prop_assert_eq!(context.covers(dot(&(birth, counter))), there);
            }
        }
        let at_once: Context = dots.iter().chain(&more).map(dot).collect();
        prop_assert_eq!(&context, &at_once, "one set has one form");
        let bytes = anello_protocol::codec::encode(&context);
        prop_assert_eq!(anello_protocol::codec::decode::<Context>(&bytes).expect("our own"), context);
    }
}

fn version(birth: u64, counter: u64, write_id: u128, past: Context) -> Version {
    Version {
        dot: Dot { actor: ActorId { incarnation: Incarnation(birth), birth }, counter },
        past,
        write_id: WriteId(write_id),
        time: HybridTime::from_wall_ms(counter),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: Content::Tombstone,
    }
}

#[test]
fn a_retry_that_two_replicas_took_is_shown_once() {
    let mut versions = Versions::from(version(1, 1, 42, Context::new()));
    versions.merge(version(2, 1, 42, Context::new()).into(), ConflictRule::Siblings);
    assert_eq!(versions.len(), 2, "merging stays a join of dots");
    assert_eq!(versions.visible().len(), 1);
    assert!(versions.knows(WriteId(42)));
}

#[test]
fn a_retry_of_a_write_that_was_replaced_is_not_shown() {
    let first = Versions::from(version(1, 1, 42, Context::new()));
    let mut second = version(1, 2, 43, first.context());
    second.absorbed = first.absorbed_by(&first.context());
    let mut versions = first.clone();
    versions.merge(second.into(), ConflictRule::Siblings);
    versions.merge(version(2, 1, 42, Context::new()).into(), ConflictRule::Siblings);
    let shown: Vec<_> = versions.visible().iter().map(|version| version.write_id).collect();
    assert_eq!(shown, [WriteId(43)]);
    assert!(versions.context().covers(version(2, 1, 0, Context::new()).dot));
}

#[test]
fn what_a_version_remembers_of_others_is_bounded() {
    let mut held = Versions::new();
    for number in 1..40 {
        let context = held.context();
        let mut next = version(1, number, number.into(), context.clone());
        next.absorbed = held.absorbed_by(&context);
        held.merge(next.into(), ConflictRule::Siblings);
    }
    let absorbed = &held.iter().next().expect("one version").absorbed;
    assert_eq!(absorbed.len(), MAX_ABSORBED);
    assert_eq!(absorbed[0], WriteId(38), "the latest is remembered");
}
