//! Log lines on stderr, and what happens when a thread panics.

use std::{io, panic, process};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// Sends log lines to stderr as the settings say. A program calls it once; a second call, and one in a
/// program that has a subscriber of its own, changes nothing.
pub fn start(telemetry: &Telemetry) {
    let filter = EnvFilter::try_new(&telemetry.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _ = match telemetry.log_format {
        LogFormat::Text => {
            let colour = io::IsTerminal::is_terminal(&io::stderr());
            lines.with_ansi(colour).with_target(false).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// Ends the whole process when one of its threads panics, after a log line.
///
/// A node that lost an arbiter would still be listened to, gossip, and answer nothing: its peers route
/// around a dead process at once, around a half-dead one never. What is acknowledged is on disk.
pub fn abort_on_panic() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        tracing::error!("a thread panicked; the process ends: {info}");
        process::abort();
    }));
}
