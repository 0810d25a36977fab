//! The cluster's certificate authority, and the certificates it issues.
//!
//! A certificate's first DNS name says who its holder is: a node's is its id, a client's is
//! `client.<name>`. Keys are EC P-256. The authority's own name is derived from its key, so that
//! certificates can be issued with `ca.key` at hand and nothing parsed; [`Authority::open`] proves that
//! the `ca.pem` beside it belongs to that key.

pub(crate) mod command;
mod files;

use std::{
    fmt::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anello_protocol::id::{BadName, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd, string::Ia5String,
};
use thiserror::Error;

pub(crate) use files::Overwrite;

/// How long the authority's certificate is good.
pub(crate) const AUTHORITY_DAYS: u64 = 3_650;
/// How long an issued certificate is good: what the strictest TLS stacks accept.
pub(crate) const CERTIFICATE_DAYS: u64 = 825;
/// Clocks may be that much behind the one that issues.
const CLOCK_ALLOWANCE_DAYS: u64 = 1;

const DAY: Duration = Duration::from_secs(86_400);

/// Why there is no certificate.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// A file is there already.
    #[error("{0} exists already; {1}")]
    Exists(PathBuf, &'static str),
    /// A file could not be read or written.
    #[error("cannot {0} {1}: {2}")]
    File(&'static str, PathBuf, std::io::Error),
    /// The directory holds no authority, or a damaged one.
    #[error("{0} holds no usable authority: {1}; make one with `anello tls init {0}`")]
    NoAuthority(PathBuf, String),
    /// A name that no certificate can carry.
    #[error("bad host {0:?}: expected a DNS name or an IP address")]
    BadHost(String),
    /// A name that no holder can have.
    #[error(transparent)]
    BadName(#[from] BadName),
    /// The cryptography library refused.
    #[error("cannot make a certificate: {0}")]
    Refused(#[from] rcgen::Error),
}

/// Whose certificate it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A node: serves, and calls other nodes.
    Node(NodeId),
    /// A client: only calls. Its name follows the grammar of node ids.
    Client(NodeId),
}

impl Holder {
    /// The DNS name that says who the holder is.
    pub(crate) fn dns_name(&self) -> String {
        match self {
            Holder::Node(id) => id.to_string(),
            Holder::Client(name) => format!("client.{name}"),
        }
    }
}

/// Another name of a node, for those who reach it over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A DNS name.
    Name(Ia5String),
    /// An address.
    Address(IpAddr),
}

impl std::str::FromStr for Host {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        if let Ok(address) = text.parse() {
            return Ok(Host::Address(address));
        }
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'*'))
        };
        let bad = || TlsError::BadHost(text.chars().take(80).collect());
        if text.len() > 253 || !text.split('.').all(label) {
            return Err(bad());
        }
        text.try_into().map(Host::Name).map_err(|_| bad())
    }
}

/// A certificate and its key, both PEM.
pub(crate) struct Issued {
    /// The certificate.
    pub(crate) certificate: String,
    /// The private key.
    pub(crate) key: String,
}

/// Where the files of one holder are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    /// The certificate.
    pub(crate) certificate: PathBuf,
    /// The private key.
    pub(crate) key: PathBuf,
}

impl Paths {
    /// The files of a holder below a directory.
    pub(crate) fn of(dir: &Path, holder: &Holder) -> Self {
        Self::named(dir, &holder.dns_name())
    }

    /// The authority's own files.
    pub(crate) fn authority(dir: &Path) -> Self {
        Self::named(dir, "ca")
    }

    fn named(dir: &Path, name: &str) -> Self {
        Self { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
    }

    /// Whether both files are there.
    pub(crate) fn exist(&self) -> bool {
        self.certificate.exists() && self.key.exists()
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority in a directory, which must not hold one.
    pub(crate) fn create(dir: &Path) -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let params = authority_params(&key);
        let issued =
            Issued { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
        files::write_pair(&Paths::authority(dir), &issued, Overwrite::Never)?;
        Ok(Self { issuer: Issuer::new(params, key) })
    }

    /// Opens the authority that a directory holds.
    pub(crate) fn open(dir: &Path) -> Result<Self, TlsError> {
        let paths = Paths::authority(dir);
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| {
                TlsError::NoAuthority(dir.into(), format!("{}: {error}", path.display()))
            })
        };
        let certificate = read(&paths.certificate)?;
        let key = KeyPair::from_pem(&read(&paths.key)?).map_err(|error| {
            TlsError::NoAuthority(dir.into(), format!("{}: {error}", paths.key.display()))
        })?;
        if !files::certificate_holds(&certificate, &key.subject_public_key_info()) {
            return Err(TlsError::NoAuthority(dir.into(), "ca.pem and ca.key don't match".into()));
        }
        Ok(Self { issuer: Issuer::new(authority_params(&key), key) })
    }

    /// Issues a certificate with a new key.
    pub(crate) fn issue(&self, holder: &Holder, hosts: &[Host]) -> Result<Issued, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = params_for(CERTIFICATE_DAYS);
        let name = holder.dns_name();
        params.distinguished_name.push(DnType::CommonName, name.clone());
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.subject_alt_names.extend(hosts.iter().map(|host| match host {
            Host::Name(name) => SanType::DnsName(name.clone()),
            Host::Address(address) => SanType::IpAddress(*address),
        }));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match holder {
            Holder::Node(_) => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Holder::Client(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// Issues a certificate and writes it below a directory.
    pub(crate) fn issue_into(
        &self,
        dir: &Path,
        holder: &Holder,
        hosts: &[Host],
        overwrite: Overwrite,
    ) -> Result<Paths, TlsError> {
        let paths = Paths::of(dir, holder);
        files::write_pair(&paths, &self.issue(holder, hosts)?, overwrite)?;
        Ok(paths)
    }
}

fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = params_for(AUTHORITY_DAYS);
    let mut name = String::from("Anello CA ");
    for byte in params.key_identifier(key).iter().take(8) {
        // Writing to a string can't fail.
        let _ = write!(name, "{byte:02x}");
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params_for(days: u64) -> CertificateParams {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(since_epoch.as_secs());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - DAY * CLOCK_ALLOWANCE_DAYS as u32;
    params.not_after = now + DAY * days as u32;
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        assert!(matches!("10.0.0.5".parse(), Ok(Host::Address(_))));
        assert!(matches!("::1".parse(), Ok(Host::Address(_))));
        assert!(matches!("kv.example.org".parse(), Ok(Host::Name(_))));
        for bad in ["", "a..b", "ü.example", "two words", &"x".repeat(64)] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_authority_opens_again_and_issues() {
        let dir = tempfile::tempdir().unwrap();
        Authority::create(dir.path()).unwrap();
        let holder = Holder::Node(NodeId::new("eu-a-1").unwrap());
        let authority = Authority::open(dir.path()).unwrap();
        let paths = authority.issue_into(dir.path(), &holder, &[], Overwrite::Never).unwrap();
        assert_eq!(paths.certificate, dir.path().join("eu-a-1.pem"));
        assert!(paths.exist());
    }

    #[test]
    fn another_authoritys_key_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Authority::create(one.path()).unwrap();
        Authority::create(other.path()).unwrap();
        std::fs::copy(other.path().join("ca.key"), one.path().join("ca.key")).unwrap();
        assert!(matches!(Authority::open(one.path()), Err(TlsError::NoAuthority(..))));
    }

    #[test]
    fn an_authority_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Authority::create(dir.path()).unwrap();
        let before = std::fs::read(dir.path().join("ca.key")).unwrap();
        assert!(matches!(Authority::create(dir.path()), Err(TlsError::Exists(..))));
        assert_eq!(std::fs::read(dir.path().join("ca.key")).unwrap(), before);
    }
}
