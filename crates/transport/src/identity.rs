//! Who one is: a certificate, its key, and the authority that vouches for the others.
//!
//! The first DNS name in a certificate says who its holder is. A node's is its id, which has no dot; a
//! client's is `client.<name>`. So no certificate of a client makes a node, whatever its holder claims.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anello_protocol::id::{ClusterName, NodeId};
use ring::hmac;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use thiserror::Error;

use crate::tls;

/// What a client's name has in front in its certificate.
const CLIENT_PREFIX: &str = "client.";

/// Where the files of an identity are, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the cluster's authority.
    pub ca: PathBuf,
    /// One's own certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What is in the files of an identity.
#[derive(Clone)]
pub struct TlsPem {
    /// The certificate of the cluster's authority.
    pub ca: Vec<u8>,
    /// One's own certificate.
    pub cert: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

/// Who one is, to nodes and to clients alike. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    name: Name,
    cluster: Option<ClusterName>,
    roots: Arc<RootCertStore>,
    client_verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file could not be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// A file, or the PEM in its stead, is not what it should be.
    #[error("{0}: {1}")]
    Unusable(String, String),
    /// The certificate is somebody else's.
    #[error("{file}: the certificate's name is {found:?}, expected {expected:?}")]
    OtherName {
        /// Where the certificate is from.
        file: String,
        /// The name in the certificate.
        found: String,
        /// The name that it should have.
        expected: String,
    },
}

impl TlsFiles {
    /// Reads the files.
    pub fn read(&self) -> Result<TlsPem, IdentityError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| IdentityError::Unreadable(path.into(), error))
        };
        Ok(TlsPem { ca: read(&self.ca)?, cert: read(&self.cert)?, key: read(&self.key)? })
    }

    fn labels(&self) -> [String; 3] {
        [&self.ca, &self.cert, &self.key].map(|path| path.display().to_string())
    }
}

impl Identity {
    /// A node of a cluster. Its certificate's first DNS name must be its id.
    pub fn node(cluster: ClusterName, node: NodeId, pem: &TlsPem) -> Result<Self, IdentityError> {
        Self::new(Some(cluster), Some(node), pem, &labels())
    }

    /// As [`Identity::node`], from files; an error names the file.
    pub fn load_node(
        cluster: ClusterName,
        node: NodeId,
        files: &TlsFiles,
    ) -> Result<Self, IdentityError> {
        Self::new(Some(cluster), Some(node), &files.read()?, &files.labels())
    }

    /// A client of a cluster; without a name, of whichever cluster its authority belongs to. Its
    /// certificate's first DNS name must be `client.<name>`.
    pub fn client(cluster: Option<ClusterName>, pem: &TlsPem) -> Result<Self, IdentityError> {
        Self::new(cluster, None, pem, &labels())
    }

    /// As [`Identity::client`], from files; an error names the file.
    pub fn load_client(
        cluster: Option<ClusterName>,
        files: &TlsFiles,
    ) -> Result<Self, IdentityError> {
        Self::new(cluster, None, &files.read()?, &files.labels())
    }

    fn new(
        cluster: Option<ClusterName>,
        node: Option<NodeId>,
        pem: &TlsPem,
        [ca_file, cert_file, key_file]: &[String; 3],
    ) -> Result<Self, IdentityError> {
        let unusable = |file: &String, reason: &dyn fmt::Display| {
            IdentityError::Unusable(file.clone(), reason.to_string())
        };
        let mut roots = RootCertStore::empty();
        for ca in certificates(&pem.ca).map_err(|reason| unusable(ca_file, &reason))? {
            roots.add(ca).map_err(|error| unusable(ca_file, &error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&pem.cert).map_err(|reason| unusable(cert_file, &reason))?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|error| unusable(key_file, &format!("no private key: {error}")))?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &tls::provider())
            .map_err(|error| unusable(key_file, &format!("not the certificate's key: {error}")))?;
        let client_verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), tls::provider())
                .build()
                .map_err(|error| unusable(ca_file, &error))?;
        client_verifier
            .verify_client_cert(&chain[0], &chain[1..], rustls::pki_types::UnixTime::now())
            .map_err(|error| {
                unusable(cert_file, &format!("does not hold under {ca_file}: {error}"))
            })?;
        let found = Name::of_certificate(&chain[0]).map_err(|why| unusable(cert_file, &why))?;
        let fits = match (&found, &node) {
            (Name::Node(found), Some(node)) => found == node,
            (Name::Client(_), None) => true,
            _ => false,
        };
        if !fits {
            return Err(IdentityError::OtherName {
                file: cert_file.clone(),
                found: found.to_string(),
                expected: node.map_or("client.<name>".into(), |node| node.to_string()),
            });
        }
        let inner = Inner { name: found, cluster, roots, client_verifier, chain, key };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn name(&self) -> &Name {
        &self.inner.name
    }

    pub(crate) fn cluster(&self) -> Option<&ClusterName> {
        self.inner.cluster.as_ref()
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.inner.roots
    }

    pub(crate) fn client_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.inner.client_verifier.clone()
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.inner.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.inner.key.clone_key()
    }

    /// A secret for one purpose that stays the same for as long as the private key does.
    pub(crate) fn secret(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.inner.key.secret_der());
        let tag = hmac::sign(&key, purpose.as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.inner.name)
    }
}

impl fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsPem")
    }
}

/// The holder of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// A node.
    Node(NodeId),
    /// A client, by its user name.
    Client(String),
}

impl Name {
    /// Reads who holds a certificate. That it is valid is checked elsewhere, before.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let certificate = webpki::EndEntityCert::try_from(certificate)
            .map_err(|error| format!("a certificate that can't be read: {error}"))?;
        let first = certificate.valid_dns_names().next();
        let first = first.ok_or_else(|| "a certificate without a DNS name".to_string())?;
        Self::parse(first).ok_or_else(|| {
            format!("a certificate for {first:?}, which names neither a node nor a client")
        })
    }

    fn parse(name: &str) -> Option<Self> {
        match name.strip_prefix(CLIENT_PREFIX) {
            // Clients' names follow the grammar of nodes'.
            Some(client) => NodeId::new(client).ok().map(|_| Name::Client(client.into())),
            None => NodeId::new(name).ok().map(Name::Node),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Node(node) => node.fmt(f),
            Name::Client(name) => write!(f, "{CLIENT_PREFIX}{name}"),
        }
    }
}

fn labels() -> [String; 3] {
    ["the CA certificate", "the certificate", "the private key"].map(String::from)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not PEM: {error}"))?;
    if certificates.is_empty() { Err("no certificate".into()) } else { Ok(certificates) }
}
