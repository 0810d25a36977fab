//! How a worker of the load reaches the cluster: over HTTP at one node, so that every answer and every
//! failure is that node's; or by the client library over QUIC, which finds its way by itself.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anello_client::{Client, Consistency, Context, Error, Read, Sibling};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::fleet::http;

/// Longer than a node may take for a request that names no time of its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a key holds, and what goes with the next write of it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub values: Vec<String>,
    pub context: Option<String>,
}

/// Why there was no success.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The node took no connection: nothing was asked.
    NotTaken,
    /// What came instead of an answer.
    Failed(String),
}

/// A way in.
pub trait Door: Send {
    fn get(&mut self, key: &str) -> Result<Found, Failure>;
    /// Answers with the new context.
    fn put(&mut self, key: &str, value: &str, context: Option<&str>) -> Result<String, Failure>;
    /// Waits a little for a node that took no connection; whether it serves again.
    fn knock(&mut self) -> bool;
}

/// One node, over HTTP.
pub struct AtNode {
    pub node: SocketAddr,
    /// `Anello-Consistency`.
    pub level: &'static str,
    /// `Anello-Quorum`.
    pub kind: &'static str,
}

impl AtNode {
    fn ask(
        &self,
        method: &str,
        key: &str,
        context: Option<&str>,
        body: &str,
    ) -> Result<http::Answer, Failure> {
        let stream = TcpStream::connect_timeout(&self.node, PATIENCE).map_err(|error| {
            match error.kind() {
                // Past this there is a connection, or somebody who could have made one.
                io::ErrorKind::ConnectionRefused => Failure::NotTaken,
                _ => Failure::Failed(format!("connecting: {error}")),
            }
        })?;
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let mut headers = vec![("Anello-Consistency", self.level), ("Anello-Quorum", self.kind)];
        headers.extend(context.map(|context| ("Anello-Context", context)));
        http::request_over(stream, method, &format!("/kv/{key}"), &headers, body.as_bytes())
            .map_err(|error| Failure::Failed(format!("{method}: {error}")))
    }
}

impl Door for AtNode {
    fn get(&mut self, key: &str) -> Result<Found, Failure> {
        found(&self.ask("GET", key, None, "")?).map_err(Failure::Failed)
    }

    fn put(&mut self, key: &str, value: &str, context: Option<&str>) -> Result<String, Failure> {
        let answer = self.ask("PUT", key, context, value)?;
        match (answer.status, answer.header("Anello-Context")) {
            (200, Some(context)) => Ok(context.to_owned()),
            (status, _) => Err(Failure::Failed(format!("PUT: {status} {}", answer.text()))),
        }
    }

    fn knock(&mut self) -> bool {
        let ready = http::get(self.node, "/readyz").is_ok_and(|answer| answer.status == 200);
        if !ready {
            thread::sleep(Duration::from_millis(50));
        }
        ready
    }
}

/// Reads the answer to a `GET`.
pub fn found(answer: &http::Answer) -> Result<Found, String> {
    let text = |version: &Value| version["value"].as_str().map(str::to_owned);
    let values = match answer.status {
        200 => text(&answer.json()).into_iter().collect(),
        300 => {
            let json = answer.json();
            json["versions"].as_array().into_iter().flatten().filter_map(text).collect()
        }
        404 => Vec::new(),
        status => return Err(format!("GET: {status} {}", answer.text())),
    };
    Ok(Found { values, context: answer.header("Anello-Context").map(str::to_owned) })
}

/// The client library.
pub struct ByClient {
    pub runtime: Arc<Runtime>,
    pub client: Client,
    pub level: Consistency,
}

impl Door for ByClient {
    fn get(&mut self, key: &str) -> Result<Found, Failure> {
        let read = self.runtime.block_on(self.client.get(key).consistency(self.level).send());
        let read = read.map_err(failed)?;
        let context = read.context().map(ToString::to_string);
        let siblings = match read {
            Read::One { value, .. } => vec![Sibling::Value(value)],
            Read::Siblings { siblings, .. } => siblings,
            Read::Deleted { .. } | Read::Missing => Vec::new(),
        };
        let values = siblings.into_iter().filter_map(|sibling| match sibling {
            Sibling::Value(value) => Some(String::from_utf8_lossy(&value).into_owned()),
            Sibling::Deleted => None,
        });
        Ok(Found { values: values.collect(), context })
    }

    fn put(&mut self, key: &str, value: &str, context: Option<&str>) -> Result<String, Failure> {
        let put = self.client.put(key, value.to_owned()).consistency(self.level);
        let put = put.context(context.map(Context::from_text));
        self.runtime.block_on(put.send()).map(|context| context.to_string()).map_err(failed)
    }

    fn knock(&mut self) -> bool {
        true
    }
}

fn failed(error: Error) -> Failure {
    Failure::Failed(error.to_string())
}
