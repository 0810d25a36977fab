//! What became of the records, counted, with a bounded list of those that want a look.

use serde_json::{Value, json};

use super::session::Finding;
use crate::output::{Palette, Tone};

/// How many records are listed.
const MAX_LISTED: usize = 20;

/// What became of the records.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    good: u64,
    missing: u64,
    different: u64,
    siblings: u64,
    failed: u64,
    listed: Vec<Listed>,
}

#[derive(Clone, Debug)]
struct Listed {
    line: u64,
    key: String,
    problem: String,
}

impl Account {
    /// Counts a record.
    pub(super) fn add(&mut self, line: u64, key: &[u8], finding: &Finding) {
        let (count, problem) = match finding {
            Finding::Good => {
                self.good += 1;
                return;
            }
            Finding::Missing => (&mut self.missing, "is missing".into()),
            Finding::Different => (&mut self.different, "has another value".into()),
            Finding::Siblings(count) => (&mut self.siblings, format!("has {count} siblings")),
            Finding::Failed(problem) => (&mut self.failed, problem.clone()),
        };
        *count += 1;
        if self.listed.len() < MAX_LISTED {
            let key = key.escape_ascii().to_string();
            self.listed.push(Listed { line, key, problem });
        }
    }

    /// Records that are not.
    pub(super) fn bad(&self) -> u64 {
        self.missing + self.different + self.siblings + self.failed
    }

    /// All records.
    pub(super) fn all(&self) -> u64 {
        self.good + self.bad()
    }

    /// The counts in words, those of a check or of an import.
    pub(super) fn text(&self, check: bool) -> String {
        let Self { good, missing, different, siblings, failed, .. } = self;
        if check {
            format!(
                "{good} the same, {missing} missing, {different} different, {siblings} with siblings, {failed} failed"
            )
        } else {
            format!("{good} written, {failed} failed")
        }
    }

    /// The list, a line a record, ending with how many are not on it.
    pub(super) fn list(&self, palette: Palette) -> Vec<String> {
        let mut lines: Vec<_> = self
            .listed
            .iter()
            .map(|Listed { line, key, problem }| {
                let line = palette.paint(Tone::Bad, format!("line {line}"));
                let gap = if key.is_empty() { "" } else { " " };
                format!("{line}: {key}{gap}{problem}")
            })
            .collect();
        let more = self.bad() - self.listed.len() as u64;
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }

    /// The account as a document.
    pub(super) fn json(&self) -> Value {
        let listed: Vec<_> = self
            .listed
            .iter()
            .map(|Listed { line, key, problem }| {
                json!({ "line": line, "key": key, "problem": problem })
            })
            .collect();
        json!({
            "good": self.good,
            "missing": self.missing,
            "different": self.different,
            "siblings": self.siblings,
            "failed": self.failed,
            "first_problems": listed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_bounded_and_says_so() {
        let mut account = Account::default();
        account.add(1, b"a", &Finding::Good);
        account.add(2, b"", &Finding::Failed("no record".into()));
        for line in 3..30 {
            account.add(line, b"k\xff", &Finding::Missing);
        }
        let list = account.list(Palette::plain());
        assert_eq!(list[0], "line 2: no record");
        assert_eq!(list[1], "line 3: k\\xff is missing");
        assert_eq!(list.last().map(String::as_str), Some("and 8 more"));
        assert_eq!((account.bad(), account.all()), (28, 29));
        assert!(account.text(true).starts_with("1 the same, 27 missing"));
    }
}
