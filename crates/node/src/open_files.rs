//! How many files the process may have open, and how many of them HTTP connections may be.
//!
//! Past that limit nothing opens any more: no connection is accepted, and RocksDB fails a write or a
//! compaction. So the limit is raised as far as is needed and allowed, and connections get what RocksDB
//! and the rest leave of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// RocksDB's tables and blob files. Below what a process may open by default (1,024), with room for
/// connections.
pub(crate) const ROCKSDB: u16 = 512;
/// RocksDB's logs, the standard streams, the sockets that are listened on.
const FURTHER: u64 = 64;
/// An arbiter's runtime, and its sockets to peers.
const PER_ARBITER: u64 = 8;
/// However few are left: RocksDB seldom has all of its own open.
const CONNECTIONS_MIN: usize = 16;

/// How many HTTP connections there may be, of so many that are wanted.
pub(crate) fn http_connections(wanted: usize, arbiters: usize) -> usize {
    let others = u64::from(ROCKSDB) + FURTHER + PER_ARBITER * arbiters as u64;
    let limit = raise(others + wanted as u64);
    let connections = left(limit, others).clamp(CONNECTIONS_MIN.min(wanted), wanted);
    if connections < wanted {
        tracing::warn!(
            "at most {connections} HTTP connections at a time, not {wanted}: the process may open \
             only {limit} files; raise its limit (ulimit -n, LimitNOFILE) to {}",
            others + wanted as u64
        );
    }
    connections
}

fn left(limit: u64, others: u64) -> usize {
    usize::try_from(limit.saturating_sub(others)).unwrap_or(usize::MAX)
}

/// Raises the limit to what is enough, or as far as it may; returns what it is.
fn raise(enough: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let limit = current.unwrap_or(u64::MAX);
    let raised = enough.min(maximum.unwrap_or(u64::MAX));
    if raised <= limit {
        return limit;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(error) => {
            tracing::warn!(%error, "can't raise the limit of open files from {limit} to {raised}");
            limit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_is_left() {
        assert_eq!(left(1024, 600), 424);
        assert_eq!(left(500, 600), 0);
        assert_eq!(left(u64::MAX, 0), usize::MAX);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_may() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let wanted = 1000;
        let connections = http_connections(wanted, 2);
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let enough = 1000 + 512 + 64 + 16;
        assert!(limit >= enough.min(maximum.unwrap_or(u64::MAX)));
        assert_eq!(connections == wanted, limit >= enough);
        // No limit is high enough for so many; where the highest is unknown there is none to compare.
        let many = 1 << 50;
        let connections = http_connections(many, 2) as u64;
        let limit = getrlimit(Resource::Nofile).current;
        assert!(maximum.is_none() || limit == maximum);
        assert!(limit.is_none_or(|limit| connections < limit));
    }
}
