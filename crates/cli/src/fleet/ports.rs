//! Whether the ports that nodes are about to listen on are free.

use std::{
    io,
    net::{TcpListener, UdpSocket},
};

use super::layout::Place;
use crate::outcome::Failure;

/// Refuses with the first port that somebody else has.
pub(super) fn check<'a>(places: impl IntoIterator<Item = &'a Place>) -> Result<(), Failure> {
    for place in places {
        let quic = UdpSocket::bind(place.quic).map(drop).map_err(|e| (place.quic, "UDP", e));
        let http = || TcpListener::bind(place.http).map(drop).map_err(|e| (place.http, "TCP", e));
        quic.and_then(|()| http()).map_err(|(address, kind, error)| {
            let port = address.port();
            Failure::failed(match error.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "{address} ({kind}), which {} needs, is in use: stop what has it (`ss -lptun | \
                     grep :{port}`), or move the fleet with --base-quic-port and --base-http-port",
                    place.id()
                ),
                _ => format!("{} cannot listen on {address} ({kind}): {error}", place.id()),
            })
        })?;
    }
    Ok(())
}
