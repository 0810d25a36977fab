//! `anello bench`: YCSB's workloads, closed or open loop, through the client library or HTTP.
//!
//! Updates are blind, so they would pile up siblings where concurrent writes are kept. The benchmark
//! therefore writes to a keyspace of its own, `bench`, in which the last write wins, creates it if need
//! be, and refuses to write blindly to one that keeps siblings.

mod cpu;
mod disk;
mod http;
mod keys;
mod phase;
mod prepare;
mod report;
mod stats;
mod target;
mod worker;
mod workload;

use std::{path::PathBuf, time::Duration};

use anello_protocol::id::KeyspaceName;
use clap::Args;
use serde_json::json;

use crate::{
    connect::{Cluster, Level, duration},
    fleet::signal::Pid,
    outcome::{Failure, Outcome},
    output::{self, Palette},
};
use phase::Setup;
use workload::{Distribution, Mix, Workload};

/// Measure the cluster: YCSB's workloads, throughput, latency percentiles
///
/// Writes to a keyspace of its own (bench, where the last write wins), which stays: `anello keyspace
/// drop bench` removes it.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The mix of operations
    #[arg(long, value_enum, default_value = "b", ignore_case = true)]
    workload: Workload,
    /// That share of reads, 0 to 1, the rest updates; instead of a workload
    #[arg(long, value_name = "RATIO", value_parser = ratio, conflicts_with = "workload")]
    read_ratio: Option<f64>,
    /// Which keys are asked for how often; without it, what goes with the workload
    #[arg(long, value_enum)]
    distribution: Option<Distribution>,
    /// How many keys there are
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// How large values are
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
    /// How many clients there are, each with one operation at a time
    #[arg(long, value_name = "COUNT", default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    clients: u16,
    /// Operations a second that are due whatever the cluster does (an open loop); without it each
    /// client begins its next operation when the one before has ended
    #[arg(long, value_name = "OPS", value_parser = rate)]
    rate: Option<f64>,
    /// How long it is measured
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// How long operations run before they count
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    warm_up: Duration,
    /// Write every key once before
    #[arg(long)]
    load: bool,
    /// Over HTTP instead of through the client library
    #[arg(long)]
    http: bool,
    /// How many connections to each node the client library has in each thread
    #[arg(long, value_name = "COUNT", default_value_t = 1, conflicts_with = "http")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
    /// Threads of this program
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// The keyspace
    #[arg(long, value_name = "NAME", default_value = "bench")]
    keyspace: KeyspaceName,
    /// Processes whose CPU time is reported; without it, the nodes of the fleet below ./.anello, if it
    /// is this cluster
    #[arg(long, value_name = "PID", value_delimiter = ',', value_parser = pid)]
    server_pid: Vec<Pid>,
    /// Also measure what a durable write costs in this directory
    #[arg(long, value_name = "DIR")]
    sync_dir: Option<PathBuf>,
    /// What all randomness comes from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// One JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    level: Level,
    #[command(flatten)]
    cluster: Cluster,
}

impl Bench {
    fn mix(&self) -> Mix {
        self.read_ratio.map_or_else(|| self.workload.mix(), Mix::reads)
    }

    fn distribution(&self) -> Distribution {
        let usual = match self.read_ratio {
            Some(_) => Distribution::Zipfian,
            None => self.workload.distribution(),
        };
        self.distribution.unwrap_or(usual)
    }
}

/// Measures.
pub(crate) fn run(command: Bench) -> Result<Outcome, Failure> {
    let mut prepared = None;
    crate::runtime::run(async {
        prepared = Some(prepare::prepare(&command).await?);
        Ok(Outcome::Done)
    })?;
    let Some(prepared) = prepared else { return Ok(Outcome::Done) };
    let sync_price = match &command.sync_dir {
        Some(dir) => Some(disk::sync_price(dir).map_err(|error| {
            Failure::failed(format_args!("cannot measure in {}: {error}", dir.display()))
        })?),
        None => None,
    };
    let setup = Setup { command: &command, prepared: &prepared };
    let mut phases = Vec::new();
    if command.load || prepared.is_new {
        phases.push(setup.load()?);
        show(&command, &phases)?;
    }
    phases.push(setup.run()?);
    show(&command, &phases)?;
    if command.json {
        let phases: Vec<_> = phases.iter().map(report::Measured::json).collect();
        output::json(&json!({
            "transport": if command.http { "http" } else { "client" },
            "keyspace": command.keyspace,
            "keys": command.keys,
            "value_bytes": command.value_bytes,
            "clients": command.clients,
            "threads": command.threads,
            "rate": command.rate,
            "sync_us": sync_price.map(|price| json!({
                "p50": price.p50.as_micros() as u64,
                "p99": price.p99.as_micros() as u64,
            })),
            "phases": phases,
        }))?;
    } else if let Some(price) = sync_price {
        output::line(report::sync_text(price))?;
    }
    Ok(Outcome::Done)
}

/// Shows the last phase as soon as it is over.
fn show(command: &Bench, phases: &[report::Measured]) -> Result<(), Failure> {
    match phases.last() {
        Some(phase) if !command.json => output::line(phase.text(Palette::of_stdout())),
        _ => Ok(()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1, such as 0.95".into())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && *rate <= 1e9);
    rate.ok_or_else(|| "expected operations a second, such as 5000".into())
}

fn pid(text: &str) -> Result<Pid, String> {
    text.parse().map_err(|_| "expected a process's number".into())
}
