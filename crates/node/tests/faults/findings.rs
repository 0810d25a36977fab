//! What a scenario finds wrong. It goes on after the first finding, so that one run tells all.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    account::{Account, Request, show},
    cluster::Cluster,
    door::found,
    fleet::http,
    ledger::Ledger,
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

    /// Reads every key once, through nodes in turn: wrong if an acknowledged write is missing, or, where
    /// the replicas are to be equal, if one of them lacked anything at this first look. (A read repairs
    /// what it sees: a second look would tell nothing.)
    pub fn look(
        &mut self,
        cluster: &Cluster,
        ledger: &Ledger,
        via: &[&str],
        level: &str,
        equal: bool,
    ) {
        let keys = ledger.keys();
        let scope = level.starts_with("local").then(|| &via[0][..2]);
        let (send, answers) = mpsc::channel();
        thread::scope(|scope| {
            for (at, id) in via.iter().enumerate() {
                let (send, keys, http) = (send.clone(), &keys, cluster.node(id).http);
                scope.spawn(move || {
                    for key in keys.iter().skip(at).step_by(via.len()) {
                        let headers = [("Anello-Consistency", level), ("Anello-Explain", "true")];
                        let path = format!("/kv/{key}");
                        let answer = http::request(http, "GET", &path, &headers, b"");
                        send.send((key, answer)).expect("the receiver is there");
                    }
                });
            }
        });
        drop(send);
        let mut missing = Vec::new();
        let mut not_equal: BTreeMap<String, u32> = BTreeMap::new();
        for (key, answer) in answers {
            let answer = answer.map_err(|error| error.to_string());
            match answer.and_then(|answer| found(&answer).map(|found| (answer, found))) {
                Ok((answer, found)) => {
                    missing.extend(
                        ledger
                            .floor(key, scope)
                            .missing(&found)
                            .map(|what| format!("{key}: {what}")),
                    );
                    for replica in lacking(&answer) {
                        *not_equal.entry(replica).or_default() += 1;
                    }
                }
                Err(why) => missing.push(format!("{key}: {why}")),
            }
        }
        println!(
            "{} keys read at {level}; replicas that lacked something: {not_equal:?}",
            keys.len()
        );
        let few: Vec<_> = missing.iter().take(8).collect();
        self.expect(missing.is_empty(), format!("{} keys not right: {few:#?}", missing.len()));
        if equal {
            self.expect(
                not_equal.is_empty(),
                format!("of {} keys, replicas lacked: {not_equal:?}", keys.len()),
            );
        }
    }

    /// Panics if anything was wrong.
    #[track_caller]
    pub fn end(self) {
        assert!(self.wrong.is_empty(), "found wrong:\n- {}", self.wrong.join("\n- "));
    }
}

/// The replicas whose part in a read was not to answer with all that there is.
fn lacking(answer: &http::Answer) -> Vec<String> {
    let receipt: Value = answer
        .header("Anello-Receipt")
        .and_then(|receipt| serde_json::from_str(receipt).ok())
        .unwrap_or_else(|| panic!("a receipt was asked for: {answer:?}"));
    let replicas = receipt["replicas"].as_array().into_iter().flatten();
    let lacking = replicas.filter(|replica| replica["outcome"] != "answered");
    lacking.map(|replica| format!("{} {}", replica["id"], replica["outcome"])).collect()
}
