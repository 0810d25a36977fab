//! What a scenario finds wrong. It goes on after the first finding, so that one run tells all.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use super::{
    account::{Account, Request, show},
    cluster::Cluster,
    door::found,
    fleet::http,
    ledger::Ledger,
    replicas::Replicas,
};

/// What is wrong so far.
pub struct Findings {
    wrong: Vec<String>,
    /// The moment of the fault, for the times of requests.
    since: Instant,
}

impl Findings {
    pub fn new() -> Self {
        Self { wrong: Vec::new(), since: Instant::now() }
    }

    /// The fault comes now.
    pub fn fault(&mut self) -> Instant {
        self.since = Instant::now();
        self.since
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Wrong unless it is so.
    pub fn expect(&mut self, so: bool, else_: impl Display) {
        if !so {
            self.wrong.push(else_.to_string());
        }
    }

    /// Looks at a condition until it is so; wrong if it isn't within the time.
    pub fn expect_within(&mut self, what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            if start.elapsed() > within {
                return self.expect(false, format!("not within {within:?}: {what}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        println!("{what}: after {:.1?}", start.elapsed());
    }

    /// Wrong if a request failed that had no right to, or if a read was stale.
    pub fn account(&mut self, account: &Account, may_fail: impl Fn(&Request) -> bool) {
        println!("{}", account.summary());
        let failures = account.failures(may_fail);
        self.expect(failures.is_empty(), format!("failed: {}", show(&failures, self.since)));
        let stale = account.stale();
        self.expect(stale.is_empty(), format!("stale: {}", show(&stale, self.since)));
    }

    /// Reads every key once, through nodes in turn: wrong if an acknowledged write is missing.
    pub fn look(&mut self, cluster: &Cluster, ledger: &Ledger, via: &[&str], level: &str) {
        let keys = ledger.keys();
        let scope = level.starts_with("local").then(|| &via[0][..2]);
        let mut missing = Vec::new();
        for (key, id) in keys.iter().zip(via.iter().cycle()) {
            let (node, path) = (cluster.node(id).http, format!("/kv/{key}"));
            let answer = http::request(node, "GET", &path, &[("Anello-Consistency", level)], b"");
            let found = answer.map_err(|error| error.to_string()).and_then(|answer| found(&answer));
            let wrong = match found {
                Ok(found) => ledger.floor(key, scope).missing(&found),
                Err(why) => Some(why),
            };
            missing.extend(wrong.map(|what| format!("{key} at {id}: {what}")));
        }
        println!("{} keys read at {level}, {} not right", keys.len(), missing.len());
        let few: Vec<_> = missing.iter().take(8).collect();
        self.expect(missing.is_empty(), format!("{} keys not right: {few:#?}", missing.len()));
    }

    /// Wrong unless all replicas of these keys are equal at that time.
    pub fn expect_equal(&mut self, cluster: &Cluster, keys: &[String], until: Instant) {
        let start = Instant::now();
        let lacking = Replicas::of(cluster).lacking_after(keys, until);
        let took = start.elapsed();
        println!("replicas of {} keys looked at for {took:.1?}; lacking: {lacking:?}", keys.len());
        let what = format!("of {} keys, replicas lack: {lacking:?}", keys.len());
        self.expect(lacking.is_empty(), what);
    }

    /// Panics if anything was wrong.
    #[track_caller]
    pub fn end(self) {
        assert!(self.wrong.is_empty(), "found wrong:\n- {}", self.wrong.join("\n- "));
    }
}
