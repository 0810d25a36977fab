//! The promises of a hint store, by property: random interleavings of writes, mints, commits that end
//! late or fail, crashes, and owners that take hints, lose their answers, or die.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Store {
        owner: usize,
        key: usize,
    },
    Mint {
        owner: usize,
        key: usize,
        has_seen: bool,
    },
    ReadDisk,
    Commit(Fate),
    /// There is no room for the next commit.
    Full,
    /// The process dies; so many of its commits had come to the disk.
    Crash {
        keeps: usize,
    },
    Reach {
        owner: usize,
        reachable: bool,
    },
    /// A message on its way is handled or not.
    Answer {
        pick: prop::sample::Index,
        fate: Reached,
    },
    Pass {
        ms: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Durable,
    FailedAndKept,
    FailedAndLost,
}

#[derive(Clone, Copy, Debug)]
enum Reached {
    Handled,
    AnswerLost,
    Lost,
    Refused,
    LittleCredit,
}

const OWNERS: [&str; 3] = ["a", "b", "c"];

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        12 => Just(Fate::Durable),
        1 => Just(Fate::FailedAndKept),
        1 => Just(Fate::FailedAndLost),
    ];
    let reached = prop_oneof![
        6 => Just(Reached::Handled),
        1 => Just(Reached::AnswerLost),
        1 => Just(Reached::Lost),
        1 => Just(Reached::Refused),
        1 => Just(Reached::LittleCredit),
    ];
    let (owner, key) = (0..OWNERS.len(), 0..3usize);
    prop_oneof![
        4 => (owner.clone(), key.clone()).prop_map(|(owner, key)| Step::Store { owner, key }),
        4 => (owner.clone(), key, any::<bool>())
            .prop_map(|(owner, key, has_seen)| Step::Mint { owner, key, has_seen }),
        8 => Just(Step::ReadDisk),
        8 => fate.prop_map(Step::Commit),
        1 => Just(Step::Full),
        1 => (0..4usize).prop_map(|keeps| Step::Crash { keeps }),
        3 => (owner, prop::bool::weighted(0.7))
            .prop_map(|(owner, reachable)| Step::Reach { owner, reachable }),
        8 => (any::<prop::sample::Index>(), reached)
            .prop_map(|(pick, fate)| Step::Answer { pick, fate }),
        2 => (0..3000u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

struct Law {
    world: World,
    keys: Vec<DataKey>,
    births: u64,
    asked: BTreeMap<Token, Request>,
    /// What was acknowledged, and for whom.
    acknowledged: Vec<(NodeId, DataKey, Versions)>,
    seen: Context,
    dots: BTreeMap<(DataKey, Dot), Version>,
}

impl Law {
    fn ask(&mut self, request: Request) {
        let token = self.world.ask(request.clone());
        self.asked.insert(token, request);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Store { owner, key } => {
                self.births += 1;
                let versions = version(self.births, &[], b"v");
                self.ask(store(OWNERS[*owner], &self.keys[*key], versions));
            }
            Step::Mint { owner, key, has_seen } => {
                self.births += 1;
                let context = if *has_seen { self.seen.clone() } else { Context::new() };
                let id = u128::from(self.births);
                self.ask(mint(OWNERS[*owner], &self.keys[*key], id, &context));
            }
            Step::ReadDisk => drop(self.world.read_one()),
            Step::Commit(fate) => {
                let failed = || CommitOutcome::Failed("the disk".into());
                let (outcome, is_kept) = match fate {
                    Fate::Durable => (CommitOutcome::Durable, true),
                    Fate::FailedAndKept => (failed(), true),
                    Fate::FailedAndLost => (failed(), false),
                };
                self.world.commit_one(outcome, is_kept);
            }
            Step::Full => self.world.is_full = true,
            Step::Crash { keeps } => {
                for _ in 0..*keeps {
                    if let Some((_, change)) = self.world.commits.pop_front() {
                        self.world.shelf.commit(change, Box::new(|_| {})).expect("room");
                    }
                }
                self.asked.clear();
                self.world.crash();
            }
            Step::Reach { owner, reachable } => self.world.reach(OWNERS[*owner], *reachable),
            Step::Answer { pick, fate } => {
                if self.world.mail.is_empty() {
                    return;
                }
                let at = pick.index(self.world.mail.len());
                let Some(mail) = self.world.mail.remove(at) else { return };
                let is_credit = matches!(mail.message, Outgoing::Credit(_));
                let outcome = match fate {
                    Reached::LittleCredit if is_credit => {
                        Ok(Incoming::Credit(Credit { bytes: 100, retry_ms: 250 }))
                    }
                    Reached::Handled | Reached::LittleCredit => Ok(self.world.serve(&mail)),
                    Reached::AnswerLost => {
                        self.world.serve(&mail);
                        Err(CallFailure::Closed)
                    }
                    Reached::Refused if !is_credit => {
                        Ok(Incoming::Stored(Err(Refusal::Storage("full".into()))))
                    }
                    Reached::Lost | Reached::Refused => Err(CallFailure::Unreachable),
                };
                self.world.input(Input::Answered(mail.call, outcome));
            }
            Step::Pass { ms } => {
                let end = self.world.now.moment + Duration::from_millis(*ms);
                self.world.turn_clock(end);
                self.world.input(Input::TimeUp);
            }
        }
        self.look();
    }

    /// What holds after every step.
    fn look(&mut self) {
        for (token, reply) in std::mem::take(&mut self.world.replies) {
            let request = self.asked.remove(&token).expect("asked, and answered once");
            match (request, reply) {
                (Request::Store(hint), Reply::Store(Ok(_))) => {
                    let what = (hint.owner, hint.store.key, hint.store.versions);
                    self.acknowledged.push(what);
                }
                (Request::Mint(hint), Reply::Mint(Ok(minted))) => {
                    self.seen.merge(&minted.context);
                    for version in &minted.versions {
                        let name = (hint.mint.key.clone(), version.dot);
                        let first = self.dots.entry(name).or_insert_with(|| version.clone());
                        assert_eq!(first, version, "a dot was issued twice");
                    }
                    self.acknowledged.push((hint.owner, hint.mint.key, minted.versions));
                }
                _ => {}
            }
        }
        for (owner, key, versions) in &self.acknowledged {
            let kept = self.world.shelf.read(owner, key).expect("memory reads");
            let mut known = self.world.holds(owner.as_str(), key).context();
            known.merge(&kept.map(|hint| hint.versions.context()).unwrap_or_default());
            assert!(versions.iter().all(|it| known.covers(it.dot)), "lost before the owner had it");
        }
        let figures = self.world.machine.figures(self.world.now);
        assert!(figures.owners.values().all(|owner| owner.in_flight <= 64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_is_lost_no_dot_twice_and_all_is_delivered_in_the_end(
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        // Keys that all three of the owners have.
        let all = OWNERS.map(node);
        let keys = keys_of("a", 200).into_iter();
        let keys = keys.filter(|key| all.iter().all(|id| replicas(&view(1), key).contains(id)));
        let mut law = Law {
            world: World::new(),
            keys: keys.take(3).collect(),
            births: 0,
            asked: BTreeMap::new(),
            acknowledged: Vec::new(),
            seen: Context::new(),
            dots: BTreeMap::new(),
        };
        prop_assert_eq!(law.keys.len(), 3);
        for step in &steps {
            law.step(step);
        }
        law.world.is_full = false;
        law.world.disk();
        law.look();
        prop_assert!(law.asked.is_empty(), "everybody has an answer");
        prop_assert_eq!(law.world.machine.waiting(), 0);
        OWNERS.iter().for_each(|id| law.world.reach(id, true));
        for _ in 0..100 {
            law.world.pass(100);
            law.world.deliver();
        }
        law.look();
        for (owner, key, versions) in &law.acknowledged {
            let held = law.world.holds(owner.as_str(), key).context();
            prop_assert!(versions.iter().all(|it| held.covers(it.dot)), "within ten seconds");
        }
        let left = law.world.machine.figures(law.world.now).owners;
        prop_assert!(left.is_empty(), "and nothing is left: {:?}", left);
        prop_assert_eq!(law.world.shelf.load().expect("memory reads").owners, []);
    }
}
