//! The frontier: up to where everything is done, while records end in any order.
//!
//! It never passes a record that is not done. One that failed holds it for good, so an import that
//! is interrupted and goes on tries it again.

use std::collections::BTreeMap;

use super::records::Start;

/// Up to where everything is done.
#[derive(Clone, Debug, Default)]
pub(super) struct Frontier {
    reached: Start,
    /// Records beyond, by their line; whether they are done.
    beyond: BTreeMap<u64, Beyond>,
    /// The first line that failed: nothing beyond it matters.
    held_by: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Beyond {
    end: u64,
    done: bool,
}

impl Frontier {
    /// Everything before is done.
    pub(super) fn at(reached: Start) -> Self {
        Self { reached, ..Self::default() }
    }

    /// A record is under way.
    pub(super) fn begin(&mut self, line: u64, end: u64) {
        if self.held_by.is_none_or(|held_by| line < held_by) {
            self.beyond.insert(line, Beyond { end, done: false });
        }
    }

    /// A record failed.
    pub(super) fn failed(&mut self, line: u64) {
        self.held_by = Some(self.held_by.map_or(line, |held_by| held_by.min(line)));
        self.beyond.split_off(&line);
    }

    /// A record is done.
    pub(super) fn done(&mut self, line: u64) {
        if let Some(record) = self.beyond.get_mut(&line) {
            record.done = true;
        }
        while let Some(first) = self.beyond.first_entry() {
            if !first.get().done {
                break;
            }
            self.reached = Start { offset: first.get().end, lines: *first.key() };
            first.remove();
        }
    }

    /// Up to where everything is done.
    pub(super) fn reached(&self) -> Start {
        self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_passes_what_is_not_done() {
        let mut frontier = Frontier::at(Start { offset: 10, lines: 1 });
        for (line, end) in [(2, 20), (3, 30), (5, 50)] {
            frontier.begin(line, end);
        }
        frontier.done(5);
        frontier.done(3);
        assert_eq!(frontier.reached(), Start { offset: 10, lines: 1 });
        frontier.done(2);
        assert_eq!(frontier.reached(), Start { offset: 50, lines: 5 });
    }

    #[test]
    fn a_failed_record_holds_it() {
        let mut frontier = Frontier::default();
        frontier.begin(1, 10);
        for (line, end) in [(2, 20), (3, 30)] {
            frontier.begin(line, end);
        }
        frontier.failed(2);
        frontier.begin(4, 40);
        for line in [3, 4, 1] {
            frontier.done(line);
        }
        assert_eq!(frontier.reached(), Start { offset: 10, lines: 1 });
        assert!(frontier.beyond.is_empty());
    }
}
