//! How QUIC is set up: sockets, endpoints, windows, timeouts. No behaviour.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    congestion::CubicConfig,
};
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Identity, LinkConfig, tls};

/// Streams of their own for large messages that one side may have open at a time; more wait their turn.
const BULK_STREAMS_MAX: u32 = 64;
/// Bytes that may be under way in one stream without being taken in: 100 ms at 640 Mbit/s.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes that may be under way in one connection, enough that a few full streams of data don't keep
/// the control lane from being heard.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// What the sockets are asked to buffer; the system may allow less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The largest datagram that is tried for and taken. quinn hands the system up to ten in one send, which
/// must fit into the 65,507 bytes of one UDP packet: a larger batch is dropped whole and in silence, and
/// so many lost at once look as if the path took no large datagrams at all.
const DATAGRAM_BYTES: u16 = 6_500;
/// The length of the connection ids that are made here.
const ID_BYTES: usize = 8;
/// The length of the first destination id of a connection that asks for a certain worker: one that
/// nothing else makes (quinn's are 20 bytes).
const HINTED_ID_BYTES: usize = 19;

/// Which side of a connection a configuration is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialler,
    Listener,
}

/// A socket that only dials, on the runtime it is called on.
pub(crate) fn dialling_endpoint(identity: &Identity) -> io::Result<Endpoint> {
    // Both families from one socket, where the system has IPv6.
    let socket = socket((Ipv6Addr::UNSPECIFIED, 0).into())
        .or_else(|_| socket((Ipv4Addr::UNSPECIFIED, 0).into()))?;
    Endpoint::new(endpoint_config(identity)?, None, socket, Arc::new(TokioRuntime))
}

/// A socket that listens at an address, on the runtime it is called on.
pub(crate) fn listening_endpoint(
    address: SocketAddr,
    identity: &Identity,
    link: &LinkConfig,
    handshakes_max: usize,
) -> io::Result<Endpoint> {
    let tls = tls::server(identity).map_err(io::Error::other)?;
    let mut server = ServerConfig::with_crypto(Arc::new(tls));
    server
        .transport_config(Arc::new(transport_config(link, Side::Listener)?))
        .max_incoming(handshakes_max)
        // Nodes have addresses of their own; whoever changes its address dials again.
        .migration(false);
    let socket = socket(address)?;
    Endpoint::new(endpoint_config(identity)?, Some(server), socket, Arc::new(TokioRuntime))
}

/// How to dial, asking for a worker of the listener's if one is given.
pub(crate) fn client_config(
    identity: &Identity,
    link: &LinkConfig,
    worker: Option<u16>,
) -> io::Result<ClientConfig> {
    let tls = tls::client(identity).map_err(io::Error::other)?;
    let mut client = ClientConfig::new(Arc::new(tls));
    client.transport_config(Arc::new(transport_config(link, Side::Dialler)?));
    if let Some(worker) = worker {
        client.initial_dst_cid_provider(Arc::new(move || hinted_id(worker)));
    }
    Ok(client)
}

/// The worker that a new connection asks for, by the first destination id that its dialler made up:
/// the only thing of its choice that a listener sees before it decides who is to drive the connection.
pub(crate) fn hinted_worker(id: &ConnectionId) -> Option<u16> {
    let (worker, rest) = id.split_first_chunk()?;
    (rest.len() == HINTED_ID_BYTES - 2).then(|| u16::from_le_bytes(*worker))
}

fn hinted_id(worker: u16) -> ConnectionId {
    let mut id: [u8; HINTED_ID_BYTES] = rand::random();
    id[..2].copy_from_slice(&worker.to_le_bytes());
    ConnectionId::new(&id)
}

fn endpoint_config(identity: &Identity) -> io::Result<EndpointConfig> {
    // Derived from the private key, so that a restarted process recognizes the connections of its
    // former life and resets them: their peers notice at once, not after the idle timeout.
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &identity.secret("stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config
        .cid_generator(|| Box::new(RandomIds))
        .max_udp_payload_size(DATAGRAM_BYTES)
        .map_err(io::Error::other)?;
    Ok(config)
}

/// Connection ids that tell nothing. (quinn's own can be told from others', so a restarted process would
/// take those of its former life for garbage, and not reset them.)
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport_config(link: &LinkConfig, side: Side) -> io::Result<TransportConfig> {
    let idle = IdleTimeout::try_from(Duration::from_millis(link.idle_ms))
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "idle_ms is out of range"))?;
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(256 << 10);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle))
        .max_concurrent_uni_streams(VarInt::from_u32(BULK_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .initial_rtt(Duration::from_millis(100))
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(congestion))
        .datagram_receive_buffer_size(None)
        .allow_spin(false);
    match side {
        Side::Dialler => config
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .keep_alive_interval(Some(Duration::from_millis(link.keep_alive_ms))),
        Side::Listener => config.max_concurrent_bidi_streams(VarInt::from_u32(2)),
    };
    Ok(config)
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // As much as the system allows; less costs throughput, nothing else.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    let socket = UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_asked_for_by_the_first_id() {
        assert_eq!(hinted_worker(&hinted_id(513)), Some(513));
        assert_eq!(hinted_worker(&ConnectionId::new(&[7; 20])), None);
        assert_eq!(hinted_worker(&ConnectionId::new(&[7; 8])), None);
        assert_eq!(hinted_worker(&ConnectionId::new(&[7])), None);
    }
}
