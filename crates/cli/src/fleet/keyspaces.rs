//! Brings a cluster's keyspaces to what a fleet file says of them.

use std::time::{Duration, Instant};

use anello_client::{Client, Error};
use anello_protocol::{cluster::KeyspaceConfig, id::KeyspaceName};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::layout::Layout;
use crate::{outcome::Failure, output::Tone};

/// How long the members may take to agree, all in all: they may still be taking each other in.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);

/// Creates and alters keyspaces; leaves alone those that are as they should be. That it can't be done
/// is reported, and no reason to bring the fleet down.
pub(super) async fn apply(
    layout: &Layout,
    keyspaces: &[(KeyspaceName, KeyspaceConfig)],
    tell: impl Fn(Tone, String, Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if keyspaces.is_empty() {
        return Ok(());
    }
    let client = match Client::from_profile(&layout.profile()).await {
        Ok(client) => client,
        Err(error) => {
            let problem = format!("keyspaces are as they were: {error}");
            let document = json!({ "keyspace": null, "state": "unchanged", "reason": problem });
            return tell(Tone::Bad, problem, document);
        }
    };
    for (name, config) in keyspaces {
        let until = Instant::now() + PATIENCE;
        match set(&client, name, config, until).await {
            Ok(true) => tell(
                Tone::Good,
                format!("keyspace {name} is as the fleet file says"),
                json!({ "keyspace": name, "state": "set" }),
            )?,
            Ok(false) => {}
            Err(error) => tell(
                Tone::Bad,
                format!("keyspace {name} is as it was: {error}"),
                json!({ "keyspace": name, "state": "unchanged", "reason": error.to_string() }),
            )?,
        }
    }
    client.close().await;
    Ok(())
}

/// Sets one keyspace; whether there was anything to do.
async fn set(
    client: &Client,
    name: &KeyspaceName,
    config: &KeyspaceConfig,
    until: Instant,
) -> Result<bool, Error> {
    loop {
        let done = async {
            if client.keyspaces().await?.get(name) == Some(config) {
                return Ok(false);
            }
            client.set_keyspace(name.as_str(), config.clone()).await.map(|_| true)
        };
        match done.await {
            Err(error) if error.is_retryable() && Instant::now() < until => sleep(PAUSE).await,
            decided => return decided,
        }
    }
}
