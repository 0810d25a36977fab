//! How RocksDB is set up. Nothing here is a setting of the node: each figure has its reason beside it.

use std::{fs, thread};

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, DataBlockIndexType, LogLevel,
    Options, ReadOptions,
};

use super::{keys::Family, leaves};
use crate::open_files;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What is written lies in memory until it is this much; a restart replays at most about three times
/// as much, which takes a second or two.
const MEMTABLE_BYTES: usize = 64 * MIB;
/// Where the log is cut off at the latest: the small column families hardly ever fill a memtable, and
/// would hold on to the logs of all.
const LOGS_BYTES: u64 = 192 * MIB as u64;
/// Values from this size on go to files of their own, so that compactions don't copy them.
const BLOB_BYTES: u64 = 32 * KIB as u64;
const SMALL_MEMTABLE_BYTES: usize = 2 * MIB;
/// A write changes a leaf of some 60 bytes in memory, which ends as one of few: a file for every quarter of
/// a million writes.
const TREES_MEMTABLE_BYTES: usize = 16 * MIB;
/// Hints come when a neighbour is away, and then in numbers.
const HINTS_MEMTABLE_BYTES: usize = 16 * MIB;
const SMALL_CACHE_BYTES: usize = 8 * MIB;
const CACHE_MIN_BYTES: usize = 64 * MIB;
const CACHE_MAX_BYTES: usize = 1024 * MIB;
const RECENT_MIN_BYTES: usize = 32 * MIB;
const RECENT_MAX_BYTES: usize = 512 * MIB;

/// A cache of blocks sized to the machine: a twelfth of its memory, because machines run up to six nodes,
/// which together with what was written lately take three quarters, and the page cache below has what
/// doesn't fit.
pub(super) fn cache() -> Cache {
    let twelfth = memory_bytes().map_or(CACHE_MIN_BYTES, |bytes| bytes / 12);
    Cache::new_lru_cache(twelfth.clamp(CACHE_MIN_BYTES, CACHE_MAX_BYTES))
}

/// What was written lately may take half as much.
pub(super) fn recent_bytes() -> usize {
    let share = memory_bytes().map_or(RECENT_MIN_BYTES, |bytes| bytes / 24);
    share.clamp(RECENT_MIN_BYTES, RECENT_MAX_BYTES)
}

/// For the database as a whole.
pub(super) fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(cores().clamp(2, 8));
    options.set_max_open_files(open_files::ROCKSDB.into());
    options.set_max_total_wal_size(LOGS_BYTES);
    // A kill or a loss of power may cut the log's last record short: nothing in it was acknowledged, and
    // it is left out. Damage anywhere else means that acknowledged writes are gone. The default,
    // `PointInTime`, would quietly serve what was before the damage; this one refuses to open.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // The same for a log that is missing altogether.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    // One thread writes, so the memtable need not be safe for many.
    options.set_allow_concurrent_memtable_write(false);
    // Write tables out as they grow instead of all at their end, beside which a commit's sync waits.
    options.set_bytes_per_sync(MIB as u64);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(8 * MIB);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options
}

/// To read, whether one key or many: no byte is believed without its checksum.
pub(super) fn reading() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

/// For a store of which parts can't be read: damage in the log is passed over, and so is a table that is not
/// there. A log that is not there isn't: RocksDB 11.8 crashes where the check for it was on and is turned
/// off in a store that is opened for reading only.
pub(super) fn wreck() -> Options {
    let mut options = database();
    options.create_if_missing(false);
    options.create_missing_column_families(false);
    options.set_wal_recovery_mode(DBRecoveryMode::SkipAnyCorruptedRecord);
    options.set_paranoid_checks(false);
    options
}

/// What a look through all of a store may keep in memory: each block is read once.
pub(super) fn small_cache() -> Cache {
    Cache::new_lru_cache(SMALL_CACHE_BYTES)
}

/// For one column family.
pub(super) fn family(family: Family, cache: &Cache) -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(cache);
    // 10 bits a key: one in a hundred reads of a key that isn't there looks into a file.
    tables.set_bloom_filter(10.0, false);
    tables.set_optimize_filters_for_memory(true);
    tables.set_format_version(6);
    // Filters and indexes count towards the cache's bound, and are the last to leave it.
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_cache_index_and_filter_blocks_with_high_priority(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // Point lookups find their place in a block by a hash instead of a search.
    tables.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);

    let mut options = Options::default();
    options.set_block_based_table_factory(&tables);
    options.set_compression_type(DBCompressionType::Lz4);
    match family {
        Family::Data => {
            options.set_write_buffer_size(MEMTABLE_BYTES);
            options.set_max_write_buffer_number(3);
            // Every first write of a key looks for it; this answers "not here" without a search.
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.02);
            options.set_enable_blob_files(true);
            options.set_min_blob_size(BLOB_BYTES);
            options.set_blob_compression_type(DBCompressionType::Lz4);
            options.set_enable_blob_gc(true);
        }
        Family::Trees => {
            options.set_write_buffer_size(TREES_MEMTABLE_BYTES);
            options.set_merge_operator_associative("anello.xor", leaves::merge);
        }
        Family::Hints => {
            options.set_write_buffer_size(HINTS_MEMTABLE_BYTES);
            options.set_enable_blob_files(true);
            options.set_min_blob_size(BLOB_BYTES);
            options.set_blob_compression_type(DBCompressionType::Lz4);
            options.set_enable_blob_gc(true);
        }
        Family::Vnodes | Family::Meta | Family::Tombstones => {
            options.set_write_buffer_size(SMALL_MEMTABLE_BYTES);
        }
    }
    options
}

fn cores() -> i32 {
    thread::available_parallelism().map_or(2, |cores| cores.get().try_into().unwrap_or(i32::MAX))
}

/// The memory that the process may use: the machine's, or its container's where that is less.
fn memory_bytes() -> Option<usize> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib * KIB)
    });
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max");
    let container = container.ok().and_then(|text| text.trim().parse::<usize>().ok());
    match (machine, container) {
        (Some(machine), Some(container)) => Some(container.min(machine)),
        (machine, container) => machine.or(container),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_known_on_linux() {
        if cfg!(target_os = "linux") {
            assert!(memory_bytes().is_some_and(|bytes| bytes > 16 * MIB));
        }
    }
}
