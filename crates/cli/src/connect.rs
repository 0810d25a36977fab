//! Where the cluster is and as whom to talk to it: the flags that all commands share, and the client
//! that they make.

use std::{future::Future, path::PathBuf, time::Duration};

use anello_client::{
    Client, ClientBuilder, Consistency, Error, ErrorKind, Profile, ProfileError, QuorumKind, Tally,
};
use anello_protocol::id::Datacenter;
use clap::Args;
use tokio::time::{Instant, timeout_at};

use crate::outcome::Failure;

/// How long a command may take that doesn't say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a change of the cluster: the members vote on it, also while some of them are away.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
/// So much less time is given to what a command does, at most, so that it can still say what is wrong.
const MARGIN_MAX: Duration = Duration::from_millis(100);
/// The longest attempt at one node, so that a node that hangs leaves time for others.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// Where and as whom.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Cluster {
    /// The profile: where the cluster is, and as whom to talk to it; without it $ANELLO_PROFILE, else
    /// the nearest one
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    profile: Option<PathBuf>,
    /// Addresses (QUIC, host:port) to use instead of the profile's; a single one is the only node that
    /// is asked
    #[arg(long, value_name = "ADDR", value_delimiter = ',', value_parser = address)]
    #[arg(help_heading = "Cluster")]
    node: Vec<String>,
    /// How long it may take from start to end, such as 500ms, 5s or 1m; of import and bench, how long
    /// connecting and each operation may; without it 5s, and 20s for a change of the cluster
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Cluster")]
    timeout: Option<Duration>,
}

/// A client for one command, which is over by its deadline.
pub(crate) struct Session {
    client: Client,
    deadline: Instant,
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
    /// How long connecting, or an operation, may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// The datacenter that the profile says one is in; none if nodes are named instead.
    pub(crate) fn datacenter(&self) -> Result<Option<Datacenter>, Failure> {
        Ok(if self.node.is_empty() { self.profile()?.datacenter } else { None })
    }

    fn profile(&self) -> Result<Profile, Failure> {
        let profile = match &self.profile {
            Some(file) => Some(Profile::load(file)?),
            None => Profile::find()?,
        };
        profile.ok_or_else(|| {
            Failure::usage(
                "no profile says where the cluster is: start a fleet in this directory with `anello fleet up FILE`, or name a profile with --profile",
            )
        })
    }

    /// Connects for a command.
    pub(crate) async fn connect(&self, level: &Level) -> Result<Session, Failure> {
        self.connect_within(self.timeout(), level).await
    }

    /// Connects for a command that changes the cluster.
    pub(crate) async fn connect_to_change(&self) -> Result<Session, Failure> {
        self.connect_within(self.timeout.unwrap_or(CHANGE_TIMEOUT), &Level::default()).await
    }

    /// Connects for a command that may take so long unless it is told otherwise.
    pub(crate) async fn connect_for(&self, time: Duration) -> Result<Session, Failure> {
        self.connect_within(self.timeout.unwrap_or(time), &Level::default()).await
    }

    async fn connect_within(&self, time: Duration, level: &Level) -> Result<Session, Failure> {
        let deadline = Instant::now() + time;
        let connecting = self.client(less_margin(time), |builder| level.apply(builder));
        let client = timeout_at(deadline, connecting).await.unwrap_or_else(|_| Err(too_late()))?;
        Ok(Session { client, deadline })
    }

    /// A client for many operations, each of which may take its time, with settings of its own.
    pub(crate) async fn connect_with(
        &self,
        settings: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Client, Failure> {
        self.client(self.timeout(), settings).await
    }

    async fn client(
        &self,
        timeout: Duration,
        settings: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Client, Failure> {
        let profile = self.profile()?;
        let mut builder = Client::builder().profile(&profile);
        if !self.node.is_empty() {
            builder = builder.seeds(self.node.iter().cloned());
        }
        let builder = builder
            .timeout(timeout)
            .attempt_timeout(timeout.min(ATTEMPT_MAX))
            .connect_timeout(timeout);
        let client = settings(builder).connect().await?;
        Ok(match &self.node[..] {
            [only] => client.to_node(only),
            _ => client,
        })
    }
}

impl Session {
    /// The client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// How long the next operation may take so that its outcome can still be told.
    pub(crate) fn left(&self) -> Duration {
        less_margin(self.deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits for an answer, until the command's time is over.
    pub(crate) async fn answer<T>(
        &self,
        asked: impl IntoFuture<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        self.within(asked.into_future(), Failure::from, too_late).await
    }

    /// Waits for the outcome of a write, until the command's time is over.
    pub(crate) async fn written<T>(
        &self,
        asked: impl IntoFuture<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let in_doubt =
            || Failure::failed("no answer came in time; it may have happened all the same");
        self.within(asked.into_future(), Failure::from, in_doubt).await
    }

    /// Waits for the outcome of a change of the cluster, until the command's time is over.
    pub(crate) async fn change<T>(
        &self,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        self.within(asked, Failure::of_change, no_vote).await
    }

    async fn within<T>(
        &self,
        asked: impl Future<Output = Result<T, Error>>,
        failed: fn(Error) -> Failure,
        late: fn() -> Failure,
    ) -> Result<T, Failure> {
        match timeout_at(self.deadline, asked).await {
            Ok(outcome) => outcome.map_err(failed),
            Err(_) => Err(late()),
        }
    }

    /// Closes the connections: a courtesy to the nodes, for which no more time is taken than there is.
    pub(crate) async fn close(&self) {
        let _ = timeout_at(self.deadline, self.client.close()).await;
    }
}

fn less_margin(time: Duration) -> Duration {
    time - (time / 10).min(MARGIN_MAX)
}

fn too_late() -> Failure {
    Failure::failed("no answer came in time; is the cluster up, and the address right?")
}

fn no_vote() -> Failure {
    Failure::failed(
        "the members did not answer in time; it may have happened all the same: `anello keyspace list` shows what they agreed on, `anello status` who answers",
    )
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

impl Failure {
    /// Why a change of the cluster, which its members vote on, came to nothing.
    pub(crate) fn of_change(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unavailable { required, alive } => Failure::too_few_replicas(format_args!(
                "{required} members must agree and only {alive} can be reached; `anello status` shows who answers"
            )),
            ErrorKind::Timeout { .. } => no_vote(),
            // What was asked makes sense, and the cluster as it is does not allow it.
            ErrorKind::Invalid(why) => Failure::failed(one_line(why)),
            ErrorKind::Conflict(why) => Failure::failed(format_args!(
                "{}; `anello status` shows how far it is",
                one_line(why)
            )),
            _ => error.into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = one_line(&error.to_string());
        match error.kind() {
            ErrorKind::Invalid(_) => Failure::usage(message),
            ErrorKind::Unavailable { required, .. }
            | ErrorKind::Timeout { tally: Some(Tally { required, .. }) } => {
                // Fewer than one there is not.
                let lower = if *required > 1 { ", a lower --consistency needs fewer" } else { "" };
                Failure::too_few_replicas(format_args!(
                    "{message}; `anello status` shows who answers{lower}"
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
