//! What the client has seen of each node: how fast it answers, how much is under way to it, whether it
//! fails.
//!
//! Pure: told the time. Latency is an average that decays while nothing is heard (so that a node that
//! was slow once is tried again), and silence counts as latency: a node that stopped in the middle of
//! requests looks slower with every millisecond, before any of them has timed out.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::routing::Target;

/// How an attempt ended, as far as it tells about the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It answered, be it with an error of the replicas behind it.
    Answered,
    /// It asked to be left alone for that long.
    Busy(Duration),
    /// It did not answer.
    Failed,
    /// There was no connection to it.
    Unsent,
    /// The caller went away before it was known.
    Abandoned,
}

/// One node, as this client has seen it.
#[derive(Clone, Debug, Default)]
struct Health {
    /// Smoothed latency in seconds, as of `heard`.
    latency: f64,
    heard: Option<Instant>,
    in_flight: u32,
    /// Since when it has been silent with requests under way.
    waiting_since: Option<Instant>,
    /// Failures since the last answer.
    failures: u32,
    down_until: Option<Instant>,
    busy_until: Option<Instant>,
}

/// Whether a node is worth asking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Standing {
    /// Yes; lower costs are better.
    Good {
        /// Expected latency times the requests in front of this one.
        cost: f64,
    },
    /// It asked not to be, until then.
    Busy(Instant),
    /// It failed lately, and is next tried then.
    Down(Instant),
}

/// All nodes that this client has had to do with.
#[derive(Debug, Default)]
pub(crate) struct HealthBook {
    nodes: BTreeMap<Target, Health>,
}

impl HealthBook {
    /// Below this, differences in latency are noise, and the requests in flight decide.
    const NOISE_S: f64 = 0.000_5;
    /// How fast the latency of a node that is not asked is forgotten.
    const FORGET_S: f64 = 2.0;
    /// The weight of one more sample.
    const SAMPLE: f64 = 0.2;
    const FIRST_HOLD: Duration = Duration::from_millis(100);
    const LONGEST_HOLD: Duration = Duration::from_secs(3);
    const UNSENT_HOLD: Duration = Duration::from_millis(50);

    /// Whether a node is worth asking.
    pub(crate) fn standing(&self, node: &Target, now: Instant) -> Standing {
        let Some(health) = self.nodes.get(node) else {
            return Standing::Good { cost: Self::NOISE_S };
        };
        match (health.busy_until, health.down_until) {
            (Some(until), _) if until > now => Standing::Busy(until),
            (_, Some(until)) if until > now => Standing::Down(until),
            _ => Standing::Good { cost: health.cost(now) },
        }
    }

    /// An attempt at a node begins.
    pub(crate) fn began(&mut self, node: &Target, now: Instant) {
        let health = self.nodes.entry(node.clone()).or_default();
        health.in_flight += 1;
        health.waiting_since.get_or_insert(now);
        if health.failures > 0 {
            // One request finds out whether it is back; the others stay away meanwhile.
            health.down_until = Some(now + Self::hold(health.failures));
        }
    }

    /// An attempt that began at `began` has ended.
    pub(crate) fn ended(&mut self, node: &Target, began: Instant, how: Ended, now: Instant) {
        let Some(health) = self.nodes.get_mut(node) else { return };
        health.in_flight = health.in_flight.saturating_sub(1);
        match how {
            Ended::Answered => {
                health.sample(now.saturating_duration_since(began), now);
                health.alive(now);
                health.busy_until = None;
            }
            Ended::Busy(pause) => {
                health.alive(now);
                health.busy_until = Some(now + pause);
            }
            Ended::Failed => {
                health.failures = health.failures.saturating_add(1);
                health.down_until = Some(now + Self::hold(health.failures));
            }
            // To look again costs nothing, and the connection may be back any moment.
            Ended::Unsent => health.down_until = Some(now + Self::UNSENT_HOLD),
            Ended::Abandoned => {}
        }
        if health.in_flight == 0 {
            health.waiting_since = None;
        }
    }

    /// Forgets nodes that are gone, unless something is under way to them.
    pub(crate) fn retain(&mut self, known: impl Fn(&Target) -> bool) {
        self.nodes.retain(|node, health| health.in_flight > 0 || known(node));
    }

    fn hold(failures: u32) -> Duration {
        let doubled = Self::FIRST_HOLD.saturating_mul(1 << failures.saturating_sub(1).min(10));
        doubled.min(Self::LONGEST_HOLD)
    }
}

impl Health {
    /// The latency as it is remembered; what is forgotten, or not known yet, is held for good.
    fn latency(&self, now: Instant) -> f64 {
        let remembered = self.heard.map_or(0.0, |heard| {
            let silent = now.saturating_duration_since(heard).as_secs_f64();
            self.latency * (-silent / HealthBook::FORGET_S).exp()
        });
        remembered.max(HealthBook::NOISE_S)
    }

    fn sample(&mut self, latency: Duration, now: Instant) {
        let old = self.latency(now);
        self.latency = old + HealthBook::SAMPLE * (latency.as_secs_f64() - old);
        self.heard = Some(now);
    }

    fn alive(&mut self, now: Instant) {
        self.failures = 0;
        self.down_until = None;
        self.waiting_since = Some(now);
    }

    fn cost(&self, now: Instant) -> f64 {
        let silence = self
            .waiting_since
            .map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        let latency = self.latency(now).max(silence);
        latency * f64::from(self.in_flight + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn node(name: &str) -> Target {
        Target::Seed(name.into())
    }

    fn cost(book: &HealthBook, name: &str, now: Instant) -> f64 {
        match book.standing(&node(name), now) {
            Standing::Good { cost } => cost,
            other => panic!("{name} is {other:?}"),
        }
    }

    #[test]
    fn slow_and_loaded_nodes_cost_more() {
        let mut now = Instant::now();
        let mut book = HealthBook::default();
        for (name, took) in [("fast", 2 * MS), ("slow", 20 * MS)] {
            book.began(&node(name), now);
            book.ended(&node(name), now, Ended::Answered, now + took);
        }
        now += 20 * MS;
        assert!(cost(&book, "fast", now) < cost(&book, "slow", now));
        for _ in 0..20 {
            book.began(&node("fast"), now);
        }
        assert!(cost(&book, "fast", now) > cost(&book, "slow", now));
    }

    #[test]
    fn silence_counts_before_the_timeout_does() {
        let start = Instant::now();
        let mut book = HealthBook::default();
        book.began(&node("paused"), start);
        let at = |ms: u32| cost(&book, "paused", start + ms * MS);
        assert!(at(0) < at(50) && at(50) < at(500));
    }

    #[test]
    fn what_was_slow_once_is_tried_again() {
        let start = Instant::now();
        let mut book = HealthBook::default();
        book.began(&node("a"), start);
        book.ended(&node("a"), start, Ended::Answered, start + 400 * MS);
        let soon = cost(&book, "a", start + 401 * MS);
        let later = cost(&book, "a", start + 60_000 * MS);
        assert!(later < soon / 100.0);
    }

    #[test]
    fn one_request_at_a_time_finds_out_whether_a_node_is_back() {
        let mut now = Instant::now();
        let mut book = HealthBook::default();
        let down = |book: &HealthBook, now| match book.standing(&node("a"), now) {
            Standing::Down(until) => Some(until),
            _ => None,
        };
        for _ in 0..20 {
            book.began(&node("a"), now);
            book.ended(&node("a"), now, Ended::Failed, now);
            let until = down(&book, now).expect("it just failed");
            assert!(until - now <= HealthBook::LONGEST_HOLD);
            now = until;
            assert_eq!(down(&book, now), None);
        }
        book.began(&node("a"), now);
        assert!(down(&book, now).is_some(), "the second one stays away");
        book.ended(&node("a"), now, Ended::Answered, now + MS);
        assert_eq!(down(&book, now + MS), None);
    }

    #[test]
    fn a_node_without_a_connection_is_looked_at_often() {
        let mut now = Instant::now();
        let mut book = HealthBook::default();
        for _ in 0..20 {
            book.began(&node("a"), now);
            book.ended(&node("a"), now, Ended::Unsent, now);
            assert!(matches!(book.standing(&node("a"), now), Standing::Down(_)));
            now += HealthBook::UNSENT_HOLD;
            assert!(matches!(book.standing(&node("a"), now), Standing::Good { .. }));
        }
    }

    #[test]
    fn a_busy_node_is_left_alone_for_as_long_as_it_asked() {
        let now = Instant::now();
        let mut book = HealthBook::default();
        book.began(&node("a"), now);
        book.ended(&node("a"), now, Ended::Busy(250 * MS), now);
        assert_eq!(book.standing(&node("a"), now), Standing::Busy(now + 250 * MS));
        assert!(matches!(book.standing(&node("a"), now + 250 * MS), Standing::Good { .. }));
    }

    #[test]
    fn gone_nodes_are_forgotten() {
        let now = Instant::now();
        let mut book = HealthBook::default();
        for name in ["idle", "under-way"] {
            book.began(&node(name), now);
        }
        book.ended(&node("idle"), now, Ended::Abandoned, now);
        book.retain(|_| false);
        assert_eq!(book.nodes.keys().collect::<Vec<_>>(), [&node("under-way")]);
    }
}
