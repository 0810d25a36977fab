//! A counter that many writers count on at the same time, and none of them loses a count.
//!
//! One number in the key would not do: of two siblings `5`, each made from `4`, nothing tells that the
//! sum should be 6. So the value holds a count for each writer, only the writer itself changes it, and
//! the merge takes the greatest of each (a G-counter; Shapiro et al., 2011). The counter is the sum.
//!
//! A writer must not count twice at the same time under one name: here each task has its own.
//!
//! Runs against a node within this process: `cargo run -p anello-client --example counter`.

mod in_process;

use std::collections::BTreeMap;

use anello_client::{Bytes, Client, Consistency, Error, Keyspace, QuorumKind};

/// The counts, by writer; as bytes, a line for each: `count writer`.
type Counts = BTreeMap<String, u64>;

fn encode(counts: &Counts) -> Bytes {
    counts.iter().map(|(writer, count)| format!("{count} {writer}\n")).collect::<String>().into()
}

fn decode(bytes: &[u8]) -> Counts {
    let text = String::from_utf8_lossy(bytes);
    let line = |line: &str| {
        let (count, writer) = line.split_once(' ')?;
        Some((writer.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn greatest_of_each(siblings: Vec<Bytes>) -> Bytes {
    let mut merged = Counts::new();
    for (writer, count) in siblings.iter().flat_map(|counts| decode(counts)) {
        let ours = merged.entry(writer).or_default();
        *ours = count.max(*ours);
    }
    encode(&merged)
}

async fn increment(counters: &Keyspace, key: &str, writer: String) -> Result<(), Error> {
    // What this writer has counted before must be seen, so that it counts on from there: strict quorums
    // of reads and writes overlap.
    let update = counters.update(key, move |old| {
        let mut counts = old.map(|bytes| decode(&bytes)).unwrap_or_default();
        *counts.entry(writer).or_default() += 1;
        encode(&counts)
    });
    update
        .quorum(QuorumKind::Strict)
        .read_consistency(Consistency::Quorum)
        .write_consistency(Consistency::Quorum)
        .await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let node = in_process::start();
    let client = Client::from_profile(&node.profile()).await?;
    let counters = client.keyspace("default").resolver(greatest_of_each);

    let writers = (0..8).map(|writer| {
        let counters = counters.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                increment(&counters, "visits", format!("writer {writer}")).await?;
            }
            Ok::<(), Error>(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }

    let counts = counters.update("visits", |counts| counts).await?.value.unwrap_or_default();
    let visits: u64 = decode(&counts).values().sum();
    println!("{visits} visits");
    assert_eq!(visits, 200);
    Ok(())
}

#[test]
fn it_runs() -> anyhow::Result<()> {
    main()
}
