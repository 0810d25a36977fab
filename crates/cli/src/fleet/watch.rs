//! One node as `fleet up` watches it: what its process is, and what has become of it since the last look.

use std::{
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use super::{
    layout::{Layout, Place},
    probe::Readiness,
    process,
    signal::Pid,
};

/// A node that is watched.
pub(super) struct Watched {
    place: Place,
    /// The process, if it was started here and has not ended.
    child: Option<Child>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Starting { pid: Pid, since: Instant, reported_slow: bool },
    Ready { pid: Pid },
}

/// What has become of a node since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It has a process again that was not started here.
    Back(Pid),
    /// It serves, that long after its start.
    Ready(Pid, Duration),
    /// It has not become ready for long, and gave this reason, if any.
    Slow(Option<String>),
    /// Its process ended because a person wanted it to.
    Stopped,
    /// Its process ended by itself and in order, as that of a node does which has left its cluster.
    Left,
    /// Its process ended by itself; how, if it is known.
    Died(Option<String>),
}

impl Watched {
    /// Watches a node, whether it runs already or not.
    pub(super) fn new(place: Place) -> Self {
        Self { place, child: None, phase: Phase::Down }
    }

    /// Its place.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Takes charge of the process that was started for it.
    pub(super) fn started(&mut self, child: Child, pid: Pid, at: Instant) {
        self.child = Some(child);
        self.phase = Phase::Starting { pid, since: at, reported_slow: false };
    }

    /// Whether it was started and neither became ready nor was given up.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { reported_slow: false, .. })
    }

    /// Whether its word on being ready is asked for.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    /// Whether it serves, as far as was seen.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    /// Whether it has a process.
    pub(super) fn is_up(&self) -> bool {
        self.phase != Phase::Down
    }

    /// Looks at its process.
    pub(super) fn look(&mut self, layout: &Layout, now: Instant) -> Option<Change> {
        let pid = process::find(layout, self.place.id()).map(|(pid, _)| pid);
        let ended = if pid == self.phase.pid() { None } else { self.reap() };
        let id = self.place.id();
        match (self.phase.pid(), pid) {
            (Some(before), Some(pid)) if before == pid => None,
            (None, None) => None,
            (Some(_), None) => {
                self.phase = Phase::Down;
                let wanted = process::is_wanted_down(layout, id);
                Some(match ended {
                    _ if wanted => Change::Stopped,
                    Some(status) if status.success() => Change::Left,
                    ended => Change::Died(ended.map(|status| status.to_string())),
                })
            }
            (_, Some(pid)) => {
                self.phase = Phase::Starting { pid, since: now, reported_slow: false };
                Some(Change::Back(pid))
            }
        }
    }

    /// Hears its word on being ready.
    pub(super) fn heard(
        &mut self,
        word: Readiness,
        now: Instant,
        slow_after: Duration,
    ) -> Option<Change> {
        let Phase::Starting { pid, since, reported_slow } = &mut self.phase else { return None };
        let (pid, took) = (*pid, now.duration_since(*since));
        match word {
            Readiness::Ready => {
                self.phase = Phase::Ready { pid };
                Some(Change::Ready(pid, took))
            }
            Readiness::NotYet(_) | Readiness::Silent if took < slow_after || *reported_slow => None,
            word => {
                *reported_slow = true;
                let Readiness::NotYet(reason) = word else { return Some(Change::Slow(None)) };
                Some(Change::Slow(Some(reason)))
            }
        }
    }

    /// How its process ended, if it was started here and did since the last look.
    fn reap(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }
}

impl Phase {
    fn pid(self) -> Option<Pid> {
        match self {
            Phase::Down => None,
            Phase::Starting { pid, .. } | Phase::Ready { pid } => Some(pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::file::FleetFile;

    const SLOW: Duration = Duration::from_secs(30);

    fn fixture() -> (tempfile::TempDir, Layout, Watched) {
        let home = tempfile::tempdir().unwrap();
        let file = "name = 'x'\n[[datacenter]]\nname = 'eu'\nracks = { a = 1 }";
        let layout = Layout::plan(home.path(), &FleetFile::parse(file).unwrap(), None).unwrap();
        let watched = Watched::new(layout.nodes()[0].clone());
        (home, layout, watched)
    }

    fn own_pid() -> Pid {
        std::process::id().to_string().parse().unwrap()
    }

    fn starting(watched: &mut Watched, since: Instant) {
        let pid = own_pid();
        watched.phase = Phase::Starting { pid, since, reported_slow: false };
    }

    #[test]
    fn a_process_that_is_gone_died_unless_somebody_wanted_it() {
        let (_home, layout, mut watched) = fixture();
        let now = Instant::now();
        assert_eq!(watched.look(&layout, now), None);
        starting(&mut watched, now);
        assert_eq!(watched.look(&layout, now), Some(Change::Died(None)));
        assert_eq!(watched.look(&layout, now), None);
        std::fs::create_dir_all(layout.run_dir()).unwrap();
        process::wanted_down(&layout, watched.place().id(), true).unwrap();
        starting(&mut watched, now);
        assert_eq!(watched.look(&layout, now), Some(Change::Stopped));
    }

    #[test]
    fn slowness_is_reported_once_and_readiness_still_heard() {
        let (_home, _layout, mut watched) = fixture();
        let start = Instant::now();
        starting(&mut watched, start);
        let not_yet = || Readiness::NotYet("joining".into());
        assert_eq!(watched.heard(not_yet(), start, SLOW), None);
        assert!(watched.is_starting());
        let slow = Change::Slow(Some("joining".into()));
        assert_eq!(watched.heard(not_yet(), start + SLOW, SLOW), Some(slow));
        assert_eq!(watched.heard(Readiness::Silent, start + SLOW * 2, SLOW), None);
        assert!(!watched.is_starting());
        let ready = watched.heard(Readiness::Ready, start + SLOW * 3, SLOW);
        assert_eq!(ready, Some(Change::Ready(own_pid(), SLOW * 3)));
        assert!(watched.is_ready());
    }
}
