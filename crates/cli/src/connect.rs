//! Where the cluster is and as whom to talk to it: the flags that all commands share, and the client
//! that they make.

use std::{path::PathBuf, time::Duration};

use anello_client::{
    Client, ClientBuilder, Consistency, Error, ErrorKind, Profile, ProfileError, QuorumKind,
};
use anello_protocol::id::Datacenter;
use clap::Args;

use crate::outcome::Failure;

/// Where and as whom.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Cluster {
    /// The profile: where the cluster is, and as whom to talk to it
    #[arg(long, value_name = "FILE", env = Profile::VARIABLE, help_heading = "Cluster")]
    profile: Option<PathBuf>,
    /// Addresses (QUIC, host:port) to use instead of the profile's; a single one is the only node that
    /// is asked
    #[arg(long, value_name = "ADDR", value_delimiter = ',', value_parser = address)]
    #[arg(help_heading = "Cluster")]
    node: Vec<String>,
    /// How long it may take, such as 500ms, 5s or 1m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    #[arg(help_heading = "Cluster")]
    timeout: Duration,
}

/// How many replicas must answer.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Level {
    /// How many replicas must answer: one, two, three, quorum, all, local_one, local_quorum,
    /// each_quorum; without it, what the keyspace says
    #[arg(long, value_name = "LEVEL", help_heading = "Consistency")]
    consistency: Option<Consistency>,
    /// That many replicas must answer a read
    #[arg(short = 'r', value_name = "N", value_parser = count, help_heading = "Consistency")]
    read: Option<Consistency>,
    /// That many replicas must acknowledge a write
    #[arg(short = 'w', value_name = "N", value_parser = count, help_heading = "Consistency")]
    write: Option<Consistency>,
    /// Only the key's own replicas count, no stand-ins
    #[arg(long, help_heading = "Consistency")]
    strict: bool,
}

impl Cluster {
    /// How long it may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The datacenter that the profile says one is in; none if nodes are named instead.
    pub(crate) fn datacenter(&self) -> Result<Option<Datacenter>, Failure> {
        Ok(if self.node.is_empty() { self.profile()?.datacenter } else { None })
    }

    fn profile(&self) -> Result<Profile, Failure> {
        let profile = match &self.profile {
            Some(file) if !file.as_os_str().is_empty() => Some(Profile::load(file)?),
            _ => Profile::find()?,
        };
        profile.ok_or_else(|| {
            Failure::usage(
                "no profile says where the cluster is: start a fleet in this directory with `anello fleet up FILE`, or name a profile with --profile",
            )
        })
    }

    /// A client of the cluster.
    pub(crate) async fn connect(&self, level: &Level) -> Result<Client, Failure> {
        self.connect_with(|builder| level.apply(builder)).await
    }

    /// A client of the cluster, with settings of its own.
    pub(crate) async fn connect_with(
        &self,
        settings: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Client, Failure> {
        let profile = self.profile()?;
        let mut builder = Client::builder().profile(&profile);
        if !self.node.is_empty() {
            builder = builder.seeds(self.node.iter().cloned());
        }
        let builder = builder
            .timeout(self.timeout)
            .attempt_timeout(self.timeout.min(Duration::from_secs(2)))
            .connect_timeout(self.timeout);
        let client = settings(builder).connect().await?;
        Ok(match &self.node[..] {
            [only] => client.to_node(only),
            _ => client,
        })
    }
}

impl Level {
    /// The level of reads, if one is named.
    pub(crate) fn read(&self) -> Option<Consistency> {
        self.read.or(self.consistency)
    }

    /// The level of writes, if one is named.
    pub(crate) fn write(&self) -> Option<Consistency> {
        self.write.or(self.consistency)
    }

    /// Tells the client.
    pub(crate) fn apply(&self, mut builder: ClientBuilder) -> ClientBuilder {
        if let Some(level) = self.read() {
            builder = builder.read_consistency(level);
        }
        if let Some(level) = self.write() {
            builder = builder.write_consistency(level);
        }
        builder.quorum(if self.strict { QuorumKind::Strict } else { QuorumKind::Sloppy })
    }
}

fn count(text: &str) -> Result<Consistency, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(Consistency::Count(count)),
        _ => Err("expected a number of replicas, 1 or more".into()),
    }
}

fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(text.into()),
        _ => Err("expected host:port, such as 127.0.0.1:7400".into()),
    }
}

/// A time with its unit: `250ms`, `5s`, `1m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_s = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a time with its unit, such as 500ms, 5s or 1m".into()),
    };
    let time = number.parse().ok().and_then(|n: f64| Duration::try_from_secs_f64(n * unit_s).ok());
    let time = time.filter(|time| *time >= Duration::from_millis(1));
    time.ok_or_else(|| "expected a time of a millisecond or more".into())
}

/// One line, whatever it was.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        Failure::usage(format_args!("bad profile: {}", one_line(&error.to_string())))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = one_line(&error.to_string());
        match error.kind() {
            ErrorKind::Invalid(_) => Failure::usage(message),
            ErrorKind::Unavailable { .. } | ErrorKind::Timeout { tally: Some(_) } => {
                Failure::too_few_replicas(format_args!(
                    "{message}; `anello status` shows who answers, a lower --consistency needs fewer"
                ))
            }
            ErrorKind::Unreachable(_) | ErrorKind::Timeout { tally: None } => Failure::failed(
                format_args!("{message}; is the cluster up, and the address right?"),
            ),
            _ => Failure::failed(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "-1s", "0s", "1e400s", "1..2s", "5 s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_ports() {
        assert!(address("127.0.0.1:7400").is_ok() && address("[::1]:7400").is_ok());
        for bad in ["", "localhost", ":7400", "h:0", "h:99999", "h:x"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
