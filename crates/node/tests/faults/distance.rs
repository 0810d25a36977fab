//! The distance between datacenters: QUIC packets from one to the other are taken in by the router, kept
//! for a while, and sent on in their order.
//!
//! This is done here and not by `tc netem`, which many kernels lack. Receivers see the router's address
//! as the sender's, as behind any address translation; whoever asked sees answers come from where it sent
//! to.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

/// Where nodes listen.
pub const QUIC_PORT: u16 = 7400;
/// How often a thread that waits for packets sees whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

/// Takes packets in and sends them on, until it is dropped.
pub struct Distance {
    ended: Arc<AtomicBool>,
}

impl Distance {
    /// Stands in for these nodes, towards those whose packets are led here.
    pub fn new(nodes: &[Ipv4Addr], one_way: Duration) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        for &node in nodes {
            let node = SocketAddr::from((node, QUIC_PORT));
            let stand_in = Arc::new(transparent(node).expect("a socket with another's address"));
            let ended = Arc::clone(&ended);
            thread::spawn(move || lead(node, &stand_in, one_way, &ended));
        }
        Self { ended }
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Leads packets to one node, a socket for everyone who sends it some, and its answers back.
fn lead(node: SocketAddr, stand_in: &Arc<UdpSocket>, one_way: Duration, ended: &Arc<AtomicBool>) {
    let mut senders: BTreeMap<SocketAddr, Line> = BTreeMap::new();
    receive(stand_in, ended, |packet, sender| {
        let line = senders.entry(sender).or_insert_with(|| {
            let socket = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket"));
            socket.connect(node).expect("the node has an address");
            let back = Line::new(Arc::clone(stand_in), Some(sender), one_way);
            let (answers, ended) = (Arc::clone(&socket), Arc::clone(ended));
            thread::spawn(move || receive(&answers, &ended, |packet, _| back.send(packet)));
            Line::new(socket, None, one_way)
        });
        line.send(packet);
    });
}

/// Hands packets over as they come.
fn receive(socket: &UdpSocket, ended: &AtomicBool, mut each: impl FnMut(&[u8], SocketAddr)) {
    socket.set_read_timeout(Some(LOOK)).expect("not zero");
    let mut packet = vec![0; 1 << 16];
    while !ended.load(Ordering::Relaxed) {
        // An error is a timeout, or word that a packet before was not taken.
        if let Ok((length, sender)) = socket.recv_from(&mut packet) {
            each(&packet[..length], sender);
        }
    }
}

/// One direction of a long line.
struct Line {
    packets: mpsc::Sender<(Instant, Vec<u8>)>,
    one_way: Duration,
}

impl Line {
    fn new(socket: Arc<UdpSocket>, to: Option<SocketAddr>, one_way: Duration) -> Self {
        let (packets, on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>();
        thread::spawn(move || {
            for (due, packet) in on_the_way {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // A packet that can't be sent is lost, as packets are.
                let _lost = match to {
                    Some(to) => socket.send_to(&packet, to),
                    None => socket.send(&packet),
                };
            }
        });
        Self { packets, one_way }
    }

    fn send(&self, packet: &[u8]) {
        let due = Instant::now() + self.one_way;
        self.packets.send((due, packet.to_vec())).expect("the line ends with this sender");
    }
}

/// A socket with an address that isn't this machine's.
fn transparent(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_ip_transparent_v4(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
