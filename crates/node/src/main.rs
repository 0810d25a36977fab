//! The program `anello-node`: arguments, settings, signals, exit codes.
//!
//! Exit codes: 0 ended as asked, or left the cluster as an operator asked of it, 1 could not start or go on, 2 wrong arguments or settings.

use std::{
    fmt::Display,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anello_node::{Node, StartError, config::Config, log};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// A node of an Anello cluster: stores its share of the keys, and answers for all of them.
///
/// Every setting of the file can also come from the environment, which wins: ANELLO_NODE__ID is `id` in
/// the section [node]. Relative paths are relative to the working directory.
#[derive(Parser)]
#[command(name = "anello-node", version)]
struct Arguments {
    /// The file of settings; without it, all of them come from the environment.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say what is wrong with the settings, and start nothing.
    #[arg(long)]
    check: bool,
}

/// Requests allocate and free small things all the time, often on different threads, which this does in
/// less time than the system's allocator: 4 % of a node's CPU per operation, reads and writes alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FAILED: u8 = 1;
const BAD_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return unreadable(&error),
    };
    let config = match Config::load(arguments.config.as_deref(), std::env::vars_os()) {
        Ok(config) => config,
        Err(error) => {
            say(io::stderr(), &error);
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    if arguments.check {
        return match Node::check(&config) {
            Ok(()) => {
                say(io::stdout(), format_args!("the settings of {} are good", config.node.id));
                ExitCode::SUCCESS
            }
            Err(error) => refused(&error),
        };
    }
    log::start(&config.telemetry);
    log::abort_on_panic();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refused(&error),
    }
}

/// Starts the node, and stops it when the process is asked to end.
fn run(config: Config) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    let mut asked_to_end = runtime
        .block_on(async {
            Ok([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?])
        })
        .map_err(StartError::Runtime)?;
    let [terminate, interrupt] = &mut asked_to_end;
    // A start may take long: a log is replayed, room on the disk waited for. It may be cut off anywhere.
    let started = runtime.block_on(async {
        let starting = tokio::task::spawn_blocking(|| Node::start(config));
        tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            started = starting => Some(started),
        }
    });
    let Some(started) = started else {
        tracing::info!("asked to end before it had started");
        runtime.shutdown_background();
        return Ok(());
    };
    let ended = |error: tokio::task::JoinError| StartError::Broken(error.to_string());
    let node = started.map_err(ended)??;
    let asked = runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => Ok(Some("SIGTERM")),
            _ = interrupt.recv() => Ok(Some("SIGINT")),
            () = node.left() => Ok(None),
            reason = node.failed() => Err(StartError::Broken(reason)),
        }
    });
    match asked {
        Ok(Some(signal)) => tracing::info!(signal, "asked to end"),
        Ok(None) => tracing::info!(
            "all that this node held is with others, and it is no member any more: it ends, and its data \
             directory is needed by nobody"
        ),
        Err(_) => {}
    }
    node.stop();
    asked.map(|_| ())
}

/// Prints what was asked for (help, a version), or what is wrong with the arguments, as one line.
fn unreadable(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    let error = error.to_string();
    let words: Vec<_> = error.split("\n\n").next().unwrap_or_default().split_whitespace().collect();
    let line = words.join(" ");
    let line = line.trim_start_matches("error: ");
    say(io::stderr(), format_args!("anello-node: {line}; see `anello-node --help`"));
    ExitCode::from(BAD_SETTINGS)
}

fn refused(error: &StartError) -> ExitCode {
    say(io::stderr(), error);
    ExitCode::from(if error.is_about_settings() { BAD_SETTINGS } else { FAILED })
}

/// Prints a line to whoever reads it; the exit code says it too.
fn say(mut to: impl Write, text: impl Display) {
    let _ = writeln!(to, "{text}");
}
