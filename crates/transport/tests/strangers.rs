//! What strangers and broken peers may send: it costs them their connection, and nobody else anything.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test may panic, and shares its support")]

mod support;

use anello_transport::{CallContext, CallError, Peers};
use quinn::Connection;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use support::{
    answering, anywhere, authority::Authority, dial, holding, id, listen, logs::Logs, node,
    patient, probe, raw, run, until,
};
use tokio::net::UdpSocket;

const PEER: &str = "anello-peer/1";

async fn expect_served(peers: &Peers) {
    assert!(peers.call(&id("b"), probe(), patient()).await.is_ok());
}

#[test]
fn ten_thousand_datagrams_of_noise_change_nothing() {
    run(async {
        let authority = Authority::new();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let peers = dial(node(&authority, "a"));
        peers.know(&id("b"), &listener.local_address().to_string());
        expect_served(&peers).await;
        let mut random = SmallRng::seed_from_u64(7);
        let stranger = UdpSocket::bind(anywhere()).await.unwrap();
        for round in 0..10_000 {
            let mut noise = vec![0u8; random.random_range(0..=2_000)];
            random.fill(&mut noise[..]);
            // A quarter looks like the first packet of a connection, a quarter like one in its midst.
            let head: &[u8] = match round % 4 {
                0 => b"\xc3\x00\x00\x00\x01\x08",
                1 => b"\x43",
                2 => b"\xf0\x00\x00\x00\x01\x14",
                _ => b"",
            };
            let headed = head.len().min(noise.len());
            noise[..headed].copy_from_slice(&head[..headed]);
            stranger.send_to(&noise, listener.local_address()).await.unwrap();
            if round % 500 == 0 {
                expect_served(&peers).await;
            }
        }
        expect_served(&peers).await;
        assert!(peers.is_connected(&id("b")));
        // Newcomers are let in as before.
        let newcomer = dial(node(&authority, "c"));
        newcomer.know(&id("b"), &listener.local_address().to_string());
        expect_served(&newcomer).await;
    });
}

/// Connects as the node `x`, says hello, and gives back what it has then.
async fn broken_peer(
    to: std::net::SocketAddr,
    authority: &Authority,
) -> (Connection, quinn::SendStream, quinn::RecvStream) {
    let connection = raw::connect(to, PEER, Some(&authority.issue(&["x"]))).await.unwrap();
    let (out, back) = raw::greet(&connection, &raw::hello(1, "demo", "x")).await.unwrap();
    (connection, out, back)
}

/// Streams that can't be read, whatever is sent on them, and why.
#[test]
fn what_cannot_be_read_costs_the_connection_and_is_logged() {
    run(async {
        let authority = Authority::new();
        let (logs, _guard) = Logs::listen();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let to = listener.local_address();
        let peers = dial(node(&authority, "a"));
        peers.know(&id("b"), &to.to_string());
        expect_served(&peers).await;
        let shared: [(&[u8], &str); 6] = [
            (b"\xff\xff\xff\xff", "4294967295 bytes"),
            (b"\x01\x00\x01\x00", "65537 bytes"),
            (b"\x00\x00\x00\x00", "shorter than its fields"),
            (b"\x05\x00\x00\x00\x01\x00\x00\x00\x00", "shorter than its fields"),
            (b"\x0a\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00", "unknown kind 9"),
            // An answer, to somebody who asked nothing.
            (b"\x09\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00", "unknown kind 2"),
        ];
        for (bytes, why) in shared {
            let (connection, mut out, _back) = broken_peer(to, &authority).await;
            out.write_all(bytes).await.unwrap();
            let closed = connection.closed().await.to_string();
            assert!(closed.contains(why), "{closed} for {why}");
            assert!(logs.tell(&["can't be read", why]), "{why}: {:?}", logs.lines());

            let (connection, _out, _back) = broken_peer(to, &authority).await;
            let (mut data, _) = connection.open_bi().await.unwrap();
            data.write_all(&[&b"\0"[..], bytes].concat()).await.unwrap();
            let closed = connection.closed().await.to_string();
            assert!(closed.contains(why), "{closed} for {why}");
        }
        let (connection, _out, _back) = broken_peer(to, &authority).await;
        let (mut data, _) = connection.open_bi().await.unwrap();
        data.write_all(b"\x07").await.unwrap();
        assert!(connection.closed().await.to_string().contains("unknown kind 7"));

        let own: [(&[u8], &str); 5] = [
            (b"\0\xff\xff\xff\xff\x01\0\0\0\0\0\0\0\0", "4294967295 bytes"),
            (b"\x09\x20\0\0\0\x01\0\0\0\0\0\0\0\0", "unknown kind 9"),
            (b"\0\x20\0", "shorter than its fields"),
            (b"\0\x20\0\0\0\x01\0\0\0\0\0\0\0\0and that is all", "shorter than its fields"),
            (b"\0\x0a\0\0\0\x01\0\0\0\0\0\0\0\0and then some", "22 bytes"),
        ];
        for (bytes, why) in own {
            let (connection, _out, _back) = broken_peer(to, &authority).await;
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let _ = stream.finish();
            let closed = connection.closed().await.to_string();
            assert!(closed.contains(why), "{closed} for {why}");
        }
        expect_served(&peers).await;
        assert!(peers.is_connected(&id("b")));
    });
}

#[test]
fn noise_on_streams_changes_nothing_for_others() {
    run(async {
        let authority = Authority::new();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let to = listener.local_address();
        let peers = dial(node(&authority, "a"));
        peers.know(&id("b"), &to.to_string());
        let mut random = SmallRng::seed_from_u64(8);
        for _ in 0..60 {
            let (connection, mut control, _back) = broken_peer(to, &authority).await;
            for kind in 0..3 {
                let mut noise = vec![0u8; random.random_range(1..=3_000)];
                random.fill(&mut noise[..]);
                // A length in bounds, so that what follows is looked at.
                if random.random() {
                    let length = (noise.len() as u32).saturating_sub(5).to_le_bytes();
                    let at = usize::from(kind > 0);
                    noise.resize(noise.len().max(20), 1);
                    noise[at..at + 4].copy_from_slice(&length);
                    noise[at + 4] = random.random_range(0..4);
                    noise[0] = if kind > 0 { 0 } else { noise[0] };
                }
                // The connection may be gone already.
                let _ = match kind {
                    0 => control.write_all(&noise).await.is_ok(),
                    1 => match connection.open_uni().await {
                        Ok(mut own) => own.write_all(&noise).await.is_ok(),
                        Err(_) => false,
                    },
                    _ => match connection.open_bi().await {
                        Ok((mut data, _)) => data.write_all(&noise).await.is_ok(),
                        Err(_) => false,
                    },
                };
            }
            expect_served(&peers).await;
        }
        assert!(peers.is_connected(&id("b")));
    });
}

#[test]
fn first_words_that_are_no_hello_are_refused() {
    run(async {
        let authority = Authority::new();
        let (logs, _guard) = Logs::listen();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let to = listener.local_address();
        for words in [&b"\xff\xff"[..], b"\x00\x00", b"\x04\x00http", b"\x01\x02"] {
            let connection = raw::connect(to, PEER, Some(&authority.issue(&["x"]))).await.unwrap();
            let (mut out, _back) = connection.open_bi().await.unwrap();
            out.write_all(words).await.unwrap();
            let _ = out.finish();
            let closed = connection.closed().await.to_string();
            assert!(closed.contains("no hello"), "{closed}");
        }
        until("it is logged", || logs.tell(&["refused a connection", "no hello"])).await;
        // One who says nothing at all is not waited for without end.
        let connection = raw::connect(to, PEER, Some(&authority.issue(&["x"]))).await.unwrap();
        let silent = connection.open_bi().await.unwrap();
        connection.closed().await;
        drop(silent);
    });
}

/// The other way round: a listener that is none of ours, or is broken, costs its diallers nothing.
#[test]
fn a_listener_that_speaks_nonsense_is_not_used() {
    run(async {
        let authority = Authority::new();
        let pem = authority.issue(&["b"]);
        let hello = raw::hello(1, "demo", "b");
        let nonsense = raw::listen(&pem, PEER, b"\x09\x00nonsense!".to_vec());
        let other_name = raw::listen(&pem, PEER, raw::hello(1, "demo", "c"));
        let other_cluster = raw::listen(&pem, PEER, raw::hello(1, "other", "b"));
        let nothing_else = raw::listen(&pem, PEER, [&hello[..], b"\xff\xff\xff\xff"].concat());
        let client = raw::listen(&authority.issue(&["client.b"]), PEER, raw::hello(2, "demo", "b"));
        for (broken, why) in [
            (&nonsense, "no hello"),
            (&other_name, "does not make its holder \"c\""),
            (&other_cluster, "of cluster \"other\""),
            (&client, "not valid for name"),
        ] {
            let peers = dial(node(&authority, "a"));
            peers.know(&id("b"), &broken.local_addr().unwrap().to_string());
            let outcome = peers.call(&id("b"), probe(), patient()).await;
            assert_eq!(outcome, Err(CallError::Unreachable));
            until(why, || peers.trouble(&id("b")).is_some_and(|said| said.contains(why))).await;
        }
        let (logs, _guard) = Logs::listen();
        let peers = dial(node(&authority, "a"));
        peers.know(&id("b"), &nothing_else.local_addr().unwrap().to_string());
        let outcome = peers.call(&id("b"), probe(), patient()).await;
        assert_eq!(outcome, Err(CallError::Closed));
        assert!(logs.tell(&["can't be read", "4294967295 bytes"]), "{:?}", logs.lines());
    });
}

#[test]
fn a_call_that_promises_more_than_it_sends_holds_up_no_other() {
    run(async {
        let authority = Authority::new();
        let (router, held) = holding();
        let listener = listen(anywhere(), node(&authority, "b"), router);
        let (connection, _out, _back) = broken_peer(listener.local_address(), &authority).await;
        // Sixty megabytes, of which nothing comes.
        let mut streams = Vec::new();
        for _ in 0..40 {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(b"\0\0\0\xc0\x03\x01\0\0\0\0\0\0\0\0").await.unwrap();
            streams.push(stream);
        }
        let peers = dial(node(&authority, "a"));
        peers.know(&id("b"), &listener.local_address().to_string());
        let call = peers.call(&id("b"), probe(), CallContext::within(support::PATIENCE));
        until("the call is there", || held.lock().unwrap().len() == 1).await;
        support::answer(held.lock().unwrap().pop().unwrap());
        assert!(call.await.is_ok());
        // Past the bound on bytes they were declined.
        until("they are declined", || {
            streams.iter_mut().map(raw::is_stopped).filter(|stopped| *stopped).count() >= 38
        })
        .await;
    });
}
