//! `anello put`, `get` and `delete`: one key.

mod receipt;
mod versions;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Read as _},
    os::unix::ffi::OsStringExt,
};

use anello_client::{Bytes, Context, Keyspace, Read, request::Explained};
use anello_protocol::{id::KeyspaceName, message::client::Receipt, version::MAX_VALUE_BYTES};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    connect::{Cluster, Level, Session},
    outcome::{Failure, Outcome},
    output,
};

/// What all three take.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The key: 1 to 1,024 bytes
    key: OsString,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// The keyspace
    #[arg(long, value_name = "NAME", default_value = "default")]
    keyspace: KeyspaceName,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
    /// Say which replicas took part, and how
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    level: Level,
    #[command(flatten)]
    cluster: Cluster,
}

/// Write a value to a key
///
/// Without --context the write is concurrent with whatever is there; with the context of a read it
/// replaces what was read.
#[derive(Debug, Args)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) common: Common,
    /// The value; - or nothing reads it from standard input
    #[arg(value_name = "VALUE|-")]
    value: Option<OsString>,
    #[command(flatten)]
    seen: Seen,
}

/// Read a key
///
/// Prints the value as it is, and exits with 4 if there is none. Concurrent versions are all printed,
/// each with its number, and the exit code is 3.
#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Delete a key
///
/// Without --context it covers what a quorum shows at that moment.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    seen: Seen,
}

#[derive(Debug, Args)]
struct Seen {
    /// What was seen: the context of an earlier read or write of the same key
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
}

impl Seen {
    fn context(&self) -> Option<Context> {
        self.context.clone().map(Context::from_text)
    }
}

impl Common {
    /// Whether a program reads what is printed.
    pub(crate) fn wants_json(&self) -> bool {
        self.how.json
    }

    async fn connect(&self) -> Result<(Session, Keyspace), Failure> {
        let session = self.how.cluster.connect(&self.how.level).await?;
        let keyspace = session.client().keyspace(self.how.keyspace.as_str());
        Ok((session, keyspace))
    }

    fn key(&self) -> Vec<u8> {
        self.key.clone().into_vec()
    }

    /// Says who took part: in the document, or on standard error beside what was read.
    fn explain(&self, receipt: Option<Receipt>, document: &mut Value) {
        let Some(receipt) = receipt.filter(|_| self.how.explain) else { return };
        if self.how.json {
            document["receipt"] = receipt::json(&receipt);
        } else {
            output::note(receipt::table(&receipt));
        }
    }
}

/// Writes.
pub(crate) async fn put(command: Put) -> Result<Outcome, Failure> {
    let Put { common, value, seen } = command;
    let value = match value {
        Some(value) if value != "-" => value.into_vec().into(),
        _ => value_from_stdin()?,
    };
    let (session, keyspace) = common.connect().await?;
    let put = keyspace.put(common.key(), value).context(seen.context()).timeout(session.left());
    let written = if common.how.explain {
        session.written(put.explained()).await
    } else {
        session.written(put).await.map(|answer| Explained { answer, receipt: None })
    };
    session.close().await;
    report_write(&common, written?, "stored")
}

/// Deletes.
pub(crate) async fn delete(command: Delete) -> Result<Outcome, Failure> {
    let Delete { common, seen } = command;
    let (session, keyspace) = common.connect().await?;
    let delete = keyspace.delete(common.key()).context(seen.context()).timeout(session.left());
    let written = if common.how.explain {
        session.written(delete.explained()).await
    } else {
        session.written(delete).await.map(|answer| Explained { answer, receipt: None })
    };
    session.close().await;
    report_write(&common, written?, "deleted")
}

fn report_write(
    common: &Common,
    written: Explained<Context>,
    done: &str,
) -> Result<Outcome, Failure> {
    let mut document = json!({ "context": written.answer.as_str() });
    common.explain(written.receipt, &mut document);
    if common.how.json {
        output::json(&document)?;
    } else {
        output::line(done)?;
    }
    Ok(Outcome::Done)
}

/// Reads.
pub(crate) async fn get(command: Get) -> Result<Outcome, Failure> {
    let common = command.common;
    let (session, keyspace) = common.connect().await?;
    let get = keyspace.get(common.key()).timeout(session.left());
    let found = if common.how.explain {
        session.answer(get.explained()).await
    } else {
        session.answer(get).await.map(|answer| Explained { answer, receipt: None })
    };
    session.close().await;
    let Explained { answer, receipt } = found?;
    let mut document = versions::json(&answer);
    common.explain(receipt, &mut document);
    let shown = if common.how.json { output::json(&document) } else { show(&common, &answer) };
    shown.map(|()| match answer {
        Read::One { .. } => Outcome::Done,
        Read::Siblings { .. } => Outcome::Siblings,
        Read::Deleted { .. } | Read::Missing => Outcome::NotFound,
    })
}

fn show(common: &Common, found: &Read) -> Result<(), Failure> {
    let key = common.key.to_string_lossy();
    match found {
        Read::One { value, .. } => {
            output::bytes(value)?;
            // A prompt right behind the value would be hard to read; a pipe gets the value alone.
            if io::stdout().is_terminal() && !value.ends_with(b"\n") {
                output::line("")?;
            }
        }
        Read::Siblings { siblings, context } => {
            output::line(versions::numbered(siblings))?;
            output::note(format_args!(
                "anello: {} concurrent versions of {key}: put the merged value with --context {context}",
                siblings.len()
            ));
        }
        Read::Deleted { context } => {
            output::note(format_args!("anello: {key} was deleted, context {context}"))
        }
        Read::Missing => output::note(format_args!("anello: there is no {key}")),
    }
    Ok(())
}

/// Reads no more than a value may have, and one byte to see that there is more.
fn value_from_stdin() -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let bound = MAX_VALUE_BYTES as u64 + 1;
    let read = io::stdin().lock().take(bound).read_to_end(&mut value);
    read.map_err(|error| Failure::failed(format_args!("cannot read the value: {error}")))?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(Failure::usage(format_args!("a value is at most {MAX_VALUE_BYTES} bytes")));
    }
    Ok(value.into())
}
