//! Why a connection is closed, as the other side is told.

use quinn::{Connection, ConnectionError, VarInt};

/// The reasons, by their numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// It is not needed any more.
    Done = 0,
    /// This side shuts down.
    ShuttingDown = 1,
    /// The other side is not who it has to be: of another cluster, under another name.
    Refused = 2,
    /// The other side sent what can't be read.
    Malformed = 3,
    /// There are too many connections, or the other side does not read what it asked for.
    Overloaded = 4,
}

impl Close {
    /// The number.
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// Closes a connection at once, with a sentence for the other side's log.
    pub(crate) fn close(self, connection: &Connection, reason: &str) {
        connection.close(self.code(), reason.as_bytes());
    }
}

/// Whether a connection failed because of who one of the two is, which no retry changes by itself.
pub(crate) fn is_refusal(error: &ConnectionError) -> bool {
    // TLS alerts are in a range of their own (RFC 9001, 4.8).
    let is_alert = |code: u64| (0x100..0x200).contains(&code);
    match error {
        ConnectionError::ApplicationClosed(close) => close.error_code == Close::Refused.code(),
        ConnectionError::ConnectionClosed(close) => is_alert(close.error_code.into()),
        ConnectionError::TransportError(error) => is_alert(error.code.into()),
        _ => false,
    }
}
