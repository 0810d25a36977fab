//! The first steps: write, read, replace what was read, delete.
//!
//! Runs against a node within this process: `cargo run -p anello-client --example quickstart`.

mod in_process;

use anello_client::{Client, Read};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let node = in_process::start();

    // Beside a fleet of `anello fleet up` this is `Profile::find()?` or `Profile::load(path)?`.
    let profile = node.profile();
    let client = Client::from_profile(&profile).await?;

    // A value is any bytes up to 1 MiB, a key any bytes up to 1 KiB.
    let context = client.put("user:ada", r#"{"name": "Ada"}"#).await?;

    // The context says what the writer has seen. With it, a write replaces exactly that.
    client.put("user:ada", r#"{"name": "Ada Lovelace"}"#).context(context).await?;

    let Read::One { value, context } = client.get("user:ada").await? else {
        anyhow::bail!("somebody else writes this key too");
    };
    println!("{}", String::from_utf8_lossy(&value));

    client.delete("user:ada").context(context).await?;
    match client.get("user:ada").await? {
        Read::Deleted { .. } => println!("deleted"),
        other => println!("{other:?}"),
    }

    // Who answered, and how long it took them.
    let explained = client.get("user:ada").explained().await?;
    for replica in explained.receipt.into_iter().flat_map(|receipt| receipt.replicas) {
        println!("{} {:?} after {} µs", replica.id, replica.outcome, replica.us);
    }
    Ok(())
}

#[test]
fn it_runs() -> anyhow::Result<()> {
    main()
}
