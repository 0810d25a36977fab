//! What takes a while says how far it is: a bar on a terminal, else a line every few seconds. On
//! standard error, so that what is piped stays clean.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{self, time_for_people};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// What is over sooner than this gets no bar.
const QUIET: Duration = Duration::from_millis(500);

/// How far something is.
pub(crate) struct Progress {
    what: &'static str,
    began: Instant,
    /// Parts in all, if that is known, and parts that were done before this began.
    parts: Option<u64>,
    before: u64,
    shown: Shown,
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { next: Instant },
}

impl Progress {
    /// Begins to show how far `what` is of so many parts.
    pub(crate) fn begin(what: &'static str, parts: Option<u64>, before: u64) -> Self {
        let began = Instant::now();
        let shown = if io::stderr().is_terminal() {
            Shown::Nothing
        } else {
            Shown::Lines { next: began + LINE_EVERY }
        };
        Self { what, began, parts, before, shown }
    }

    /// Shows that so many parts are done, which are so many things.
    pub(crate) fn at(&mut self, done: u64, things: u64) {
        let now = Instant::now();
        let took = now.duration_since(self.began);
        let text = self.text(done, things, took);
        match &mut self.shown {
            Shown::Nothing if took < QUIET => {}
            Shown::Nothing => {
                let bar = bar(self.what, self.parts);
                bar.set_position(done);
                bar.set_message(text);
                self.shown = Shown::Bar(bar);
            }
            Shown::Bar(bar) => {
                bar.set_message(text);
                bar.set_position(done);
            }
            Shown::Lines { next } if now >= *next => {
                *next = now + LINE_EVERY;
                let percent = match self.parts {
                    Some(parts) if parts > 0 => format!("{} %, ", 100 * done.min(parts) / parts),
                    _ => String::new(),
                };
                output::note(format_args!("{}: {percent}{}", self.what, text));
            }
            Shown::Lines { .. } => {}
        }
    }

    /// From here on it is known to be so many parts.
    pub(crate) fn of(&mut self, parts: u64) {
        self.parts = Some(parts);
        if let Shown::Bar(bar) = &self.shown {
            bar.set_length(parts);
        }
    }

    /// Says something without tearing the bar apart.
    pub(crate) fn say(&self, text: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.println(text),
            Shown::Nothing | Shown::Lines { .. } => output::note(text),
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    fn text(&self, done: u64, things: u64, took: Duration) -> String {
        let rate = things as f64 / took.as_secs_f64().max(0.001);
        let left = self
            .left(done, took)
            .map_or_else(String::new, |left| format!(", {} left", time_for_people(left)));
        format!("{things} done, {rate:.0}/s{left}")
    }

    /// The time that is left if it goes on as it did.
    fn left(&self, done: u64, took: Duration) -> Option<Duration> {
        let here = done.checked_sub(self.before).filter(|here| *here > 0)?;
        let left = self.parts?.saturating_sub(done);
        Duration::try_from_secs_f64(took.as_secs_f64() * left as f64 / here as f64).ok()
    }
}

fn bar(what: &'static str, parts: Option<u64>) -> ProgressBar {
    let (bar, template) = match parts {
        Some(parts) => (ProgressBar::new(parts), "{prefix} [{bar:30}] {percent:>3} %  {msg}"),
        None => (ProgressBar::new_spinner(), "{prefix} {spinner}  {msg}"),
    };
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
    bar.set_style(style);
    bar.set_prefix(what);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_counts_only_what_was_done_here() {
        let progress = Progress::begin("import", Some(1000), 400);
        let ten_s = Duration::from_secs(10);
        assert_eq!(progress.left(400, ten_s), None);
        assert_eq!(progress.left(700, ten_s), Some(ten_s));
        assert_eq!(progress.text(700, 50, ten_s), "50 done, 5/s, 10 s left");
    }
}
