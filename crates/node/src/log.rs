//! Log lines on stderr, and what happens when a thread panics.

use std::{io, panic, process};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::config::{LogFormat, Telemetry};

const HTTP_SERVER: &str = "actix_http";

/// Sends log lines to stderr as the settings say. A program calls it once; a second call, and one in a
/// program that has a subscriber of its own, changes nothing.
pub fn start(telemetry: &Telemetry) {
    let filter = filter(&telemetry.log);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _ = match telemetry.log_format {
        LogFormat::Text => {
            let colour = io::IsTerminal::is_terminal(&io::stderr());
            lines.with_ansi(colour).with_target(false).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// What the settings say. The HTTP server below calls it an error when a client hangs up, or sends what
/// is no HTTP; unless they ask for its lines, or for all that is there, these stay out.
fn filter(directives: &str) -> EnvFilter {
    let asked = directives.split(',').map(str::trim).any(|directive| {
        directive.starts_with(HTTP_SERVER)
            || directive.parse().is_ok_and(|level: LevelFilter| level >= LevelFilter::DEBUG)
    });
    let quiet = if asked { String::new() } else { format!("{HTTP_SERVER}=off,") };
    EnvFilter::try_new(quiet + directives).unwrap_or_else(|_| EnvFilter::new("info"))
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

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn is_shown(directives: &str) -> bool {
        with_default(tracing_subscriber::registry().with(filter(directives)), || {
            assert!(tracing::enabled!(target: "anello_node", tracing::Level::ERROR));
            tracing::enabled!(target: "actix_http::h1::dispatcher", tracing::Level::ERROR)
        })
    }

    #[test]
    fn the_http_server_speaks_when_asked() {
        for directives in ["info", "warn,anello_gossip=debug", "info,actix=debug", "error"] {
            assert!(!is_shown(directives), "{directives}");
        }
        for directives in ["debug", "TRACE", "info, actix_http=error", "info,actix_http::h1=info"] {
            assert!(is_shown(directives), "{directives}");
        }
    }
}
