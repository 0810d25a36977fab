//! The certificates that a node shows: between nodes, and to people over HTTPS.

use std::{path::Path, sync::Arc};

use anello_transport::{Identity, IdentityError, TlsFiles};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::config::{Config, ConfigError, HttpTls, Problem};

/// What a node shows to prove who it is.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// To nodes and clients, over QUIC.
    pub(crate) identity: Identity,
    /// To users of the HTTP API, if that speaks TLS.
    pub(crate) https: Option<Arc<ServerConfig>>,
}

impl Credentials {
    /// Reads the files that the settings name.
    pub(crate) fn load(config: &Config) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let identity = identity(config).map_err(|problem| problems.push(problem));
        let https = match &config.http_tls {
            Some(files) => https(config, files).map_err(|problem| problems.push(problem)).map(Some),
            None => Ok(None),
        };
        match (identity, https) {
            (Ok(identity), Ok(https)) => Ok(Self { identity, https }),
            _ => Err(ConfigError(problems)),
        }
    }
}

fn identity(config: &Config) -> Result<Identity, Problem> {
    let tls = &config.tls;
    let files = TlsFiles { ca: tls.ca.clone(), cert: tls.cert.clone(), key: tls.key.clone() };
    let (cluster, node) = (config.cluster.name.clone(), config.node.id.clone());
    Identity::load_node(cluster, node, &files).map_err(|error| {
        let place = |file: &Path| {
            let key = match file {
                file if file == tls.ca => "tls.ca",
                file if file == tls.cert => "tls.cert",
                _ => "tls.key",
            };
            config.source.place(key)
        };
        match error {
            IdentityError::Unreadable(file, error) => unreadable(place(&file), &file, &error),
            IdentityError::Unusable(file, reason) => Problem {
                place: place(Path::new(&file)),
                what: format!("expected a usable PEM file, {file}: {reason}"),
            },
            IdentityError::OtherName { file, found, expected } => Problem {
                place: place(Path::new(&file)),
                what: format!(
                    "expected a certificate whose name is the node's id, {expected:?}, found {found:?} \
                     in {file}"
                ),
            },
        }
    })
}

fn https(config: &Config, files: &HttpTls) -> Result<Arc<ServerConfig>, Problem> {
    let read = |key: &str, file: &Path| {
        let place = config.source.place(key);
        std::fs::read(file).map_err(|error| unreadable(place, file, &error))
    };
    let unusable =
        |key: &str, file: &Path, expected: &str, error: &dyn std::fmt::Display| Problem {
            place: config.source.place(key),
            what: format!("expected {expected} in {}: {error}", file.display()),
        };
    let pem = read("http.tls.cert", &files.cert)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain
        .map_err(|error| unusable("http.tls.cert", &files.cert, "PEM certificates", &error))?;
    let pem = read("http.tls.key", &files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| unusable("http.tls.key", &files.key, "a PEM private key", &error))?;
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|versions| versions.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| {
            unusable("http.tls.key", &files.key, "the private key of the certificate", &error)
        })?;
    Ok(Arc::new(config))
}

fn unreadable(place: String, file: &Path, error: &std::io::Error) -> Problem {
    let what = format!(
        "expected a PEM file, {} cannot be read: {error} (a relative path is relative to the working \
         directory)",
        file.display()
    );
    Problem { place, what }
}
