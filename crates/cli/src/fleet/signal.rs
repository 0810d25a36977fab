//! Signals to processes: the one place that calls the C library.

use std::{fmt, num::ParseIntError, str::FromStr};

/// The number of one process: never 0 or negative, which would mean groups of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pid(libc::pid_t);

/// A number that names no process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadPid;

impl From<ParseIntError> for BadPid {
    fn from(_: ParseIntError) -> Self {
        BadPid
    }
}

impl FromStr for Pid {
    type Err = BadPid;

    fn from_str(text: &str) -> Result<Self, BadPid> {
        let number = text.parse()?;
        if number > 1 { Ok(Pid(number)) } else { Err(BadPid) }
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Pid {
    /// The number itself.
    pub(crate) fn number(self) -> i32 {
        self.0
    }

    /// Sends a signal; whether the process was there to get it.
    pub(crate) fn send(self, signal: Signal) -> bool {
        // SAFETY: `kill` takes two numbers and touches no memory of this process; the pid is above 1,
        // so it names one process and no group.
        #[allow(unsafe_code)]
        let sent = unsafe { libc::kill(self.0, signal.number()) };
        sent == 0
    }
}

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// End in order.
    Terminate,
    /// End at once.
    Kill,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Signal::Terminate => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
            Signal::Pause => libc::SIGSTOP,
            Signal::Resume => libc::SIGCONT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pid_means_a_group() {
        for bad in ["0", "1", "-1", "-17", "", "x", "99999999999"] {
            assert_eq!(bad.parse::<Pid>(), Err(BadPid), "{bad}");
        }
        assert_eq!("17".parse::<Pid>().map(|pid| pid.to_string()), Ok("17".into()));
    }
}
