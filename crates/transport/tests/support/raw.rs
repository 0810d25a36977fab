//! Connections without manners: what a stranger, or a broken peer, may send.

use std::{net::SocketAddr, sync::Arc};

use anello_transport::TlsPem;
use futures_util::FutureExt;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, SendStream, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

/// Connects, trusting whoever answers, with a certificate or none.
pub async fn connect(
    to: SocketAddr,
    alpn: &str,
    pem: Option<&TlsPem>,
) -> Result<Connection, ConnectionError> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match pem {
        None => config.with_no_client_auth(),
        Some(pem) => {
            let chain = CertificateDer::pem_slice_iter(&pem.cert).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(&pem.key).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.into()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = Endpoint::client(super::anywhere()).unwrap();
    endpoint.connect_with(config, to, "anyone").unwrap().await
}

/// A hello, as anybody can write one.
pub fn hello(role: u8, cluster: &str, name: &str) -> Vec<u8> {
    let mut said = b"anello\x01\x00".to_vec();
    said.push(role);
    for text in [cluster, name] {
        said.push(text.len() as u8);
        said.extend_from_slice(text.as_bytes());
    }
    [&(said.len() as u16).to_le_bytes()[..], &said].concat()
}

/// Says hello and gives back the control stream, if the other side says hello, too.
pub async fn greet(
    connection: &Connection,
    hello: &[u8],
) -> Option<(quinn::SendStream, quinn::RecvStream)> {
    let (mut out, mut back) = connection.open_bi().await.ok()?;
    out.write_all(hello).await.ok()?;
    let mut length = [0; 2];
    back.read_exact(&mut length).await.ok()?;
    let mut said = vec![0; usize::from(u16::from_le_bytes(length))];
    back.read_exact(&mut said).await.ok()?;
    Some((out, back))
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Listens, and says these words to whoever has said anything on a stream.
pub fn listen(pem: &TlsPem, alpn: &str, words: Vec<u8>) -> Endpoint {
    let chain = CertificateDer::pem_slice_iter(&pem.cert).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(&pem.key).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.into()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
    let endpoint = Endpoint::server(config, super::anywhere()).unwrap();
    let listening = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = listening.accept().await {
            let Ok(connection) = incoming.await else { continue };
            let words = words.clone();
            tokio::spawn(async move {
                let Ok((mut out, _back)) = connection.accept_bi().await else { return };
                let _ = out.write_all(&words).await;
                connection.closed().await;
            });
        }
    });
    endpoint
}

/// Whether the other side reads nothing more of a stream.
pub fn is_stopped(stream: &mut SendStream) -> bool {
    let writing = stream.write(b"x").now_or_never();
    matches!(writing, Some(Err(quinn::WriteError::Stopped(_))))
}
