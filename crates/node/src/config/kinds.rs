//! Kinds of settings: what a value must be, in words and as a type.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use anello_protocol::{
    cluster::MAX_WEIGHT,
    id::{ClusterName, Datacenter, NodeId, Rack},
};
use toml::Value;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{Durability, LogFormat};

/// A value as it stands in one of the sources.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    /// In the file.
    Toml(&'a Value),
    /// In the environment, where everything is text.
    Text(&'a str),
}

impl<'a> Given<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Given::Toml(value) => value.as_str(),
            Given::Text(text) => Some(text),
        }
    }

    fn integer(self) -> Option<i64> {
        match self {
            Given::Toml(value) => value.as_integer(),
            Given::Text(text) => text.trim().parse().ok(),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Given::Toml(Value::Float(number)) => Some(*number),
            Given::Toml(Value::Integer(number)) => Some(*number as f64),
            Given::Toml(_) => None,
            Given::Text(text) => text.trim().parse().ok(),
        }
    }

    /// In the environment: as in a file, or separated by commas.
    fn list(self) -> Option<Vec<String>> {
        let strings = |value: &Value| -> Option<Vec<String>> {
            value.as_array()?.iter().map(|item| item.as_str().map(String::from)).collect()
        };
        match self {
            Given::Toml(value) => strings(value),
            Given::Text(text) if text.trim_start().starts_with('[') => {
                let table = format!("list = {text}").parse::<toml::Table>().ok()?;
                table.get("list").and_then(strings)
            }
            Given::Text(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(items.map(String::from).collect())
            }
        }
    }
}

/// What a setting must be.
pub(super) struct Kind<T> {
    /// In words, after "expected".
    pub(super) expected: String,
    pub(super) parse: Box<dyn Fn(Given<'_>) -> Option<T>>,
}

impl<T: 'static> Kind<T> {
    fn new(expected: impl Into<String>, parse: impl Fn(Given<'_>) -> Option<T> + 'static) -> Self {
        Self { expected: expected.into(), parse: Box::new(parse) }
    }

    fn name(example: &str) -> Self
    where
        T: FromStr,
    {
        let expected = format!(
            "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit, such as \
             {example:?}"
        );
        Self::new(expected, |given| given.text()?.parse().ok())
    }
}

impl Kind<NodeId> {
    pub(super) fn node() -> Self {
        Self::name("eu-a-1")
    }
}

impl Kind<Datacenter> {
    pub(super) fn datacenter() -> Self {
        Self::name("eu")
    }
}

impl Kind<Rack> {
    pub(super) fn rack() -> Self {
        Self::name("a")
    }
}

impl Kind<ClusterName> {
    pub(super) fn cluster() -> Self {
        Self::name("demo")
    }
}

impl Kind<f64> {
    pub(super) fn weight() -> Self {
        Self::new(format!("a number above 0 and up to {MAX_WEIGHT}"), |given| {
            given.number().filter(|weight| *weight > 0.0 && *weight <= MAX_WEIGHT)
        })
    }

    pub(super) fn ratio() -> Self {
        Self::new("a number from 0 to 1", |given| {
            given.number().filter(|ratio| (0.0..=1.0).contains(ratio))
        })
    }
}

impl Kind<u64> {
    pub(super) fn amount(most: i64) -> Self {
        Self::new(format!("a whole number from 1 to {most}"), move |given| {
            given.integer().filter(|amount| (1..=most).contains(amount))?.try_into().ok()
        })
    }
}

impl Kind<u32> {
    pub(super) fn count(most: i64) -> Self {
        Self::new(format!("a whole number from 1 to {most}"), move |given| {
            given.integer().filter(|count| (1..=most).contains(count))?.try_into().ok()
        })
    }

    pub(super) fn power(most: i64) -> Self {
        Self::new(format!("a power of two from 1 to {most}"), move |given| {
            let count = given.integer().filter(|count| (1..=most).contains(count))?;
            u32::try_from(count).ok().filter(|count| count.is_power_of_two())
        })
    }
}

impl Kind<PathBuf> {
    pub(super) fn path(what: &str) -> Self {
        Self::new(format!("the path of {what}"), |given| {
            given.text().filter(|path| !path.is_empty()).map(PathBuf::from)
        })
    }
}

impl Kind<SocketAddr> {
    pub(super) fn socket() -> Self {
        Self::new("an IP address and a port, such as \"127.0.0.1:7400\"", |given| {
            given.text()?.parse().ok()
        })
    }
}

impl Kind<String> {
    /// An address that others are told: it must lead to this machine from elsewhere.
    pub(super) fn reachable_address() -> Self {
        let expected = "the host and the port at which others reach the node, such as \
                        \"10.0.0.5:7400\"";
        Self::new(expected, |given| {
            let leads_here = |text: &&str| is_address(text) && !is_unspecified(text);
            given.text().filter(leads_here).map(String::from)
        })
    }

    pub(super) fn url() -> Self {
        Self::new("a URL such as \"http://127.0.0.1:4317\"", |given| {
            let is_url = |text: &&str| text.starts_with("http://") || text.starts_with("https://");
            given.text().filter(is_url).map(String::from)
        })
    }

    pub(super) fn log() -> Self {
        let expected = "error, warn, info, debug or trace, or directives such as \
                        \"info,anello_gossip=debug\"";
        Self::new(expected, |given| {
            let text = given.text().filter(|text| !text.trim().is_empty())?;
            let mut directives = text.split(',').filter(|one| !one.is_empty());
            // The filter takes a word that is no level for a target, and silences all others.
            let is_clear = |one: &str| one.contains(['=', '[']) || is_level(one);
            directives.all(is_clear).then_some(())?;
            EnvFilter::try_new(text).ok().map(|_| text.into())
        })
    }
}

impl Kind<Vec<String>> {
    pub(super) fn addresses() -> Self {
        let expected = "a list of the first nodes' QUIC addresses, such as [\"127.0.0.1:7400\"]; \
                        an empty one founds a cluster of one node";
        Self::new(expected, |given| {
            given.list().filter(|list| list.iter().all(|address| is_address(address)))
        })
    }
}

impl Kind<Durability> {
    pub(super) fn durability() -> Self {
        Self::new("\"sync\" or \"os\"", |given| match given.text()? {
            "sync" => Some(Durability::Sync),
            "os" => Some(Durability::Os),
            _ => None,
        })
    }
}

impl Kind<LogFormat> {
    pub(super) fn log_format() -> Self {
        Self::new("\"text\" or \"json\"", |given| match given.text()? {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        })
    }
}

fn is_level(text: &str) -> bool {
    text.parse::<LevelFilter>().is_ok()
}

/// Whether this is every address of a machine, which is where one listens and not where one connects.
fn is_unspecified(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_unspecified())
}

/// Whether this is `host:port`, with a port that one can connect to.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c == '/')
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}
