//! `anello-sim`: runs seeds, and replays one with everything that happens in it.

use std::{
    fs,
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anello_sim::{
    run::{Counters, Outcome, Settings, replay_command, run},
    scale,
};
use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

/// Simulates fleets and checks what Anello promises.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run this seed, and show how much happened.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens (with --seed).
    #[arg(long)]
    trace: bool,
    /// Run the seeds FROM..TO, without TO.
    #[arg(long, value_name = "FROM..TO", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// Run so many seeds that were never run before.
    #[arg(long, value_name = "N")]
    fresh: Option<u64>,
    /// End with the first seed that fails.
    #[arg(long)]
    stop_at_first: bool,
    /// How many seeds run at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Subcommand)]
enum Command {
    /// Measures membership as the cluster grows, and prints a table.
    Scale {
        /// With how many nodes, one run each.
        #[arg(long, value_delimiter = ',', default_value = "10,30,100,300,1000")]
        nodes: Vec<usize>,
        /// What the runs are drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// For how many seconds of their time the nodes rest before anything happens.
        #[arg(long, default_value_t = 40)]
        rest: u64,
        /// Also draws a figure, into this file.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
}

fn seeds(text: &str) -> anyhow::Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("expected FROM..TO")?;
    Ok(from.parse()?..to.parse()?)
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(Command::Scale { nodes, seed, rest, svg }) = args.command {
        return measure(&nodes, seed, Duration::from_secs(rest), svg);
    }
    if let Some(seed) = args.seed {
        let outcome = run(Settings { is_traced: args.trace, ..Settings::of(seed) });
        println!("{:#?}\nhistory {:016x}", outcome.counters, outcome.history_hash);
        show(seed, &outcome);
        return Ok(code(!outcome.violations.is_empty()));
    }
    let range = match (args.seeds, args.fresh) {
        (Some(seeds), None) => seeds,
        (None, Some(count)) => {
            let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            let from = u64::try_from(clock.as_micros())?;
            from..from + count
        }
        _ => bail!("one of --seed, --seeds and --fresh"),
    };
    println!("seeds {}..{}", range.start, range.end);
    let began = Instant::now();
    let next = AtomicU64::new(range.start);
    let finished = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let failed = Mutex::new(Vec::new());
    let sum = Mutex::new(Counters::default());
    thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end || is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let outcome = run(Settings::of(seed));
                    finished.fetch_add(1, Ordering::Relaxed);
                    sum.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome.counters);
                    if !outcome.violations.is_empty() {
                        is_over.store(args.stop_at_first, Ordering::Relaxed);
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push(seed);
                        show(seed, &outcome);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let count = finished.into_inner();
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("together {sum:?}");
    println!("{count} seeds in {:.1?}, {} failed", began.elapsed(), failed.len());
    Ok(code(!failed.is_empty()))
}

fn measure(
    nodes: &[usize],
    seed: u64,
    rest: Duration,
    svg: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let mut measured = Vec::new();
    for nodes in nodes {
        let began = Instant::now();
        let mut tell = |step: &str| eprintln!("{nodes} nodes: {step}, {:.1?}", began.elapsed());
        measured.push(scale::measure(*nodes, seed, rest, &mut tell)?);
        tell("measured");
        let wrong = measured.last().into_iter().flat_map(|last| &last.false_verdicts);
        wrong.take(5).for_each(|verdict| eprintln!("{verdict}"));
    }
    print!("{}", scale::table(&measured));
    if let Some(file) = svg {
        fs::write(&file, scale::svg(&measured)).with_context(|| format!("{}", file.display()))?;
    }
    Ok(code(measured.iter().any(|measured| !measured.false_verdicts.is_empty())))
}

fn show(seed: u64, outcome: &Outcome) {
    for violation in outcome.violations.iter().take(3) {
        let at_ms = violation.at.0 / 1000;
        println!("seed {seed} at {at_ms} ms: {}: {}", violation.check, violation.what);
    }
    if !outcome.violations.is_empty() {
        println!("replay: {}", replay_command(seed));
    }
}

fn code(is_failed: bool) -> ExitCode {
    if is_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
