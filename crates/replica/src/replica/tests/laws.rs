//! The promises of vnodes, by property: three replicas of one key under random interleavings of
//! writes, replication, reads, commits that end late, fail or are refused, and crashes that lose what
//! was not committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anello_protocol::{
    causality::{Context, Dot},
    key::DataKey,
    message::replica::Held,
    version::{ConflictRule, Content, Version, Versions},
};
use proptest::prelude::*;

use super::{key, mint, node, now, read, store, view};
use crate::{
    replica::{
        CommitNumber, CommitOutcome, Effect, Input, Replica, ReplicaConfig, Reply, Request, Token,
    },
    store::{Commit, VnodeRecord},
};

const REPLICAS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// A client writes at a replica, with a context that was read some reads ago, if any.
    Write { at: usize, seen: Option<usize>, retry: bool, wall_ms: u64 },
    /// Something acknowledged is pushed to a replica.
    Push { to: usize, pick: prop::sample::Index },
    /// A client reads at a replica.
    Read { at: usize },
    /// The disk answers the oldest question.
    Load { at: usize },
    /// The oldest commit ends.
    Commit { at: usize, fate: Fate },
    /// The process dies and starts again.
    Crash { at: usize, keeps: u8 },
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Durable,
    FailedAndKept,
    FailedAndLost,
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..REPLICAS;
    let fate = prop_oneof![
        12 => Just(Fate::Durable),
        1 => Just(Fate::FailedAndKept),
        1 => Just(Fate::FailedAndLost),
    ];
    prop_oneof![
        4 => (at.clone(), proptest::option::of(0..4usize), prop::bool::weighted(0.2), 0..50u64)
            .prop_map(|(at, seen, retry, wall_ms)| Step::Write { at, seen, retry, wall_ms }),
        3 => (at.clone(), any::<prop::sample::Index>()).prop_map(|(to, pick)| Step::Push { to, pick }),
        3 => at.clone().prop_map(|at| Step::Read { at }),
        6 => at.clone().prop_map(|at| Step::Load { at }),
        6 => (at.clone(), fate).prop_map(|(at, fate)| Step::Commit { at, fate }),
        1 => (at, 0..4u8).prop_map(|(at, keeps)| Step::Crash { at, keeps }),
    ]
}

/// A replica with its disk.
struct Node {
    machine: Replica,
    disk: BTreeMap<DataKey, Versions>,
    record: Option<VnodeRecord>,
    loads: VecDeque<DataKey>,
    commits: VecDeque<(CommitNumber, Commit)>,
}

struct World {
    rule: ConflictRule,
    nodes: Vec<Node>,
    starts: u64,
    tokens: u64,
    asked: BTreeMap<(usize, Token), Request>,
    /// Every version that anybody has been shown, by its dot.
    shown: BTreeMap<Dot, Version>,
    /// What was acknowledged, and can be pushed to others.
    acknowledged: Vec<Versions>,
    contexts: Vec<Context>,
    writes: u128,
}

impl World {
    fn new(rule: ConflictRule) -> Self {
        let mut world = Self {
            rule,
            nodes: Vec::new(),
            starts: 0,
            tokens: 0,
            asked: BTreeMap::new(),
            shown: BTreeMap::new(),
            acknowledged: Vec::new(),
            contexts: Vec::new(),
            writes: 0,
        };
        for _ in 0..REPLICAS {
            let machine = world.start(None);
            world.nodes.push(Node {
                machine,
                disk: BTreeMap::new(),
                record: None,
                loads: VecDeque::new(),
                commits: VecDeque::new(),
            });
        }
        world
    }

    fn start(&mut self, remembered: Option<VnodeRecord>) -> Replica {
        self.starts += 1;
        let partition = anello_protocol::id::PartitionId(0);
        let config = ReplicaConfig { requests_max: 16, ..ReplicaConfig::default() };
        let mut machine = Replica::new(node(), partition, config, self.starts, remembered);
        machine.handle(now(0), Input::ClusterChanged(view(1)));
        machine
    }

    fn ask(&mut self, at: usize, wall_ms: u64, request: Request) {
        let token = Token(self.tokens);
        self.tokens += 1;
        self.asked.insert((at, token), request.clone());
        self.input(at, wall_ms, Input::Asked { token, request });
    }

    fn input(&mut self, at: usize, wall_ms: u64, input: Input) {
        self.nodes[at].machine.handle(now(wall_ms), input);
        while let Some(effect) = self.nodes[at].machine.next_effect() {
            match effect {
                Effect::Load(key) => self.nodes[at].loads.push_back(key),
                Effect::Commit(number, commit) => {
                    self.nodes[at].commits.push_back((number, commit));
                }
                Effect::Reply(token, reply) => {
                    let request =
                        self.asked.remove(&(at, token)).expect("asked, and answered once");
                    self.answered(at, request, reply);
                }
                Effect::Quiet => panic!("nobody froze it"),
            }
        }
    }

    fn answered(&mut self, at: usize, request: Request, reply: Reply) {
        match reply {
            Reply::Read(Ok(Held::Full(versions))) => {
                self.show(&versions);
                self.assert_kept(at, &versions);
                self.contexts.push(versions.context());
            }
            Reply::Read(Ok(Held::Digest(_))) => panic!("nobody asked for a digest"),
            Reply::Store(Ok(_)) => {
                let Request::Store(pushed) = request else { panic!("another question") };
                self.assert_kept(at, &pushed.versions);
            }
            Reply::Purge(_) => panic!("nobody purges"),
            Reply::Mint(Ok(minted)) => {
                let Request::Mint(write) = request else { panic!("another question") };
                self.show(&minted.versions);
                self.assert_kept(at, &minted.versions);
                assert!(minted.versions.knows(write.write_id));
                self.acknowledged.push(minted.versions);
            }
            Reply::Read(Err(_)) | Reply::Store(Err(_)) | Reply::Mint(Err(_)) => {}
        }
    }

    fn durable(&mut self, at: usize) -> &Versions {
        self.nodes[at].disk.entry(key("k")).or_default()
    }

    /// A dot names one version, ever.
    fn show(&mut self, versions: &Versions) {
        for version in versions {
            let first = self.shown.entry(version.dot).or_insert_with(|| version.clone());
            assert_eq!(first, version, "a dot was issued twice");
        }
    }

    /// Everything acknowledged is on the disk, or something that follows it.
    fn assert_kept(&mut self, at: usize, versions: &Versions) {
        let rule = self.rule;
        let disk = self.durable(at).clone();
        match rule {
            ConflictRule::Siblings => {
                let context = disk.context();
                assert!(versions.iter().all(|version| context.covers(version.dot)), "a lost ack");
            }
            ConflictRule::Lww => assert!(disk.latest() >= versions.latest(), "a lost ack"),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write { at, seen, retry, wall_ms } => {
                self.writes += u128::from(!retry);
                let context = seen.and_then(|back| self.contexts.iter().rev().nth(back).cloned());
                let context = context.unwrap_or_default();
                let mut write = mint(&key("k"), self.writes, &context, self.rule);
                if self.writes.is_multiple_of(5) {
                    write.content = Content::Tombstone;
                }
                self.ask(*at, *wall_ms, Request::Mint(write));
            }
            Step::Push { to, pick } => {
                if !self.acknowledged.is_empty() {
                    let versions = pick.get(&self.acknowledged).clone();
                    self.ask(*to, 0, Request::Store(store(&key("k"), versions, self.rule)));
                }
            }
            Step::Read { at } => self.ask(*at, 0, Request::Read(read(&key("k")))),
            Step::Load { at } => {
                if let Some(key) = self.nodes[*at].loads.pop_front() {
                    let found = self.nodes[*at].disk.get(&key).cloned().unwrap_or_default();
                    self.input(*at, 0, Input::Loaded(key, Ok(found)));
                }
            }
            Step::Commit { at, fate } => {
                if let Some((number, commit)) = self.nodes[*at].commits.pop_front() {
                    let outcome = match fate {
                        Fate::Durable => CommitOutcome::Durable,
                        Fate::FailedAndKept | Fate::FailedAndLost => {
                            CommitOutcome::Failed("the disk".into())
                        }
                    };
                    if !matches!(fate, Fate::FailedAndLost) {
                        self.nodes[*at].keep(commit);
                    }
                    self.input(*at, 0, Input::Committed(number, outcome));
                }
            }
            Step::Crash { at, keeps } => {
                // Some of what was on its way may have come to the disk, in order, unheard.
                for _ in 0..*keeps {
                    if let Some((_, commit)) = self.nodes[*at].commits.pop_front() {
                        self.nodes[*at].keep(commit);
                    }
                }
                let record = self.nodes[*at].record;
                self.nodes[*at].machine = self.start(record);
                self.nodes[*at].commits.clear();
                self.nodes[*at].loads.clear();
                self.asked.retain(|(node, _), _| node != at);
            }
        }
    }

    /// Lets everything end.
    fn settle(&mut self) {
        for at in 0..REPLICAS {
            while !self.nodes[at].loads.is_empty() || !self.nodes[at].commits.is_empty() {
                self.step(&Step::Load { at });
                self.step(&Step::Commit { at, fate: Fate::Durable });
            }
        }
    }
}

impl Node {
    fn keep(&mut self, commit: Commit) {
        self.disk.insert(commit.key, (*commit.versions).clone());
        if let Some(record) = commit.vnode_record {
            self.record = Some(record);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_dot_twice_no_ack_lost_nothing_shown_early(
        steps in proptest::collection::vec(step(), 1..120),
        lww in any::<bool>(),
    ) {
        let rule = if lww { ConflictRule::Lww } else { ConflictRule::Siblings };
        let mut world = World::new(rule);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        prop_assert!(world.asked.is_empty(), "everybody has an answer");
        prop_assert!(world.nodes.iter().all(|node| node.machine.waiting() == 0));

        let acknowledged = world.acknowledged.clone();
        let mut everything = Versions::new();
        for at in 0..REPLICAS {
            everything.merge(world.durable(at).clone(), rule);
        }
        for versions in &acknowledged {
            match rule {
                ConflictRule::Siblings => {
                    let context = everything.context();
                    prop_assert!(versions.iter().all(|version| context.covers(version.dot)));
                }
                ConflictRule::Lww => prop_assert!(everything.latest() >= versions.latest()),
            }
        }
        // Nothing that was shown vanished but into the past of something that is there.
        if rule == ConflictRule::Siblings {
            let there: BTreeSet<_> = everything.iter().map(|version| version.dot).collect();
            for dot in world.shown.keys() {
                let replaced = everything.iter().any(|version| version.past.covers(*dot));
                prop_assert!(there.contains(dot) != replaced);
            }
        }
    }
}
