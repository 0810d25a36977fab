//! What a durable write costs on a disk: an append of 4 KiB and its `fdatasync`, one after the other.

use std::{
    fs, io,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

const WRITES: usize = 500;
const BLOCK: [u8; 4096] = [0x5a; 4096];

/// Prices of a durable write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SyncPrice {
    /// Half of them cost less.
    pub(super) p50: Duration,
    /// All but a hundredth cost less.
    pub(super) p99: Duration,
}

/// Measures in a directory, and leaves nothing behind.
pub(super) fn sync_price(dir: &Path) -> io::Result<SyncPrice> {
    let path = dir.join(format!(".anello-bench-{}", std::process::id()));
    let measured = measure(&path);
    let removed = fs::remove_file(&path);
    let mut prices = measured?;
    removed?;
    prices.sort_unstable();
    let at = |part: usize| prices[(prices.len() * part / 100).min(prices.len() - 1)];
    Ok(SyncPrice { p50: at(50), p99: at(99) })
}

fn measure(path: &Path) -> io::Result<Vec<Duration>> {
    let mut file = fs::OpenOptions::new().create_new(true).write(true).open(path)?;
    let one = |_| {
        let began = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        Ok(began.elapsed())
    };
    (0..WRITES).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let price = sync_price(dir.path()).unwrap();
        assert!(price.p50 <= price.p99);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
