//! How much processor time processes have had, from `/proc`.

use std::{fs, time::Duration};

use crate::fleet::signal::Pid;

/// The unit of `/proc/<pid>/stat`: the kernel's USER_HZ, which is 100 wherever Linux runs.
const TICKS_PER_SECOND: u64 = 100;

/// The processor time of these processes together, user and system; of those that are gone, none.
pub(super) fn of(pids: &[Pid]) -> Duration {
    pids.iter().filter_map(|pid| time(&pid.to_string())).sum()
}

/// The processor time of this process.
pub(super) fn of_this_process() -> Duration {
    time("self").unwrap_or_default()
}

fn time(process: &str) -> Option<Duration> {
    parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Duration> {
    // The name is in brackets and may hold anything; utime and stime are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let all = ticks()?.checked_add(ticks()?)?;
    Some(Duration::from_millis(all.checked_mul(1000)? / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_fields_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 100 200 300";
        assert_eq!(parse(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse("7 (a"), None);
        assert_eq!(parse("7 (a) S 1"), None);
    }
}
