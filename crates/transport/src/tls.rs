//! TLS 1.3 between all of a cluster, both sides with a certificate of the cluster's authority.
//!
//! A dialler that knows whom it dials names the node, and the certificate must be that node's. One that
//! dials a bare address takes any node's certificate and learns the name from it. A listener takes any
//! certificate of the authority; what its holder may do follows from the name in it and from the
//! protocol (ALPN) that was asked for: nodes' certificates go with [`PEER_ALPN`] only, clients' with
//! [`CLIENT_ALPN`] only. Names are compared with a certificate's first DNS name, not with any of them:
//! the others are for HTTPS.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    version::TLS13,
};

use crate::identity::{Identity, Name};

/// The protocol between nodes. The number is the major version: what changes it can't be mixed.
pub(crate) const PEER_ALPN: &[u8] = b"anello-peer/1";
/// The protocol between clients and nodes.
pub(crate) const CLIENT_ALPN: &[u8] = b"anello-client/1";
/// The server name with which any node is dialled. No node has it: node ids have no dot.
pub(crate) const ANY_NODE: &str = "any.node";

/// The cryptography, with the suite first that costs least where AES is in hardware.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let suites = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| *suite != suites);
    Arc::new(provider)
}

/// The TLS of a listener.
pub(crate) fn server(identity: &Identity) -> Result<QuicServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(identity.client_verifier())
        .with_single_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![PEER_ALPN.to_vec(), CLIENT_ALPN.to_vec()];
    // Every connection proves its identity anew.
    config.send_tls13_tickets = 0;
    config.try_into().map_err(|_| Error::General("no cipher suite for QUIC".into()))
}

/// The TLS of a dialler: a node's or a client's.
pub(crate) fn client(identity: &Identity) -> Result<QuicClientConfig, Error> {
    let provider = provider();
    let verifier = NodeVerifier {
        roots: identity.roots().clone(),
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![
        match identity.name() {
            Name::Node(_) => PEER_ALPN,
            Name::Client(_) => CLIENT_ALPN,
        }
        .to_vec(),
    ];
    config.resumption = Resumption::disabled();
    config.try_into().map_err(|_| Error::General("no cipher suite for QUIC".into()))
}

/// Takes the certificate of the node that is named, or of any node for [`ANY_NODE`].
#[derive(Debug)]
struct NodeVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        time: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            time,
            self.algorithms.all,
        )?;
        let wrong_name = || {
            let presented =
                Name::of_certificate(end_entity).map_or_else(|why| why, |name| name.to_string());
            Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected: server_name.to_owned(),
                presented: vec![presented],
            })
        };
        let Ok(Name::Node(node)) = Name::of_certificate(end_entity) else {
            return Err(wrong_name());
        };
        match server_name {
            ServerName::DnsName(name) if name.as_ref() == ANY_NODE => {}
            ServerName::DnsName(name) if name.as_ref() == node.as_str() => {}
            _ => return Err(wrong_name()),
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
