//! `anello tls init DIR` and `anello tls issue DIR ID`.

use std::path::PathBuf;

use anello_protocol::id::NodeId;
use clap::Subcommand;
use serde_json::json;

use super::{
    AUTHORITY_DAYS, Authority, CERTIFICATE_DAYS, Holder, Host, Overwrite, Paths, TlsError,
};
use crate::{
    outcome::{Failure, Outcome},
    output,
};

/// What to make.
#[derive(Debug, Subcommand)]
pub(crate) enum TlsCommand {
    /// Make a certificate authority: DIR/ca.pem for every node and client, DIR/ca.key to be kept safe
    Init {
        /// Where to
        dir: PathBuf,
        /// One JSON document on standard output
        #[arg(long)]
        json: bool,
    },
    /// Issue a certificate: DIR/ID.pem and DIR/ID.key, or DIR/client.ID.* with --client
    Issue {
        /// Where the authority is
        dir: PathBuf,
        /// The node's id, or the client's name
        id: NodeId,
        /// Further DNS names or addresses of the node, for HTTPS
        #[arg(long, value_name = "HOST", value_delimiter = ',', conflicts_with = "client")]
        host: Vec<Host>,
        /// For a client instead of a node
        #[arg(long)]
        client: bool,
        /// Put the new certificate and key in the place of those that are there
        #[arg(long)]
        replace: bool,
        /// One JSON document on standard output
        #[arg(long)]
        json: bool,
    },
}

impl TlsCommand {
    /// Whether a program reads what is printed.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            TlsCommand::Init { json, .. } | TlsCommand::Issue { json, .. } => *json,
        }
    }
}

/// Makes what was asked for, and says where it is.
pub(crate) fn run(command: TlsCommand) -> Result<Outcome, Failure> {
    match command {
        TlsCommand::Init { dir, json } => {
            Authority::create(&dir)?;
            let paths = Paths::authority(&dir);
            if json {
                return document(&paths, AUTHORITY_DAYS);
            }
            let Paths { certificate, key } = paths;
            output::line(format_args!(
                "{}  the authority, for every node and client, good for {AUTHORITY_DAYS} days",
                certificate.display()
            ))?;
            output::line(format_args!("{}  its key: keep it off the nodes", key.display()))?;
        }
        TlsCommand::Issue { dir, id, host, client, replace, json } => {
            let holder = if client { Holder::Client(id) } else { Holder::Node(id) };
            let existed = Paths::of(&dir, &holder).exist();
            let overwrite = if replace { Overwrite::Replace } else { Overwrite::Never };
            let authority = Authority::open(&dir)?;
            let paths = authority.issue_into(&dir, &holder, &host, overwrite)?;
            if json {
                return document(&paths, CERTIFICATE_DAYS);
            }
            let name = holder.dns_name();
            let replaced = if existed { ", in the place of the one before" } else { "" };
            output::line(format_args!(
                "{}  certificate of {name}, good for {CERTIFICATE_DAYS} days{replaced}",
                paths.certificate.display()
            ))?;
            output::line(format_args!("{}  its key", paths.key.display()))?;
        }
    }
    Ok(Outcome::Done)
}

fn document(paths: &Paths, days: u64) -> Result<Outcome, Failure> {
    let Paths { certificate, key } = paths;
    output::json(&json!({ "certificate": certificate, "key": key, "days": days }))?;
    Ok(Outcome::Done)
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::BadHost(_) | TlsError::BadName(_) => Failure::usage(error),
            _ => Failure::failed(error),
        }
    }
}
