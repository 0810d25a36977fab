//! Which node to ask for a key.
//!
//! Pure: told the time and the dice. The order: the key's replicas in the client's datacenter, its
//! replicas elsewhere, any other member (nearest first), the seeds. Within a group the dice decide, in
//! favour of those that cost least by [`HealthBook`]. A node that this operation has tried already comes
//! again only when all have been.

use std::{fmt, sync::Arc, time::Instant};

use anello_protocol::id::NodeId;

use crate::health::{HealthBook, Standing};

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    /// A member, by its name.
    Node(NodeId),
    /// An address at which somebody answers; who, shows then.
    Seed(Arc<str>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Seed(address) => f.write_str(address),
        }
    }
}

/// Whom there is to ask, in groups from the best to the last resort.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates<'a> {
    /// The key's replicas: near ones, far ones.
    pub(crate) replicas: [Vec<Target>; 2],
    /// All members, those replicas again among them: near ones, far ones.
    pub(crate) members: [&'a [Target]; 2],
    /// Asked only when no member is left.
    pub(crate) seeds: &'a [Target],
}

/// What is known of those that can be asked.
pub(crate) struct Prospects<'a> {
    /// How they have done.
    pub(crate) health: &'a HealthBook,
    /// Whether there is a connection to a member at the moment.
    pub(crate) connected: &'a dyn Fn(&Target) -> bool,
    /// The time.
    pub(crate) now: Instant,
}

impl Prospects<'_> {
    /// A member that would have to be connected to first is as good as one that has failed: it may
    /// be dead, and those that are connected are not.
    fn standing(&self, member: &Target) -> Standing {
        match self.health.standing(member, self.now) {
            Standing::Good { .. } if !(self.connected)(member) => Standing::Down(self.now),
            standing => standing,
        }
    }
}

/// Whom to ask, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Whom.
    pub(crate) target: Target,
    /// Not before then: it asked to be left alone, and there is nobody better.
    pub(crate) not_before: Option<Instant>,
}

/// Chooses whom to ask. `tried` holds whom this operation has asked; it is emptied when all have been.
/// None only if there is nobody at all.
pub(crate) fn choose(
    candidates: &Candidates<'_>,
    tried: &mut Vec<Target>,
    prospects: &Prospects<'_>,
    mut dice: impl FnMut() -> f64,
) -> Option<Choice> {
    if let Some(choice) = choose_untried(candidates, tried, prospects, &mut dice) {
        return Some(choice);
    }
    tried.clear();
    choose_untried(candidates, tried, prospects, &mut dice)
}

fn choose_untried(
    candidates: &Candidates<'_>,
    tried: &[Target],
    prospects: &Prospects<'_>,
    dice: &mut impl FnMut() -> f64,
) -> Option<Choice> {
    let mut soonest_down: Option<(Instant, &Target)> = None;
    let mut soonest_free: Option<(Instant, &Target)> = None;
    let at_once = |target: &Target| Some(Choice { target: target.clone(), not_before: None });
    let replicas = candidates.replicas.iter().map(Vec::as_slice);
    for group in replicas.chain(candidates.members) {
        let mut good = Vec::with_capacity(group.len().min(16));
        for target in group {
            let untried = !tried.contains(target);
            match prospects.standing(target) {
                Standing::Good { cost } if untried => good.push((weight(cost), target)),
                Standing::Down(until) if untried => earlier(&mut soonest_down, until, target),
                // To wait for one that asked for it beats the seeds, even if it was asked before.
                Standing::Busy(until) => earlier(&mut soonest_free, until, target),
                Standing::Good { .. } | Standing::Down(_) => {}
            }
        }
        if let Some(target) = draw(&good, dice) {
            return at_once(target);
        }
    }
    // Those that failed lately may be back; to find out costs less than to wait.
    if let Some((_, target)) = soonest_down {
        return at_once(target);
    }
    if let Some((until, target)) = soonest_free {
        return Some(Choice { target: target.clone(), not_before: Some(until) });
    }
    choose_seed(candidates.seeds, tried, prospects, dice)
}

/// How likely a node is drawn: at twice the cost a quarter as likely. So equal nodes share the load,
/// noise in what was measured shifts it a little, and a node that is much slower gets next to nothing.
fn weight(cost: f64) -> f64 {
    (cost * cost).recip()
}

fn draw<'a>(weighted: &[(f64, &'a Target)], dice: &mut impl FnMut() -> f64) -> Option<&'a Target> {
    let (_, last) = weighted.last()?;
    let total: f64 = weighted.iter().map(|(weight, _)| weight).sum();
    let mut left = total * dice();
    let drawn = weighted.iter().find(|(weight, _)| {
        left -= weight;
        left < 0.0
    });
    Some(drawn.map_or(last, |(_, target)| target))
}

fn choose_seed(
    seeds: &[Target],
    tried: &[Target],
    prospects: &Prospects<'_>,
    dice: &mut impl FnMut() -> f64,
) -> Option<Choice> {
    let rank = |target: &Target| match prospects.health.standing(target, prospects.now) {
        Standing::Good { .. } => (0, prospects.now),
        Standing::Down(until) => (1, until),
        Standing::Busy(until) => (2, until),
    };
    let untried: Vec<_> = seeds.iter().filter(|target| !tried.contains(target)).collect();
    let best = untried.iter().map(|target| rank(target)).min()?;
    let equals: Vec<_> = untried.into_iter().filter(|target| rank(target) == best).collect();
    let at = (dice() * equals.len() as f64) as usize;
    let target = equals.get(at).or(equals.last()).copied()?;
    let not_before = (best.0 == 2).then_some(best.1);
    Some(Choice { target: target.clone(), not_before })
}

fn earlier<'a>(soonest: &mut Option<(Instant, &'a Target)>, until: Instant, target: &'a Target) {
    if soonest.is_none_or(|(other, _)| until < other) {
        *soonest = Some((until, target));
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::health::Ended;

    fn nodes(prefix: &str, count: usize) -> Vec<Target> {
        let name = |at| NodeId::new(&format!("{prefix}-{at}")).unwrap();
        (0..count).map(|at| Target::Node(name(at))).collect()
    }

    fn seeds(count: usize) -> Vec<Target> {
        (0..count).map(|at| Target::Seed(format!("seed-{at}").into())).collect()
    }

    struct World {
        groups: [Vec<Target>; 4],
        seeds: Vec<Target>,
    }

    impl World {
        fn new(sizes: [usize; 4], seed_count: usize) -> Self {
            let [a, b, c, d] = sizes;
            let groups = [nodes("near", a), nodes("far", b), nodes("here", c), nodes("there", d)];
            Self { groups, seeds: seeds(seed_count) }
        }

        fn choose(
            &self,
            tried: &mut Vec<Target>,
            health: &HealthBook,
            now: Instant,
            dice: impl FnMut() -> f64,
        ) -> Option<Choice> {
            let prospects = Prospects { health, connected: &|_| true, now };
            choose(&self.candidates(), tried, &prospects, dice)
        }

        fn candidates(&self) -> Candidates<'_> {
            let [near, far, here, there] = &self.groups;
            let replicas = [near.clone(), far.clone()];
            Candidates { replicas, members: [here, there], seeds: &self.seeds }
        }
    }

    fn fail(health: &mut HealthBook, target: &Target, now: Instant) {
        health.began(target, now);
        health.ended(target, now, Ended::Failed, now);
    }

    #[test]
    fn near_replicas_first_then_on_and_on() {
        let world = World::new([2, 1, 1, 1], 1);
        let mut health = HealthBook::default();
        let now = Instant::now();
        let mut groups = Vec::new();
        for _ in 0..6 {
            let choice = world.choose(&mut vec![], &health, now, || 0.5).unwrap();
            groups.push(match &choice.target {
                Target::Node(id) => id.as_str().rsplit_once('-').unwrap().0.to_owned(),
                Target::Seed(_) => "seed".to_owned(),
            });
            fail(&mut health, &choice.target, now);
        }
        // With all members down it tries them again before it turns to the seeds.
        assert_eq!(groups[..5], ["near", "near", "far", "here", "there"]);
        assert_ne!(groups[5], "seed");
    }

    #[test]
    fn the_seeds_are_asked_when_all_members_have_been() {
        let world = World::new([1, 0, 1, 0], 2);
        let mut tried = nodes("near", 1);
        tried.extend(nodes("here", 1));
        let health = HealthBook::default();
        let now = Instant::now();
        let choice = world.choose(&mut tried, &health, now, || 0.99).unwrap();
        assert_eq!(choice.target, Target::Seed("seed-1".into()));
    }

    #[test]
    fn those_that_are_connected_come_first() {
        let world = World::new([2, 1, 0, 0], 1);
        let (health, now) = (HealthBook::default(), Instant::now());
        let choose = |connected: &dyn Fn(&Target) -> bool| {
            let prospects = Prospects { health: &health, connected, now };
            choose(&world.candidates(), &mut vec![], &prospects, || 0.5).unwrap().target
        };
        let [near, far, ..] = &world.groups;
        assert_eq!(choose(&|target| *target == near[1]), near[1]);
        assert_eq!(choose(&|target| *target == far[0]), far[0]);
        assert_eq!(choose(&|_| false), near[0], "to connect beats asking a seed");
    }

    #[test]
    fn a_busy_node_is_asked_later_if_there_is_nobody_else() {
        let world = World::new([1, 0, 0, 0], 1);
        let now = Instant::now();
        let mut health = HealthBook::default();
        let target = &world.groups[0][0];
        health.began(target, now);
        let pause = Duration::from_millis(300);
        health.ended(target, now, Ended::Busy(pause), now);
        let choice = world.choose(&mut vec![], &health, now, || 0.5).unwrap();
        assert_eq!(choice, Choice { target: target.clone(), not_before: Some(now + pause) });
    }

    /// Numbers that are spread evenly however many are taken: multiples of the golden ratio.
    fn even_dice() -> impl FnMut() -> f64 {
        let mut at = 0.0;
        move || {
            at = (at + 0.618_033_988_749_895_f64).fract();
            at
        }
    }

    #[test]
    fn equal_nodes_share_the_load() {
        let world = World::new([3, 0, 0, 0], 0);
        let mut health = HealthBook::default();
        let now = Instant::now();
        let mut dice = even_dice();
        for _ in 0..300 {
            let choice = world.choose(&mut vec![], &health, now, &mut dice);
            health.began(&choice.unwrap().target, now);
        }
        for target in &world.groups[0] {
            let Standing::Good { cost } = health.standing(target, now) else {
                panic!("it is good")
            };
            assert!((90.0..115.0).contains(&(cost / 0.000_5)), "{target:?}: {cost}");
        }
    }

    #[test]
    fn a_much_slower_node_gets_next_to_nothing() {
        let world = World::new([2, 0, 0, 0], 0);
        let mut health = HealthBook::default();
        let now = Instant::now();
        for (target, ms) in world.groups[0].iter().zip([2, 60]) {
            for _ in 0..10 {
                health.began(target, now - Duration::from_millis(ms));
                health.ended(target, now - Duration::from_millis(ms), Ended::Answered, now);
            }
        }
        let mut dice = even_dice();
        let slow = (0..10_000).filter(|_| {
            let choice = world.choose(&mut vec![], &health, now, &mut dice);
            choice.unwrap().target == world.groups[0][1]
        });
        assert!((1..30).contains(&slow.count()));
    }

    #[test]
    fn a_busy_node_that_was_asked_is_waited_for_rather_than_asked_as_a_seed() {
        let world = World::new([1, 0, 1, 0], 1);
        let now = Instant::now();
        let mut health = HealthBook::default();
        let [busy, down] = [&world.groups[0][0], &world.groups[2][0]];
        health.began(busy, now);
        let pause = Duration::from_millis(300);
        health.ended(busy, now, Ended::Busy(pause), now);
        fail(&mut health, down, now);
        let mut tried = vec![busy.clone(), down.clone()];
        let choice = world.choose(&mut tried, &health, now, || 0.5).unwrap();
        assert_eq!(choice, Choice { target: busy.clone(), not_before: Some(now + pause) });
    }

    proptest! {
        #[test]
        fn everybody_is_tried_before_anybody_again(
            sizes in [0..4usize, 0..4usize, 0..4usize, 0..4usize],
            seed_count in 0..3usize,
            dice in 0.0..1.0f64,
            failing in any::<u16>(),
        ) {
            let world = World::new(sizes, seed_count);
            let total = sizes.iter().sum::<usize>() + seed_count;
            let now = Instant::now();
            let mut health = HealthBook::default();
            let all: Vec<_> = world.groups.iter().flatten().chain(&world.seeds).cloned().collect();
            for (at, target) in all.iter().enumerate() {
                if failing & (1 << at) != 0 {
                    fail(&mut health, target, now);
                }
            }
            let mut tried = Vec::new();
            for round in 0..2 {
                let mut seen = BTreeSet::new();
                for _ in 0..total {
                    let choice = world.choose(&mut tried, &health, now, || dice);
                    let choice = choice.expect("there is somebody");
                    prop_assert!(seen.insert(choice.target.clone()), "round {}", round);
                    tried.push(choice.target);
                }
            }
            if total == 0 {
                prop_assert!(world.choose(&mut tried, &health, now, || dice).is_none());
            }
        }

        #[test]
        fn a_good_near_replica_wins(
            sizes in [1..4usize, 0..4usize, 0..4usize, 0..4usize],
            failing in any::<u16>(),
            dice in 0.0..1.0f64,
        ) {
            let world = World::new(sizes, 2);
            let now = Instant::now();
            let mut health = HealthBook::default();
            let all: Vec<_> = world.groups.iter().flatten().cloned().collect();
            for (at, target) in all.iter().enumerate() {
                if failing & (1 << at) != 0 {
                    fail(&mut health, target, now);
                }
            }
            let good = |target: &Target| matches!(health.standing(target, now), Standing::Good { .. });
            let choice = world.choose(&mut vec![], &health, now, || dice).unwrap();
            let best = world.groups.iter().find(|group| group.iter().any(good));
            if let Some(best) = best {
                prop_assert!(best.contains(&choice.target) && good(&choice.target));
            }
        }
    }
}
