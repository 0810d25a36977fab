//! The knobs of connections, and the constants beside them.

/// How one connection behaves, on either side of it.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The most calls in flight over one connection; one more is `Busy`. Raising it costs memory under
    /// overload. At most 65,536. Default 16,384.
    pub calls_max: usize,
    /// The most bytes of messages in flight over one connection, and of replies waiting to be sent; a
    /// call beyond is `Busy`. Raising it costs that much memory per connection. Default 128 MiB, so that
    /// the largest message fits.
    pub bytes_max: usize,
    /// Silence after which the other side counts as gone. Raising it delays the notice of a dead peer;
    /// lowering it cuts off peers that pause. Default 4 s.
    pub idle_ms: u64,
    /// How often a silent connection is probed; a quarter of `idle_ms` or less. Default 1 s.
    pub keep_alive_ms: u64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self { calls_max: 16_384, bytes_max: 128 << 20, idle_ms: 4_000, keep_alive_ms: 1_000 }
    }
}

/// How connections to others are made.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// Each connection.
    pub link: LinkConfig,
    /// How long one attempt to connect may take. Default 2 s.
    pub connect_ms: u64,
    /// The first wait after a failed attempt; it doubles, with jitter. Default 50 ms.
    pub backoff_min_ms: u64,
    /// The longest wait between attempts. Raising it delays the return of a peer that was away; lowering
    /// it sends more packets to those that are gone. Default 1 s.
    pub backoff_max_ms: u64,
    /// Which of the listener's workers is to drive these connections, modulo their number; without it
    /// the listener chooses. Worth setting to the index of the thread that the peers belong to, where
    /// all nodes spread their work over threads alike.
    pub worker: Option<u16>,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self {
            link: LinkConfig::default(),
            connect_ms: 2_000,
            backoff_min_ms: 50,
            backoff_max_ms: 1_000,
            worker: None,
        }
    }
}

/// How connections from others are taken.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Each connection.
    pub link: LinkConfig,
    /// The most connections at a time. Default 4,096.
    pub connections_max: usize,
    /// The most connections at a time that one node, or one client name, may have. Default 256.
    pub connections_per_caller_max: usize,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            link: LinkConfig::default(),
            connections_max: 4_096,
            connections_per_caller_max: 256,
        }
    }
}
