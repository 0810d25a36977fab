//! Where operations go: through the client library, or over HTTP.

use anello_client::{Bytes, Error, Keyspace, Read};

use super::{http::HttpConnection, stats::Result};

/// One client's way to the cluster.
pub(super) enum Target {
    /// The client library: QUIC, straight to a replica.
    Library(Keyspace),
    /// A connection of its own to one node's HTTP API.
    Http(HttpConnection),
}

/// What a read brought, as far as a benchmark cares.
pub(super) struct Seen {
    /// What was found.
    pub(super) result: Result,
    /// The context to write with.
    pub(super) context: Option<String>,
}

impl Target {
    /// Reads a key.
    pub(super) async fn read(&mut self, key: &str) -> Seen {
        match self {
            Target::Library(keyspace) => match keyspace.get(key).send().await {
                Ok(read) => {
                    let result = match &read {
                        Read::One { .. } => Result::Good,
                        Read::Siblings { .. } => Result::Siblings,
                        Read::Deleted { .. } | Read::Missing => Result::Missing,
                    };
                    let context = read.context().map(|context| context.as_str().to_owned());
                    Seen { result, context }
                }
                Err(error) => Seen { result: failed(&error), context: None },
            },
            Target::Http(connection) => connection.get(key).await,
        }
    }

    /// Writes a key.
    pub(super) async fn write(
        &mut self,
        key: &str,
        value: Bytes,
        context: Option<String>,
    ) -> Result {
        match self {
            Target::Library(keyspace) => {
                let context = context.map(anello_client::Context::from_text);
                match keyspace.put(key, value).context(context).send().await {
                    Ok(_) => Result::Good,
                    Err(error) => failed(&error),
                }
            }
            Target::Http(connection) => connection.put(key, value, context).await,
        }
    }
}

fn failed(error: &Error) -> Result {
    Result::Failed(error.to_string())
}
