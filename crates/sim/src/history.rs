//! What happened in a run, line by line: hashed always, printed on demand.

use std::fmt;

use anello_protocol::time::Moment;
use xxhash_rust::xxh3::Xxh3Default;

/// The record of a run. Two runs of one seed have the same hash.
#[derive(Default)]
pub struct History {
    hash: Xxh3Default,
    is_traced: bool,
    lines: u64,
}

impl History {
    /// An empty record, which prints its lines if `is_traced`.
    pub fn new(is_traced: bool) -> Self {
        Self { is_traced, ..Self::default() }
    }

    /// Notes a line.
    pub fn note(&mut self, at: Moment, line: fmt::Arguments<'_>) {
        let line = format!("{:>12.3} ms  {line}", at.0 as f64 / 1000.0);
        self.hash.update(line.as_bytes());
        self.lines += 1;
        if self.is_traced {
            println!("{line}");
        }
    }

    /// The hash of all lines.
    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("lines", &self.lines).finish_non_exhaustive()
    }
}
