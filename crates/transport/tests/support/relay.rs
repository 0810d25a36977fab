//! A piece of network between two ends: it can be cut, and led elsewhere.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{net::UdpSocket, task::JoinHandle};

/// Passes datagrams on between whoever sends to it and a target.
pub struct Relay {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn to(target: SocketAddr) -> Self {
        let near = UdpSocket::bind(super::anywhere()).await.unwrap();
        let far = UdpSocket::bind(super::anywhere()).await.unwrap();
        let address = near.local_addr().unwrap();
        let target = Arc::new(Mutex::new(Some(target)));
        let task = tokio::spawn(pass(near, far, target.clone()));
        Self { address, target, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to another target from here on, or nowhere.
    pub fn lead(&self, target: Option<SocketAddr>) {
        *self.target.lock().unwrap() = target;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(near: UdpSocket, far: UdpSocket, target: Arc<Mutex<Option<SocketAddr>>>) {
    let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
    let mut caller = None;
    loop {
        let target_now = || *target.lock().unwrap();
        tokio::select! {
            received = near.recv_from(&mut there) => {
                let Ok((length, from)) = received else { continue };
                caller = Some(from);
                if let Some(to) = target_now() {
                    let _ = far.send_to(&there[..length], to).await;
                }
            }
            received = far.recv_from(&mut back) => {
                let Ok((length, from)) = received else { continue };
                if let (Some(caller), true) = (caller, target_now() == Some(from)) {
                    let _ = near.send_to(&back[..length], caller).await;
                }
            }
        }
    }
}
