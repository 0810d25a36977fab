//! Random schedules of a vote: delays, losses, duplicates, duelling proposers, crashes, lost disks.
//! Whatever happens, an epoch has at most one decree that a majority accepted.

use std::collections::{BTreeMap, BTreeSet};

use anello_protocol::{
    cluster::{ClusterState, Member, MemberState},
    id::{Datacenter, Epoch, KeyspaceId, NodeId, Rack},
    message::gossip::{Ballot, Decree},
};
use proptest::prelude::*;

use super::{
    acceptor::{Acceptor, Memory, Vote},
    proposer::{Aim, Instead, Proposer, Step},
};
use crate::dice::Dice;

fn node(number: usize) -> NodeId {
    NodeId::new(&format!("n{number}")).expect("a good name")
}

/// Decrees are told apart by their origin.
fn decree(epoch: Epoch, mark: u64) -> Decree {
    let member = Member {
        id: node(0),
        datacenter: Datacenter::new("eu").expect("a good name"),
        rack: Rack::new("a").expect("a good name"),
        weight: 1.0,
        quic: "q".into(),
        http: "h".into(),
        state: MemberState::Up,
    };
    let name = "demo".parse().expect("a good name");
    let mut state = ClusterState::founded(name, 8, member);
    state.epoch = epoch;
    Decree { origin: mark, state, admitted: BTreeMap::from([(node(0), 1)]) }
}

#[derive(Clone, Debug)]
enum Says {
    Prepare { freeze: bool },
    Promise(Option<(Ballot, Decree)>, BTreeSet<KeyspaceId>),
    Accept(Decree),
    Accepted,
    Release,
}

#[derive(Clone, Debug)]
struct Letter {
    from: usize,
    to: usize,
    epoch: Epoch,
    ballot: Ballot,
    says: Says,
}

struct Voter {
    acceptor: Acceptor,
    proposer: Option<Proposer>,
    /// Whether it takes data writes: thawed while an ownership change could still be chosen is a bug.
    wrote_in: BTreeSet<Epoch>,
}

struct World {
    dice: Dice,
    voters: Vec<Voter>,
    letters: Vec<Letter>,
    /// Every vote ever cast, whoever remembers it.
    cast: BTreeMap<(Epoch, Ballot), BTreeSet<usize>>,
    proposed: BTreeMap<(Epoch, Ballot), u64>,
    /// What changes move data: proposals with these marks need every voter to be empty.
    moving: BTreeSet<u64>,
    chosen: BTreeMap<Epoch, u64>,
    /// Whether a node that lost its disk may take writes right away is not decided by the vote.
    wiped: bool,
}

impl World {
    fn new(seed: u64, size: usize) -> Self {
        let voter = |_| Voter {
            acceptor: Acceptor::new(Epoch(1), Memory::Whole),
            proposer: None,
            wrote_in: BTreeSet::new(),
        };
        Self {
            dice: Dice::new(seed),
            voters: (0..size).map(voter).collect(),
            letters: vec![],
            cast: BTreeMap::new(),
            proposed: BTreeMap::new(),
            moving: BTreeSet::new(),
            chosen: BTreeMap::new(),
            wiped: false,
        }
    }

    fn send_all(&mut self, from: usize, epoch: Epoch, ballot: &Ballot, says: &Says) {
        for to in 0..self.voters.len() {
            self.letters.push(Letter {
                from,
                to,
                epoch,
                ballot: ballot.clone(),
                says: says.clone(),
            });
        }
    }

    fn propose(&mut self, at: usize) {
        let mark = self.dice.any();
        let salt = self.dice.any();
        let all = (0..self.voters.len()).map(node).collect();
        let voter = &mut self.voters[at];
        let epoch = voter.acceptor.epoch();
        let round = voter.acceptor.round() + 1 + mark % 3;
        let ballot = Ballot { round, proposer: node(at), salt };
        let aim = if voter.acceptor.must_recall() {
            Aim::Recall
        } else if mark.is_multiple_of(5) {
            Aim::Finish
        } else {
            let moves = if mark.is_multiple_of(2) {
                BTreeSet::from([KeyspaceId(1)])
            } else {
                BTreeSet::new()
            };
            if !moves.is_empty() {
                self.moving.insert(mark);
            }
            Aim::Propose { decree: Box::new(decree(epoch, mark)), moves }
        };
        let idle = decree(epoch, 0);
        let proposer = Proposer::new(ballot.clone(), all, idle, aim);
        let freeze = proposer.freezes();
        voter.proposer = Some(proposer);
        self.send_all(at, epoch, &ballot, &Says::Prepare { freeze });
    }

    fn step(&mut self, at: usize, step: Step) {
        let Some(proposer) = self.voters[at].proposer.clone() else { return };
        let (epoch, ballot) = (proposer.epoch(), proposer.ballot().clone());
        match step {
            Step::Wait => {}
            Step::Recall(accepted) => {
                self.voters[at].acceptor.recall(&ballot, accepted);
                let next = self.voters[at].proposer.as_mut().map(Proposer::recalled);
                self.step(at, next.unwrap_or(Step::Wait));
            }
            Step::Accept(decree) => {
                let mark = decree.origin;
                let before = self.proposed.insert((epoch, ballot.clone()), mark);
                assert!(before.is_none_or(|before| before == mark), "a ballot with two values");
                self.send_all(at, epoch, &ballot, &Says::Accept(*decree));
            }
            Step::GiveUp { instead: Instead::Nothing, .. } => {}
            Step::GiveUp { instead: Instead::Release, .. } => {
                self.send_all(at, epoch, &ballot, &Says::Release);
            }
            Step::GiveUp { instead: Instead::Accept(idle), .. } => {
                self.step(at, Step::Accept(idle));
            }
            Step::Decided(decree) => {
                assert_eq!(self.chosen.get(&epoch), Some(&decree.origin), "decided, not chosen");
                self.voters[at].acceptor = self.voters[at].acceptor.follow(epoch);
            }
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let Letter { from, to, epoch, ballot, says } = letter;
        let sender = node(from);
        let voter = &mut self.voters[to];
        let mine = voter.proposer.as_ref().is_some_and(|p| *p.ballot() == ballot);
        let reply = |says| Letter { from: to, to: from, epoch, ballot: ballot.clone(), says };
        if matches!(says, Says::Prepare { .. } | Says::Accept(_) | Says::Release)
            && voter.acceptor.epoch() != epoch
        {
            return;
        }
        match says {
            Says::Prepare { freeze } => {
                if voter.acceptor.prepare(&ballot, freeze) == Vote::Agreed {
                    let wrote = !voter.wrote_in.is_empty();
                    let holding =
                        if freeze && wrote { [KeyspaceId(1)].into() } else { BTreeSet::new() };
                    let promise = Says::Promise(voter.acceptor.accepted().cloned(), holding);
                    self.letters.push(reply(promise));
                }
            }
            Says::Accept(decree) => {
                if voter.acceptor.accept(&ballot, &decree) == Vote::Agreed {
                    self.letters.push(reply(Says::Accepted));
                    self.cast(to, epoch, &ballot, decree.origin);
                }
            }
            Says::Release => {
                voter.acceptor.release(&ballot);
            }
            Says::Promise(accepted, holding) if mine => {
                let step = voter.proposer.as_mut().map(|p| p.promised(sender, accepted, holding));
                self.step(to, step.unwrap_or(Step::Wait));
            }
            Says::Accepted if mine => {
                let step = voter.proposer.as_mut().map(|p| p.accepted(sender));
                self.step(to, step.unwrap_or(Step::Wait));
            }
            Says::Promise(..) | Says::Accepted => {}
        }
    }

    /// A vote is cast; the judge sees all of them.
    fn cast(&mut self, voter: usize, epoch: Epoch, ballot: &Ballot, mark: u64) {
        let votes = self.cast.entry((epoch, ballot.clone())).or_default();
        votes.insert(voter);
        if votes.len() > self.voters.len() / 2 {
            let chosen = *self.chosen.entry(epoch).or_insert(mark);
            assert_eq!(chosen, mark, "two decrees were chosen in {epoch}");
            if self.moving.contains(&mark) && !self.wiped {
                for voter in &self.voters {
                    let wrote = voter.wrote_in.range(..=epoch).next();
                    assert_eq!(wrote, None, "data was written before a change that moves it");
                }
            }
        }
    }

    fn turn(&mut self, wipes: bool) {
        let at = self.dice.below(self.voters.len());
        match self.dice.below(100) {
            0..6 => self.propose(at),
            6..8 => self.voters[at].proposer = None,
            8..10 => {
                let step = self.voters[at].proposer.as_mut().map(Proposer::time_up);
                self.step(at, step.unwrap_or(Step::Wait));
            }
            // Somebody hears what was chosen.
            10..13 => {
                let epoch = self.voters[at].acceptor.epoch();
                if self.chosen.contains_key(&epoch) {
                    self.voters[at].acceptor = self.voters[at].acceptor.follow(epoch);
                }
            }
            13 if wipes && self.dice.below(4) == 0 => {
                // A disk is lost; the node comes back with what some other node knows.
                self.wiped = true;
                let other = self.dice.below(self.voters.len());
                let epoch = self.voters[other].acceptor.epoch();
                self.voters[at].acceptor = Acceptor::new(epoch, Memory::Lost);
                self.voters[at].proposer = None;
            }
            14 if self.dice.below(4) == 0 && !self.voters[at].acceptor.is_frozen() => {
                let epoch = self.voters[at].acceptor.epoch();
                self.voters[at].wrote_in.insert(epoch);
            }
            15 => self.voters[at].wrote_in.clear(),
            _ => {
                if self.letters.is_empty() {
                    return;
                }
                let pick = self.dice.below(self.letters.len());
                match self.dice.below(20) {
                    0 => drop(self.letters.swap_remove(pick)),
                    1 => self.deliver(self.letters[pick].clone()),
                    _ => {
                        let letter = self.letters.swap_remove(pick);
                        self.deliver(letter);
                    }
                }
            }
        }
    }
}

fn run(seed: u64, size: usize, turns: usize, wipes: bool) -> World {
    let mut world = World::new(seed, size);
    for _ in 0..turns {
        world.turn(wipes);
        // A network that keeps everything for ever is slow to test with.
        if world.letters.len() > 60 {
            world.letters.remove(0);
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_epoch_has_one_decree(seed in any::<u64>(), size in 1usize..7) {
        run(seed, size, 1_500, false);
    }

    #[test]
    fn also_when_disks_are_lost(seed in any::<u64>(), size in 2usize..7) {
        run(seed, size, 1_500, true);
    }
}

/// A proposer asks all of three to freeze, one of them accepts its decree, and it dies. Whoever takes over and
/// hears only of the other two must not let them thaw: a third proposer may find the decree, have it
/// chosen, and move data that was written meanwhile.
#[test]
fn a_decree_that_a_minority_accepted_does_not_outlive_a_thaw() {
    let epoch = Epoch(1);
    let voters = || (0..3).map(node).collect::<BTreeSet<_>>();
    let moving = decree(epoch, 7);
    let take_over = || Proposer::new(ballot(2, 1), voters(), decree(epoch, 0), Aim::Finish);
    let accepted = Some((ballot(1, 0), moving.clone()));

    let mut without = take_over();
    assert_eq!(without.promised(node(0), None, BTreeSet::new()), Step::Wait);
    assert_eq!(without.promised(node(1), None, BTreeSet::new()), Step::Wait);
    let idle = Instead::Accept(Box::new(decree(epoch, 0)));
    assert_eq!(without.time_up(), Step::GiveUp { holder: None, instead: idle });

    let mut with = take_over();
    with.promised(node(0), None, BTreeSet::new());
    let step = with.promised(node(2), accepted, BTreeSet::new());
    assert_eq!(step, Step::Accept(Box::new(moving)));

    let mut unanimous = take_over();
    unanimous.promised(node(0), None, BTreeSet::new());
    unanimous.promised(node(1), None, BTreeSet::new());
    let step = unanimous.promised(node(2), None, BTreeSet::new());
    assert_eq!(step, Step::GiveUp { holder: None, instead: Instead::Release });
}

fn ballot(round: u64, proposer: usize) -> Ballot {
    Ballot { round, proposer: node(proposer), salt: 0 }
}

#[test]
fn a_release_ends_only_what_it_knows_of() {
    let mut acceptor = Acceptor::new(Epoch(1), Memory::Whole);
    assert_eq!(acceptor.prepare(&ballot(1, 0), true), Vote::Agreed);
    assert_eq!(acceptor.prepare(&ballot(2, 1), true), Vote::Agreed);
    assert!(!acceptor.release(&ballot(1, 0)) && acceptor.is_frozen());
    assert_eq!(acceptor.prepare(&ballot(3, 0), false), Vote::Agreed);
    assert!(acceptor.is_frozen(), "a ballot that freezes nothing ends no freeze");
    assert!(acceptor.release(&ballot(3, 0)) && !acceptor.is_frozen());
}

/// Two of three accept a decree: it is chosen. One of them loses its disk, and gets its vote back from the
/// others. The third, who knows nothing, must find the decree through it.
#[test]
fn a_recalled_vote_holds_what_was_chosen_with_the_lost_one() {
    let (epoch, chosen) = (Epoch(1), decree(Epoch(1), 7));
    let voters = || (0..3).map(node).collect::<BTreeSet<_>>();
    let accepted = Some((ballot(1, 0), chosen.clone()));
    let mut lost = Acceptor::new(epoch, Memory::Lost);
    assert_eq!(lost.prepare(&ballot(2, 1), false), Vote::Abstained);
    assert_eq!(lost.accept(&ballot(2, 1), &chosen), Vote::Abstained);

    let mut recall = Proposer::new(ballot(3, 2), voters(), decree(epoch, 0), Aim::Recall);
    assert_eq!(recall.awaited(), [node(0), node(1)]);
    assert_eq!(recall.promised(node(1), None, BTreeSet::new()), Step::Wait);
    let step = recall.promised(node(0), accepted.clone(), BTreeSet::new());
    assert_eq!(step, Step::Recall(accepted.clone()));
    lost.recall(&ballot(3, 2), accepted.clone());
    assert_eq!(recall.recalled(), Step::Accept(Box::new(chosen.clone())));

    // The recalling node dies here; the third, with the recalled vote alone, finds the decree.
    let own = Aim::Propose { decree: Box::new(decree(epoch, 8)), moves: BTreeSet::new() };
    let mut third = Proposer::new(ballot(4, 1), voters(), decree(epoch, 0), own);
    third.promised(node(1), None, BTreeSet::new());
    assert_eq!(lost.prepare(&ballot(4, 1), false), Vote::Agreed);
    let step = third.promised(node(2), lost.accepted().cloned(), BTreeSet::new());
    assert_eq!(step, Step::Accept(Box::new(chosen)));
}

/// Where something had been accepted, a later epoch may have begun that the lost vote was cast in as well.
#[test]
fn a_vote_is_recalled_again_in_the_next_epoch_unless_there_was_none() {
    let accepted = Some((ballot(1, 0), decree(Epoch(1), 7)));
    for (accepted, again) in [(accepted, true), (None, false)] {
        let mut acceptor = Acceptor::new(Epoch(1), Memory::Lost);
        acceptor.recall(&ballot(2, 1), accepted);
        assert!(!acceptor.must_recall());
        assert_eq!(acceptor.follow(Epoch(1)).must_recall(), again);
    }
}

#[test]
fn votes_come_to_an_end() {
    for (wipes, least) in [(false, 100), (true, 50)] {
        let epochs: usize = (0..20).map(|seed| run(seed, 5, 3_000, wipes).chosen.len()).sum();
        assert!(epochs > least, "only {epochs} epochs in 20 runs");
    }
    let moved: usize = (0..20)
        .map(|seed| {
            let world = run(seed, 3, 3_000, false);
            world.chosen.values().filter(|mark| world.moving.contains(mark)).count()
        })
        .sum();
    assert!(moved > 5, "only {moved} changes that move data in 20 runs");
}
