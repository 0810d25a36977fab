//! Counting: how many replicas must answer a request, and whether enough have.
//!
//! A [`Requirement`] is a consistency level resolved against the replicas that a keyspace has; a
//! [`Tally`] counts towards it. Nothing here knows of nodes, messages or time.

use std::collections::BTreeMap;

use anello_protocol::{consistency::Consistency, id::Datacenter, message::client::RequestError};

/// What a request does: not every level makes sense for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// How many replicas must answer, and of which datacenters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// That many, of any datacenter.
    Total(u16),
    /// That many of each of these datacenters; of others none counts.
    PerDatacenter(Vec<(Datacenter, u16)>),
}

impl Requirement {
    /// What a level comes to with the given number of replicas in every datacenter that has some, at
    /// a coordinator in the datacenter `local`.
    pub fn resolve(
        side: Side,
        level: Consistency,
        replication: &BTreeMap<Datacenter, usize>,
        local: &Datacenter,
    ) -> Result<Self, RequestError> {
        let all = replication.values().sum::<usize>();
        if all == 0 {
            return Err(RequestError::Unavailable { required: 1, alive: 0 });
        }
        let total = |count: usize| Ok(Self::Total(as_u16(count)));
        let at_least = |count: usize| match count {
            0 => Err(RequestError::BadConsistency("at least 1 replica has to answer".into())),
            _ if count > all => Err(RequestError::BadConsistency(format!(
                "{} replicas must answer, but the keyspace has only {all}",
                count
            ))),
            _ => total(count),
        };
        let in_local = |needed: fn(usize) -> usize| match replication.get(local) {
            Some(&here) if here > 0 => {
                Ok(Self::PerDatacenter(vec![(local.clone(), as_u16(needed(here)))]))
            }
            _ => Err(RequestError::BadConsistency(format!(
                "{level} counts replicas in the coordinator's datacenter, {local}, where the \
                 keyspace has none; it has them in {}",
                listed(replication)
            ))),
        };
        match level {
            Consistency::One => total(1),
            Consistency::Two => at_least(2),
            Consistency::Three => at_least(3),
            Consistency::Quorum => total(majority(all)),
            Consistency::All => total(all),
            Consistency::Count(count) => at_least(count.into()),
            Consistency::LocalOne => in_local(|_| 1),
            Consistency::LocalQuorum => in_local(majority),
            Consistency::EachQuorum if side == Side::Read => {
                Err(RequestError::BadConsistency("each_quorum is for writes only".into()))
            }
            Consistency::EachQuorum => {
                let each = replication.iter().filter(|(_, replicas)| **replicas > 0);
                Ok(Self::PerDatacenter(
                    each.map(|(dc, replicas)| (dc.clone(), as_u16(majority(*replicas)))).collect(),
                ))
            }
        }
    }

    /// What a write's level asks of replicas that are written to beside those who are read: the same, as far
    /// as it makes sense for them. A count that they are too few for takes all of them, and where a level
    /// means a datacenter in which they have none, it means nothing.
    pub fn beside(
        level: Consistency,
        replication: &BTreeMap<Datacenter, usize>,
        local: &Datacenter,
    ) -> Option<Self> {
        let all = as_u16(replication.values().sum());
        let at_most = |count: u16| Consistency::Count(count.min(all));
        let level = match level {
            Consistency::Two => at_most(2),
            Consistency::Three => at_most(3),
            Consistency::Count(count) => at_most(count),
            level => level,
        };
        Self::resolve(Side::Write, level, replication, local).ok()
    }

    /// How many replicas must answer, over all datacenters.
    pub fn required(&self) -> u16 {
        match self {
            Self::Total(count) => *count,
            Self::PerDatacenter(counts) => counts.iter().map(|(_, count)| count).sum(),
        }
    }

    /// Whether an answer from this datacenter counts at all.
    pub fn counts(&self, datacenter: &Datacenter) -> bool {
        match self {
            Self::Total(_) => true,
            Self::PerDatacenter(counts) => counts.iter().any(|(dc, _)| dc == datacenter),
        }
    }
}

/// Which way a replica's part in a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TallyResult {
    /// It did what it was asked.
    Success,
    /// It did not, and won't.
    Failure,
}

/// A count of results towards a requirement.
#[derive(Clone, Debug)]
pub struct Tally {
    groups: Vec<Group>,
}

/// The replicas of one datacenter, or of all together.
#[derive(Clone, Debug)]
struct Group {
    datacenter: Option<Datacenter>,
    replicas: u16,
    required: u16,
    successes: u16,
    failures: u16,
}

impl Group {
    fn counts(&self, datacenter: &Datacenter) -> bool {
        self.datacenter.as_ref().is_none_or(|own| own == datacenter)
    }
}

impl Tally {
    /// Nothing counted yet, of the replicas that there are in each datacenter.
    pub fn new(requirement: &Requirement, replication: &BTreeMap<Datacenter, usize>) -> Self {
        let group = |datacenter: Option<&Datacenter>, replicas: usize, required| Group {
            datacenter: datacenter.cloned(),
            replicas: as_u16(replicas),
            required,
            successes: 0,
            failures: 0,
        };
        let groups = match requirement {
            Requirement::Total(required) => {
                vec![group(None, replication.values().sum(), *required)]
            }
            Requirement::PerDatacenter(counts) => counts
                .iter()
                .map(|(dc, required)| {
                    group(Some(dc), replication.get(dc).copied().unwrap_or(0), *required)
                })
                .collect(),
        };
        Self { groups }
    }

    /// Counts the result of one replica, once.
    pub fn add_result(&mut self, datacenter: &Datacenter, result: TallyResult) {
        for group in self.groups.iter_mut().filter(|group| group.counts(datacenter)) {
            match result {
                TallyResult::Success => group.successes += 1,
                TallyResult::Failure => group.failures += 1,
            }
        }
    }

    /// Whether enough have succeeded.
    pub fn enough(&self) -> bool {
        self.groups.iter().all(|group| group.successes >= group.required)
    }

    /// Whether enough can't succeed any more.
    pub fn impossible(&self) -> bool {
        self.groups.iter().any(|group| group.possible() < group.required)
    }

    /// How many more must succeed in the part of the replicas to which this datacenter belongs.
    pub fn missing(&self, datacenter: &Datacenter) -> u16 {
        let groups = self.groups.iter().filter(|group| group.counts(datacenter));
        groups.map(|group| group.required.saturating_sub(group.successes)).sum()
    }

    /// How many must succeed.
    pub fn required(&self) -> u16 {
        self.groups.iter().map(|group| group.required).sum()
    }

    /// How many have succeeded, of those that count: none counts beyond what its part requires.
    pub fn received(&self) -> u16 {
        self.groups.iter().map(|group| group.successes.min(group.required)).sum()
    }

    /// How many may succeed yet or have, of those that count, in the same way.
    pub fn possible(&self) -> u16 {
        self.groups.iter().map(|group| group.possible().min(group.required)).sum()
    }
}

impl Group {
    fn possible(&self) -> u16 {
        self.replicas.saturating_sub(self.failures)
    }
}

fn majority(of: usize) -> usize {
    of / 2 + 1
}

fn as_u16(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn listed(replication: &BTreeMap<Datacenter, usize>) -> String {
    let names = replication.iter().filter(|(_, replicas)| **replicas > 0);
    names.map(|(dc, replicas)| format!("{dc} ({replicas})")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dc(name: &str) -> Datacenter {
        Datacenter::new(name).expect("a good name")
    }

    fn two_by_three() -> BTreeMap<Datacenter, usize> {
        BTreeMap::from([(dc("eu"), 3), (dc("us"), 3)])
    }

    fn resolve(side: Side, level: Consistency) -> Result<Requirement, RequestError> {
        Requirement::resolve(side, level, &two_by_three(), &dc("eu"))
    }

    #[test]
    fn every_level_has_its_count() {
        use Consistency::*;
        let total = |count| Ok(Requirement::Total(count));
        let local = |count| Ok(Requirement::PerDatacenter(vec![(dc("eu"), count)]));
        for side in [Side::Read, Side::Write] {
            assert_eq!(resolve(side, One), total(1));
            assert_eq!(resolve(side, Two), total(2));
            assert_eq!(resolve(side, Three), total(3));
            assert_eq!(resolve(side, Quorum), total(4));
            assert_eq!(resolve(side, All), total(6));
            assert_eq!(resolve(side, Count(5)), total(5));
            assert_eq!(resolve(side, LocalOne), local(1));
            assert_eq!(resolve(side, LocalQuorum), local(2));
        }
        let each = Requirement::PerDatacenter(vec![(dc("eu"), 2), (dc("us"), 2)]);
        assert_eq!(resolve(Side::Write, EachQuorum), Ok(each));
    }

    #[test]
    fn what_can_never_be_met_is_a_bad_request() {
        let bad = |result: Result<Requirement, RequestError>, part: &str| match result {
            Err(RequestError::BadConsistency(sentence)) => {
                assert!(sentence.contains(part), "{sentence}");
            }
            other => panic!("{other:?}"),
        };
        bad(resolve(Side::Read, Consistency::Count(7)), "has only 6");
        bad(resolve(Side::Write, Consistency::Count(0)), "at least 1");
        bad(resolve(Side::Read, Consistency::EachQuorum), "writes only");
        let single = BTreeMap::from([(dc("eu"), 1)]);
        let at = |local: &str, level| {
            Requirement::resolve(Side::Write, level, &single, &dc(local)).map(|r| r.required())
        };
        assert_eq!(at("eu", Consistency::Quorum), Ok(1));
        assert_eq!(at("us", Consistency::Quorum), Ok(1));
        for level in [Consistency::Two, Consistency::Three] {
            assert!(matches!(at("eu", level), Err(RequestError::BadConsistency(_))));
        }
        // T29: a datacenter without replicas.
        for level in [Consistency::LocalOne, Consistency::LocalQuorum] {
            bad(Requirement::resolve(Side::Write, level, &single, &dc("us")), "it has them in eu");
        }
    }

    #[test]
    fn a_keyspace_without_replicas_is_unavailable() {
        let nowhere = BTreeMap::new();
        let result = Requirement::resolve(Side::Read, Consistency::One, &nowhere, &dc("eu"));
        assert_eq!(result, Err(RequestError::Unavailable { required: 1, alive: 0 }));
    }

    #[test]
    fn each_datacenter_has_to_come_to_its_own_quorum() {
        let requirement = resolve(Side::Write, Consistency::EachQuorum).expect("it resolves");
        let mut tally = Tally::new(&requirement, &two_by_three());
        for _ in 0..3 {
            tally.add_result(&dc("eu"), TallyResult::Success);
        }
        assert!(!tally.enough(), "three here are no quorum there");
        assert_eq!((tally.received(), tally.required()), (2, 4));
        tally.add_result(&dc("us"), TallyResult::Failure);
        assert!(!tally.impossible());
        tally.add_result(&dc("us"), TallyResult::Success);
        assert_eq!(tally.missing(&dc("us")), 1);
        tally.add_result(&dc("us"), TallyResult::Success);
        assert!(tally.enough());
    }

    #[test]
    fn failures_make_it_impossible() {
        let requirement = resolve(Side::Read, Consistency::LocalQuorum).expect("it resolves");
        let mut tally = Tally::new(&requirement, &two_by_three());
        tally.add_result(&dc("us"), TallyResult::Success);
        assert_eq!(tally.received(), 0, "another datacenter does not count");
        assert!(!requirement.counts(&dc("us")));
        tally.add_result(&dc("eu"), TallyResult::Failure);
        assert!(!tally.impossible());
        tally.add_result(&dc("eu"), TallyResult::Failure);
        assert!(tally.impossible());
        assert_eq!((tally.required(), tally.possible()), (2, 1));
    }
}
