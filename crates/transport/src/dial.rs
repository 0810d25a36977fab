//! Making a connection: address, handshake, hello.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anello_protocol::id::NodeId;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use crate::{
    Identity, PeersConfig,
    close::{Close, is_refusal},
    hello::{Hello, HelloError, MAX_HELLO_BYTES},
    identity::Name,
    quic, tls,
};

/// How many of a name's addresses are tried.
const ADDRESSES_MAX: usize = 4;

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Dialler {
    endpoint: Endpoint,
    client: ClientConfig,
    hello: Hello,
    time_max: Duration,
}

/// A connection that is ready for calls.
pub(crate) struct Dialled {
    pub(crate) connection: Connection,
    /// The control lane, on which the hellos were said.
    pub(crate) control: (SendStream, RecvStream),
    /// Who answered.
    pub(crate) node: NodeId,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    /// The address can't be used.
    #[error("{0}: {1}")]
    BadAddress(String, io::Error),
    /// Nobody answered in time.
    #[error("no answer from {0}")]
    Silent(String),
    /// The connection was lost on the way.
    #[error("{0}")]
    Lost(ConnectionError),
    /// One of the two is not who it has to be: trying again won't help until somebody changes that.
    #[error("{0}")]
    Refused(String),
}

impl Dialler {
    /// A dialler with a socket of its own, on the runtime that it is called on.
    pub(crate) fn new(identity: &Identity, config: &PeersConfig) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            endpoint: quic::dialling_endpoint(identity)?,
            client: quic::client_config(identity, &config.link, config.worker)?,
            hello: Hello::of(identity),
            time_max: Duration::from_millis(config.connect_ms),
        }))
    }

    /// Connects to the node that is to be found at `host:port`, or to any node that is there.
    pub(crate) async fn dial(
        &self,
        address: &str,
        node: Option<&NodeId>,
    ) -> Result<Dialled, DialError> {
        let attempt = tokio::time::timeout(self.time_max, self.dial_all(address, node)).await;
        attempt.unwrap_or_else(|_| Err(DialError::Silent(address.into())))
    }

    /// Closes every connection, and gives the other sides a moment to hear of it.
    pub(crate) async fn close(&self, time_max: Duration) {
        self.endpoint.close(Close::ShuttingDown.code(), b"shutting down");
        // They notice by their idle timeout otherwise.
        let _ = tokio::time::timeout(time_max, self.endpoint.wait_idle()).await;
    }

    async fn dial_all(&self, address: &str, node: Option<&NodeId>) -> Result<Dialled, DialError> {
        let bad = |error| DialError::BadAddress(address.into(), error);
        let mut failure = bad(io::Error::other("no address for that name"));
        for socket in tokio::net::lookup_host(address).await.map_err(bad)?.take(ADDRESSES_MAX) {
            match self.dial_one(socket, address, node).await {
                Ok(dialled) => return Ok(dialled),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn dial_one(
        &self,
        socket: SocketAddr,
        address: &str,
        node: Option<&NodeId>,
    ) -> Result<Dialled, DialError> {
        let name = node.map_or(tls::ANY_NODE, NodeId::as_str);
        let connecting = self
            .endpoint
            .connect_with(self.client.clone(), socket, name)
            .map_err(|error| DialError::BadAddress(address.into(), io::Error::other(error)))?;
        let lost = |error: ConnectionError| match error {
            ConnectionError::TimedOut => DialError::Silent(address.into()),
            error if is_refusal(&error) => DialError::Refused(error.to_string()),
            error => DialError::Lost(error),
        };
        let connection = connecting.await.map_err(lost)?;
        match self.greet(&connection).await {
            Ok((control, node)) => Ok(Dialled { connection, control, node }),
            Err(error) => {
                // The connection's own end says more than the stream's.
                if let Some(error) = connection.close_reason() {
                    return Err(lost(error));
                }
                Close::Refused.close(&connection, &error.to_string());
                Err(DialError::Refused(format!("{address}: {error}")))
            }
        }
    }

    async fn greet(
        &self,
        connection: &Connection,
    ) -> Result<((SendStream, RecvStream), NodeId), HelloError> {
        let lost = |_| HelloError::Malformed;
        let (mut out, mut back) = connection.open_bi().await.map_err(lost)?;
        out.write_all(&self.hello.encode()).await.map_err(|_| HelloError::Malformed)?;
        let certified = certified_name(connection).map_err(|_| HelloError::Malformed)?;
        let theirs = read_hello(&mut back).await?;
        theirs.check(&self.hello, &certified)?;
        match theirs.name {
            Name::Node(node) => Ok(((out, back), node)),
            Name::Client(_) => Err(HelloError::Malformed),
        }
    }
}

/// Who the other side of a connection has proved to be.
pub(crate) fn certified_name(connection: &Connection) -> Result<Name, String> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    let first = chain.first().ok_or_else(|| "no certificate".to_string())?;
    Name::of_certificate(first)
}

/// Reads the other side's first words.
pub(crate) async fn read_hello(stream: &mut RecvStream) -> Result<Hello, HelloError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await.map_err(|_| HelloError::Malformed)?;
    let length = usize::from(u16::from_le_bytes(length));
    if length > MAX_HELLO_BYTES {
        return Err(HelloError::Malformed);
    }
    let mut bytes = [0; MAX_HELLO_BYTES];
    stream.read_exact(&mut bytes[..length]).await.map_err(|_| HelloError::Malformed)?;
    Hello::decode(&bytes[..length])
}
