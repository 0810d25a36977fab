//! Standard output: lines for people, bytes for pipes, JSON for programs, colour on a terminal only.
//!
//! Who closes it early, as `head` does, has seen enough: that is no failure, and the command ends as it
//! would have otherwise.

use std::{
    env,
    fmt::{self, Display},
    io::{self, IsTerminal, Write},
    time::Duration,
};

use serde::Serialize;

use crate::outcome::Failure;

/// Prints a line.
pub(crate) fn line(text: impl Display) -> Result<(), Failure> {
    is_read(text).map(drop)
}

/// Prints a line; whether somebody may still read it.
pub(crate) fn is_read(text: impl Display) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    printed(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    printed(out.write_all(bytes).and_then(|()| out.flush())).map(drop)
}

fn printed(outcome: io::Result<()>) -> Result<bool, Failure> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::failed(format_args!("cannot write to standard output: {error}")))
        }
    }
}

/// Prints a line on standard error, for a person who may not be there: the exit code says it too.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints one JSON document on one line.
pub(crate) fn json(document: &impl Serialize) -> Result<(), Failure> {
    match serde_json::to_string(document) {
        Ok(text) => line(text),
        Err(error) => Err(Failure::failed(format_args!("cannot write JSON: {error}"))),
    }
}

/// A number of bytes, to three digits or so.
pub(crate) fn bytes_for_people(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            let digits = if unit == "B" || amount >= 100.0 { 0 } else { 1 };
            return format!("{amount:.digits$} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// A time, in its largest unit and the one below.
pub(crate) fn time_for_people(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {:02} m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// What a piece of text means to a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As everything else.
    #[default]
    Plain,
    /// A heading.
    Strong,
    /// Of less interest.
    Faint,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Bad,
}

/// Whether what is printed is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Palette {
    colours: bool,
}

impl Palette {
    /// Colours if standard output is a terminal that has them and nobody asked for none
    /// (<https://no-color.org>).
    pub(crate) fn of_stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    /// The same for standard error.
    pub(crate) fn of_stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colours: terminal && !refused && !dumb }
    }

    /// No colours.
    #[cfg_attr(not(test), expect(dead_code, reason = "what tests compare has no escapes"))]
    pub(crate) fn plain() -> Self {
        Self { colours: false }
    }

    /// The text in its tone.
    pub(crate) fn paint<T: Display>(self, tone: Tone, text: T) -> Painted<T> {
        Painted { code: if self.colours { tone.code() } else { "" }, text }
    }
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        }
    }
}

/// Text with its colour around it.
pub(crate) struct Painted<T> {
    code: &'static str,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() {
            self.text.fmt(f)
        } else {
            write!(f, "\x1b[{}m", self.code)?;
            self.text.fmt(f)?;
            f.write_str("\x1b[0m")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        let bytes = [0, 1023, 1024, 150 << 20, 5 << 40].map(bytes_for_people);
        assert_eq!(bytes, ["0 B", "1023 B", "1.0 KiB", "150 MiB", "5.0 TiB"]);
        let times = [5, 65, 3_700, 90_000].map(|s| time_for_people(Duration::from_secs(s)));
        assert_eq!(times, ["5 s", "1 m 05 s", "1 h 01 m", "1 d 01 h"]);
    }
}
