//! What was acknowledged, and what a read that begins after it must therefore show.
//!
//! A *chain* is a key with one writer: each of its writes has a number, and carries the context of the one
//! before that was acknowledged. A *set* is a key that all workers add to, each merging what it has read;
//! its siblings are united.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::door::Found;

/// What must be seen of one key.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    /// A chain's number or a later one.
    pub number: Option<u64>,
    /// A set's elements.
    pub elements: BTreeSet<String>,
}

/// Acknowledged writes by key, and by the datacenter that acknowledged them.
#[derive(Debug, Default)]
pub struct Ledger {
    floors: Mutex<BTreeMap<String, BTreeMap<&'static str, Floor>>>,
}

impl Ledger {
    /// A write of a chain was acknowledged.
    pub fn written(&self, key: &str, datacenter: &'static str, number: u64) {
        let mut floors = self.lock();
        let floor = floors.entry(key.to_owned()).or_default().entry(datacenter).or_default();
        floor.number = floor.number.max(Some(number));
    }

    /// A set's element was acknowledged.
    pub fn added(&self, key: &str, datacenter: &'static str, element: String) {
        let mut floors = self.lock();
        let floor = floors.entry(key.to_owned()).or_default().entry(datacenter).or_default();
        floor.elements.insert(element);
    }

    /// What must be seen of a key that is read from here on: all that was acknowledged, or only what was
    /// in one datacenter.
    pub fn floor(&self, key: &str, datacenter: Option<&str>) -> Floor {
        let mut all = Floor::default();
        for (there, floor) in self.lock().get(key).into_iter().flatten() {
            if datacenter.is_none_or(|datacenter| datacenter == *there) {
                all.number = all.number.max(floor.number);
                all.elements.extend(floor.elements.iter().cloned());
            }
        }
        all
    }

    /// All keys of which a write was acknowledged.
    pub fn keys(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<&'static str, Floor>>> {
        self.floors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Floor {
    /// What of it isn't in what was found.
    pub fn missing(&self, found: &Found) -> Option<String> {
        let number = found.values.iter().filter_map(|value| chain_number(value)).max();
        if self.number > number {
            return Some(format!("write {:?} is acknowledged, {number:?} is there", self.number));
        }
        let there = elements(found);
        let missing: Vec<_> = self.elements.difference(&there).take(3).collect();
        (!missing.is_empty())
            .then(|| format!("elements {missing:?} are acknowledged, and not there"))
    }
}

/// The value of a chain's write.
pub fn chain_value(key: &str, number: u64) -> String {
    format!("{key}:{number}")
}

fn chain_number(value: &str) -> Option<u64> {
    value.rsplit_once(':')?.1.parse().ok()
}

/// A set's elements, of all its siblings together.
pub fn elements(found: &Found) -> BTreeSet<String> {
    found.values.iter().flat_map(|value| value.lines()).map(str::to_owned).collect()
}

#[test]
fn a_floor_is_held_against_what_is_found() {
    let ledger = Ledger::default();
    ledger.written("chain", "eu", 3);
    ledger.written("chain", "us", 2);
    ledger.added("set", "eu", "a".into());
    ledger.added("set", "us", "b".into());
    let found = |values: &[&str]| Found {
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        context: None,
    };
    let is_right =
        |key, scope, values: &[&str]| ledger.floor(key, scope).missing(&found(values)).is_none();
    assert!(is_right("chain", None, &["chain:3"]) && is_right("chain", None, &["chain:4"]));
    assert!(is_right("chain", None, &["chain:1", "chain:3"]), "as one of two siblings");
    assert!(!is_right("chain", None, &["chain:2"]) && !is_right("chain", None, &[]));
    assert!(is_right("chain", Some("us"), &["chain:2"]));
    assert!(is_right("set", None, &["a", "b\nc"]) && is_right("set", Some("us"), &["b"]));
    assert!(!is_right("set", None, &["a\nc"]) && !is_right("set", Some("eu"), &["b"]));
    assert!(is_right("another", None, &[]));
}
