//! What to try once a fleet is up: a write, a read from elsewhere, a killed node, a read that answers.

use std::{env, fmt::Write};

use super::layout::Layout;

/// Commands to paste into another terminal.
pub(super) fn what_to_try(layout: &Layout) -> String {
    let program = program();
    let nodes = layout.nodes();
    let (Some(first), Some(last)) = (nodes.first(), nodes.last()) else { return String::new() };
    // The next one of the first node's datacenter, so that the write and the read both go on.
    let victim = nodes.iter().rev().find(|p| {
        p.node.datacenter == first.node.datacenter && p.id() != first.id() && p.id() != last.id()
    });
    let elsewhere = if last.node.datacenter == first.node.datacenter {
        format!("by way of {}", last.id())
    } else {
        format!("from datacenter {}", last.node.datacenter)
    };
    let mut lines = vec![(format!("{program} put greeting hello"), "write".to_owned())];
    lines.push((
        format!("{program} get greeting --node {}", last.quic),
        format!("read {elsewhere}"),
    ));
    if let Some(victim) = victim {
        lines.push((format!("{program} fleet kill {}", victim.id()), "kill -9 a node".into()));
        lines.push((format!("{program} get greeting"), "it still answers".into()));
        lines.push((format!("{program} fleet start {}", victim.id()), "bring it back".into()));
    }
    lines.push((format!("{program} status"), "who is there".into()));
    lines.push((format!("curl http://{}/kv/greeting", first.http), "the same over HTTP".into()));
    let width = lines.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let mut text = String::from("\nTry, in another terminal in this directory:\n");
    for (command, what) in lines {
        // Writing to a string can't fail.
        let _ = writeln!(text, "  {command:width$}   # {what}");
    }
    text.push_str("\nCtrl-C stops the fleet; its data stays for the next `fleet up`.");
    text
}

/// This program as it was called, if that was by a path, so that the hints can be pasted.
fn program() -> String {
    match env::args().next() {
        Some(called) if called.contains('/') => called,
        _ => "anello".into(),
    }
}
