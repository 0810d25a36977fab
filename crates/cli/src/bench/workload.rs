//! Workloads: which operations in which mix, after YCSB's core workloads (Cooper et al., 2010).
//!
//! E is left out: it scans, and there are no scans here.

use clap::ValueEnum;

/// A mix of operations with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Update heavy: 50 % reads, 50 % updates
    A,
    /// Read mostly: 95 % reads, 5 % updates
    B,
    /// Read only
    C,
    /// Read latest: 95 % reads of what was inserted last, 5 % inserts
    D,
    /// Read-modify-write: 50 % reads, 50 % reads followed by an update of the same key
    F,
    /// Write only
    W,
}

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It is read.
    Read,
    /// It is written, without having been read.
    Update,
    /// A key that was not there is written.
    Insert,
    /// It is read, and written with the context of the read.
    ReadModifyWrite,
}

impl Kind {
    /// All kinds, in the order of reports.
    pub(super) const ALL: [Kind; 4] =
        [Kind::Read, Kind::Update, Kind::Insert, Kind::ReadModifyWrite];

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Update => "update",
            Kind::Insert => "insert",
            Kind::ReadModifyWrite => "read-modify-write",
        }
    }
}

/// How often an operation is what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mix {
    read: f64,
    /// What the operations are that are no reads.
    other: Kind,
}

/// Which keys are asked for how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// A few keys most of the time (Zipf's law, exponent 0.99)
    Zipfian,
    /// All keys equally often
    Uniform,
    /// The keys inserted last most of the time
    Latest,
}

impl Workload {
    /// Its mix.
    pub(super) fn mix(self) -> Mix {
        let (read, other) = match self {
            Workload::A => (0.5, Kind::Update),
            Workload::B => (0.95, Kind::Update),
            Workload::C => (1.0, Kind::Update),
            Workload::D => (0.95, Kind::Insert),
            Workload::F => (0.5, Kind::ReadModifyWrite),
            Workload::W => (0.0, Kind::Update),
        };
        Mix { read, other }
    }

    /// The distribution that goes with it.
    pub(super) fn distribution(self) -> Distribution {
        match self {
            Workload::D => Distribution::Latest,
            _ => Distribution::Zipfian,
        }
    }
}

impl Mix {
    /// Reads at that ratio, 0 to 1, and updates.
    pub(super) fn reads(ratio: f64) -> Self {
        Self { read: ratio, other: Kind::Update }
    }

    /// The kind that a draw from 0 to 1 stands for.
    pub(super) fn kind(&self, draw: f64) -> Kind {
        if draw < self.read { Kind::Read } else { self.other }
    }

    /// Whether it writes at all.
    pub(super) fn writes(&self) -> bool {
        self.read < 1.0
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        let percent = |part: f64| format!("{} %", (part * 10_000.0).round() / 100.0);
        match (self.read, self.other.name()) {
            (1.0, _) => "reads only".into(),
            (0.0, other) => format!("{other}s only"),
            (read, other) => format!("{} reads, {} {other}s", percent(read), percent(1.0 - read)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_shared_out_by_the_mix() {
        let mix = Workload::B.mix();
        assert_eq!((mix.kind(0.0), mix.kind(0.949)), (Kind::Read, Kind::Read));
        assert_eq!((mix.kind(0.95), mix.kind(0.999)), (Kind::Update, Kind::Update));
        assert_eq!(Workload::W.mix().kind(0.0), Kind::Update);
        assert_eq!(Workload::C.mix().kind(0.999_999), Kind::Read);
        assert!(!Workload::C.mix().writes() && Mix::reads(0.99).writes());
    }

    #[test]
    fn mixes_read_well() {
        assert_eq!(Workload::A.mix().text(), "50 % reads, 50 % updates");
        assert_eq!(Workload::C.mix().text(), "reads only");
        assert_eq!(Workload::W.mix().text(), "updates only");
        assert_eq!(Mix::reads(0.999).text(), "99.9 % reads, 0.1 % updates");
    }
}
