//! The account of a load: each request, what came of it, and what that adds up to.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// A read that lacks what was acknowledged before it began.
    Stale(String),
    /// The node took no connection: nothing was asked of it.
    NotTaken,
    Failed(String),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The node that was asked; with the client library, the worker's name only.
    pub node: &'static str,
    pub kind: Kind,
    pub start: Instant,
    pub end: Instant,
    pub outcome: Outcome,
}

impl Request {
    fn took(&self) -> Duration {
        self.end - self.start
    }

    /// Whether it succeeded.
    pub fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }

    /// Whether its node took no connection in a stretch of time: a worker at a node that is down asks
    /// nobody.
    pub fn was_not_taken(&self, from: Instant, to: Instant) -> bool {
        self.outcome == Outcome::NotTaken && self.touches(from, to)
    }

    /// Whether it was under way at any moment of a stretch of time.
    pub fn touches(&self, from: Instant, to: Instant) -> bool {
        self.start <= to && self.end >= from
    }
}

/// All requests of a load, in the order in which they ended.
pub struct Account {
    pub requests: Vec<Request>,
}

impl Account {
    pub fn new(mut requests: Vec<Request>) -> Self {
        requests.sort_by_key(|request| request.end);
        Self { requests }
    }

    /// Requests that failed, but for those that may.
    pub fn failures(&self, may: impl Fn(&Request) -> bool) -> Vec<&Request> {
        let failed = self.requests.iter().filter(|request| match request.outcome {
            Outcome::Failed(_) | Outcome::NotTaken => !may(request),
            Outcome::Done | Outcome::Stale(_) => false,
        });
        failed.collect()
    }

    /// Reads that did not show what was acknowledged before.
    pub fn stale(&self) -> Vec<&Request> {
        let stale = |request: &&Request| matches!(request.outcome, Outcome::Stale(_));
        self.requests.iter().filter(stale).collect()
    }

    /// The longest time in which no request of these nodes succeeded.
    pub fn longest_gap(&self, nodes: &[&str]) -> Duration {
        let ends: Vec<_> = self
            .requests
            .iter()
            .filter(|request| request.is_done() && nodes.contains(&request.node))
            .map(|request| request.end)
            .collect();
        let (Some(first), Some(last)) = (self.requests.first(), self.requests.last()) else {
            return Duration::ZERO;
        };
        let edges = [first.end].into_iter().chain(ends).chain([last.end]);
        let edges: Vec<_> = edges.collect();
        edges.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// The slowest of some requests.
    pub fn slowest(&self, which: impl Fn(&Request) -> bool) -> Duration {
        let chosen = self.requests.iter().filter(|request| which(request));
        chosen.map(Request::took).max().unwrap_or_default()
    }

    /// A line for a person.
    pub fn summary(&self) -> String {
        let mut line = format!("{} requests", self.requests.len());
        let mut per_node: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
        for request in &self.requests {
            let (done, stale, failed) = per_node.entry(request.node).or_default();
            match request.outcome {
                Outcome::Done => *done += 1,
                Outcome::Stale(_) => *stale += 1,
                Outcome::Failed(_) | Outcome::NotTaken => *failed += 1,
            }
        }
        for (node, (done, stale, failed)) in per_node {
            let gap = self.longest_gap(&[node]);
            write!(line, "; {node}: {done} done, {stale} stale, {failed} failed, gap {gap:.1?}")
                .expect("a string takes all");
        }
        line
    }
}

/// A few requests, for a person, against a moment of the scenario.
pub fn show(requests: &[&Request], since: Instant) -> String {
    let mut text = format!("{} in all", requests.len());
    for request in requests.iter().take(8) {
        let at = |moment: Instant| {
            let late = moment.saturating_duration_since(since).as_secs_f64();
            late - since.saturating_duration_since(moment).as_secs_f64()
        };
        let Request { node, kind, start, end, outcome } = request;
        write!(text, "\n    {node} {kind:?} {:+.3} to {:+.3} s: {outcome:?}", at(*start), at(*end))
            .expect("a string takes all");
    }
    text
}

#[test]
fn gaps_and_failures_are_found() {
    let zero = Instant::now();
    let request = |node, from_ms, to_ms, outcome| Request {
        node,
        kind: Kind::Read,
        start: zero + Duration::from_millis(from_ms),
        end: zero + Duration::from_millis(to_ms),
        outcome,
    };
    let account = Account::new(vec![
        request("a", 300, 900, Outcome::Failed("no".into())),
        request("a", 0, 100, Outcome::Done),
        request("b", 100, 400, Outcome::Done),
        request("b", 400, 1000, Outcome::Done),
        request("a", 900, 950, Outcome::Stale("old".into())),
    ]);
    assert_eq!(account.longest_gap(&["a", "b"]), Duration::from_millis(600));
    assert_eq!(account.longest_gap(&["a"]), Duration::from_millis(900), "to the load's end");
    assert_eq!(account.longest_gap(&["c"]), Duration::from_millis(900), "there was none");
    assert_eq!(account.slowest(|request| request.node == "b"), Duration::from_millis(600));
    let killed = zero + Duration::from_millis(350);
    assert_eq!(account.failures(|_| false).len(), 1);
    assert_eq!(account.failures(|request| request.touches(killed, killed)).len(), 0);
    assert_eq!(account.failures(|request| request.touches(zero, zero)).len(), 1);
    assert_eq!(account.stale().len(), 1);
}
