//! Golden bytes: one sample of every message and of everything stored, frozen.
//!
//! A test that fails here means that a released node would no longer be understood. The way out is a new
//! struct under a new tag, not a new golden file. A sample without a file fails too; with
//! `ANELLO_WRITE_GOLDEN=1` the missing files are written, and none is ever overwritten.

mod samples;

use std::{fmt::Debug, fs, path::PathBuf};

use anello_protocol::{
    codec,
    id::PartitionId,
    message::{Message, repair::Purged},
};
use serde::{Serialize, de::DeserializeOwned};

/// Checks a sample against its file, both ways.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, sample: &T) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"));
    let hex = to_hex(&codec::encode(sample));
    if !path.exists() && std::env::var_os("ANELLO_WRITE_GOLDEN").is_some() {
        fs::write(&path, &hex).expect("the folder is there");
    }
    let golden = fs::read_to_string(&path)
        .unwrap_or_else(|_| panic!("no golden file for {name}: see the head of this test"));
    assert_eq!(golden, hex, "{name} is encoded otherwise than it was");
    let read: T = codec::decode(&from_hex(&golden)).expect("the golden bytes decode");
    assert_eq!(&read, sample, "{name} reads back as something else");
}

fn check_message<M>(name: &str, message: &M, replies: &[M::Reply])
where
    M: Message + PartialEq + Debug,
    M::Reply: PartialEq + Debug,
{
    check(&format!("{:03}-{name}", M::TAG), message);
    for (number, reply) in replies.iter().enumerate() {
        check(&format!("{:03}-{name}-reply-{number}", M::TAG), reply);
    }
}

/// 32 bytes a line, so that a difference can be seen.
fn to_hex(bytes: &[u8]) -> String {
    let line =
        |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hex digits are ASCII");
            u8::from_str_radix(pair, 16).expect("two hex digits")
        })
        .collect()
}

#[test]
fn replica_messages() {
    check_message("read-versions", &samples::read_versions(), &samples::read_replies());
    check_message("store-versions", &samples::store_versions(), &samples::store_replies());
    check_message("mint-version", &samples::mint_version(), &samples::mint_replies());
    check_message("relay-versions", &samples::relay_versions(), &samples::store_replies());
    check_message("relayed-ack", &samples::relayed_ack(), &[()]);
    check_message("forward-write", &samples::forward_write(), &samples::forward_replies());
}

#[test]
fn hint_messages() {
    check_message("store-hint", &samples::store_hint(), &samples::store_replies());
    check_message("read-hints", &samples::read_hints(), &samples::read_replies());
    check_message("mint-hint", &samples::mint_hint(), &samples::mint_replies());
    check_message("request-credit", &samples::request_credit(), &[samples::credit()]);
    check_message("mark-for-repair", &samples::mark_for_repair(), &[()]);
    check_message("check-hints", &samples::check_hints(), &[Ok(vec![true, false])]);
}

#[test]
fn repair_messages() {
    check_message("compare-roots", &samples::compare_roots(), &[Ok(vec![PartitionId(17)])]);
    check_message("compare-ranges", &samples::compare_ranges(), &[Ok(vec![0b101])]);
    check_message("compare-keys", &samples::compare_keys(), &[Ok(samples::keys_differ())]);
    let purged = [Ok(Purged::Gone), Ok(Purged::Kept)];
    check_message("purge-versions", &samples::purge_versions(), &purged);
}

#[test]
fn client_messages() {
    check_message("get", &samples::get(), &samples::get_replies());
    check_message("write", &samples::write(), &samples::write_replies());
    check_message("locate-key", &samples::locate_key(), &samples::locate_replies());
}

#[test]
fn admin_messages() {
    check_message("fetch-cluster", &samples::fetch_cluster(), &samples::fetch_replies());
    check_message("describe-cluster", &samples::describe_cluster(), &[samples::cluster_view()]);
    check_message("alter-keyspace", &samples::alter_keyspace(), &samples::alter_replies());
    for (name, message) in samples::alter_rings() {
        check_message(name, &message, &[]);
    }
    check_message("describe-node", &samples::describe_node(), &[samples::node_status()]);
    check_message("start-repair", &samples::start_repair(), &[samples::repair_started()]);
}

#[test]
fn gossip_messages() {
    for (name, packet) in samples::gossip::packets() {
        assert_eq!(packet.check(), Ok(()), "{name} is an honest packet");
        let replies = if name == "digest" { vec![None, Some(packet.clone())] } else { vec![] };
        check_message(&format!("gossip-{name}"), &packet, &replies);
    }
}

#[test]
fn stored_versions() {
    let stored = codec::encode_stored(&samples::versions());
    assert_eq!(codec::decode_stored(&stored), Ok(samples::versions()));
    assert_eq!(stored[0], 1, "the format byte");
    check("stored-versions", &samples::versions());
}

#[test]
fn context_tokens() {
    let token = anello_protocol::causality::token_encode(&samples::data_key(), &samples::context());
    check("context-token", &token);
}
