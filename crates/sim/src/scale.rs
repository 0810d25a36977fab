//! How membership fares as a cluster grows: the real machines by the thousand, and nothing else.
//!
//! Nodes of three datacenters found a cluster and join it, rest, change a keyspace, take one more in, and
//! lose some. Measured is when each of them knows, and what they send. Whole nodes, with data, are the
//! business of [`crate::fleet`]. See `docs/scale.md`.

mod chart;
mod world;

use std::time::Duration;

use anello_protocol::{
    cluster::KeyspaceConfig,
    id::Epoch,
    message::admin::{AlterKeyspace, KeyspaceChange},
    time::Moment,
};
use anyhow::{bail, ensure};

pub use self::chart::{svg, table};
use self::world::{Told, World};
use crate::rng::Rng;

/// From one round of gossip to the next, in seconds.
pub const ROUND_S: f64 = 0.25;
/// Within what time the nodes start.
const STARTS: Duration = Duration::from_secs(1);
/// After each change, until traffic is as before.
const SETTLING: Duration = Duration::from_secs(4);
/// How many nodes are killed, one after the other.
const DEATHS: usize = 3;
const SLICE: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(180);

/// What was measured with so many nodes. Times are in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// How many nodes there were.
    pub nodes: usize,
    /// From the first start until every node was a member, served, and reached every other.
    pub formed_s: f64,
    /// What a node sends a second at rest, in bytes of frames.
    pub bytes_s: f64,
    /// The same, of the node that sends most.
    pub bytes_s_max: f64,
    /// How many frames a node sends a second at rest: calls and replies.
    pub frames_s: f64,
    /// From the request to change a keyspace until a node acts under the new epoch.
    pub epoch: Spread,
    /// What a node sent on account of that, beside what it sends at rest.
    pub epoch_bytes: f64,
    /// The same, of the node that sent most.
    pub epoch_bytes_max: f64,
    /// From the start of one more node until a member acts under the epoch that has it.
    pub join: Spread,
    /// The same, until the member holds the new one reachable.
    pub greeting: Spread,
    /// The same, until the new one serves and reaches every member.
    pub settled_s: f64,
    /// From a node's death until another gives it up.
    pub death: Spread,
    /// What was said when a node gave up another one that was there.
    pub false_verdicts: Vec<String>,
}

/// When something came to be known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// To the first.
    pub first_s: f64,
    /// To half of all.
    pub median_s: f64,
    /// To all.
    pub last_s: f64,
}

impl Spread {
    fn of(mut times_s: Vec<f64>) -> Self {
        times_s.sort_by(f64::total_cmp);
        let at = |at: usize| times_s.get(at).copied().unwrap_or(f64::NAN);
        let last = times_s.len().saturating_sub(1);
        Self { first_s: at(0), median_s: at(last / 2), last_s: at(last) }
    }

    /// In rounds of gossip: when it was known to all.
    pub fn last_rounds(&self) -> f64 {
        self.last_s / ROUND_S
    }
}

/// Runs a cluster of so many nodes, which rests for so long before anything happens, and is measured in the
/// second half of that. The same seed measures the same. `tell` is told how far it is: a thousand nodes take
/// minutes.
pub fn measure(
    nodes: usize,
    seed: u64,
    rest: Duration,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Measured> {
    ensure!(nodes >= 2 * DEATHS, "a cluster of {nodes} does not bear {DEATHS} deaths");
    let mut course = Course {
        world: World::new(seed, nodes + 1),
        rng: Rng::new(seed).fork(1),
        nodes,
        false_verdicts: vec![],
    };
    let formed_s = course.form()?;
    tell("formed");
    let rest = course.rest(rest / 2);
    tell("rested");
    let (epoch, epoch_sent) = course.change_keyspace(&rest)?;
    tell("a keyspace created");
    let (join, greeting, settled_s) = course.join()?;
    tell("one more taken in");
    let death = course.deaths()?;
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let most = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
    Ok(Measured {
        nodes,
        formed_s,
        bytes_s: mean(&rest.bytes_s),
        bytes_s_max: most(&rest.bytes_s),
        frames_s: rest.frames_s,
        epoch,
        epoch_bytes: mean(&epoch_sent),
        epoch_bytes_max: most(&epoch_sent),
        join,
        greeting,
        settled_s,
        death,
        false_verdicts: course.false_verdicts,
    })
}

/// What nodes send a second, when nothing happens.
struct Rest {
    bytes_s: Vec<f64>,
    frames_s: f64,
}

struct Course {
    world: World,
    rng: Rng,
    /// The first so many are to be members from the start; one more joins.
    nodes: usize,
    false_verdicts: Vec<String>,
}

impl Course {
    fn form(&mut self) -> anyhow::Result<f64> {
        for node in 0..self.nodes {
            let after = self.rng.within(0..STARTS.as_micros() as u64);
            self.world.start_in(node, Duration::from_micros(after));
        }
        let whole = |course: &mut Self| {
            (0..course.nodes).all(|node| course.world.reaches_all(node, course.nodes))
        };
        let took = self.until("the cluster forms", whole)?;
        // While a cluster forms, those who were only just taken in are waited for, and may be given up.
        self.world.told.clear();
        self.false_verdicts.clear();
        Ok(took)
    }

    fn rest(&mut self, half: Duration) -> Rest {
        self.pass(half);
        self.world.take_sent();
        self.pass(half);
        let sent = self.world.take_sent();
        let sent = &sent[..self.nodes];
        let seconds = half.as_secs_f64();
        let frames: u64 = sent.iter().map(|sent| sent.frames).sum();
        Rest {
            bytes_s: sent.iter().map(|sent| sent.bytes as f64 / seconds).collect(),
            frames_s: frames as f64 / seconds / self.nodes as f64,
        }
    }

    fn change_keyspace(&mut self, rest: &Rest) -> anyhow::Result<(Spread, Vec<f64>)> {
        let (asked, begin) = (self.nodes / 2, self.world.now());
        let next = self.world.epoch(asked).next();
        let change = KeyspaceChange::Set(KeyspaceConfig::default());
        let name = "measured".parse().expect("a good name");
        self.world.alter(asked, AlterKeyspace { name, change });
        let mut known = vec![];
        self.until("all know the epoch", |course| {
            known.extend(course.knew(next, begin));
            known.len() == course.nodes
        })?;
        self.pass(SETTLING);
        let seconds = self.world.now().since(begin).as_secs_f64();
        let sent = self.world.take_sent();
        let beyond = |(sent, rest): (&world::Sent, &f64)| sent.bytes as f64 - rest * seconds;
        Ok((Spread::of(known), sent.iter().zip(&rest.bytes_s).map(beyond).collect()))
    }

    fn join(&mut self) -> anyhow::Result<(Spread, Spread, f64)> {
        let (new, begin) = (self.nodes, self.world.now());
        let next = self.world.epoch(0).next();
        self.world.start_in(new, Duration::ZERO);
        let (mut known, mut greeted) = (vec![], vec![]);
        let settled_s = self.until("the new node is in", |course| {
            greeted.extend(course.judged(new, true, begin));
            known.extend(course.knew(next, begin));
            let is_in = known.len() == course.nodes + 1 && greeted.len() >= course.nodes;
            is_in && course.world.reaches_all(new, course.nodes + 1)
        })?;
        self.nodes += 1;
        self.pass(SETTLING);
        Ok((Spread::of(known), Spread::of(greeted), settled_s))
    }

    fn deaths(&mut self) -> anyhow::Result<Spread> {
        let mut known = vec![];
        for death in 1..=DEATHS {
            // None of the first, who are the seeds.
            let victim = self.nodes * death / (DEATHS + 1) + 1;
            let left = self.nodes - death;
            // A death comes at any time of a round.
            let moment = self.rng.within(0..1_000_000);
            self.pass(Duration::from_micros(moment));
            self.world.kill(victim);
            let (begin, before) = (self.world.now(), known.len());
            self.until("all know of the death", |course| {
                known.extend(course.judged(victim, false, begin));
                known.len() - before >= left
            })?;
            self.pass(SETTLING);
        }
        Ok(Spread::of(known))
    }

    /// Lets time pass in which nobody has a reason to give anybody up.
    fn pass(&mut self, time: Duration) {
        self.world.run(time);
        self.count_false();
        self.world.told.clear();
    }

    /// Lets time pass until something holds. Returns how many seconds it took, to a slice of time.
    fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&mut Self) -> bool,
    ) -> anyhow::Result<f64> {
        let begin = self.world.now();
        loop {
            let took = self.world.now().since(begin);
            if holds(self) {
                return Ok(took.as_secs_f64());
            }
            ensure!(took < LIMIT, "{} nodes: not within {LIMIT:?}: {what}", self.nodes);
            self.count_false();
            for (_, node, told) in std::mem::take(&mut self.world.told) {
                if let Told::Refused(reason) = told {
                    bail!("node {node} refuses: {reason}");
                }
            }
            self.world.run(SLICE);
        }
    }

    fn count_false(&mut self) {
        for (at, by, told) in &self.world.told {
            if let Told::GaveUp(of, reason) = told
                && self.world.is_on(*of)
            {
                let ms = at.0 / 1_000;
                self.false_verdicts.push(format!("at {ms} ms node {by} gave up {of}: {reason}"));
            }
        }
    }

    /// After how many seconds nodes have learned of that epoch, since the last time that this was asked.
    fn knew(&mut self, next: Epoch, begin: Moment) -> Vec<f64> {
        let knows = |told: &Told| matches!(told, Told::Epoch(epoch) if *epoch >= next);
        self.when(begin, knows)
    }

    /// The same, of having judged a node.
    fn judged(&mut self, node: usize, reachable: bool, begin: Moment) -> Vec<f64> {
        let is_that = |told: &Told| match told {
            Told::Reached(of) => *of == node && reachable,
            Told::GaveUp(of, _) => *of == node && !reachable,
            _ => false,
        };
        self.when(begin, is_that)
    }

    fn when(&self, begin: Moment, is_that: impl Fn(&Told) -> bool) -> Vec<f64> {
        let told = self.world.told.iter().filter(|(_, _, told)| is_that(told));
        told.map(|(at, _, _)| at.since(begin).as_secs_f64()).collect()
    }
}
