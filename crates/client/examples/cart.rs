//! A shopping cart that two devices change at the same time, as in the Dynamo paper: nothing that was
//! put in is lost, and what was taken out stays out.
//!
//! A union of carts would bring back what one device took out while the other one added something. So a
//! cart keeps, for each item, how often it was put in and how often taken out; both only grow, and the
//! merge takes the greater of each. What is in the cart is the difference.
//!
//! Runs against a node within this process: `cargo run -p anello-client --example cart`.

mod in_process;

use std::collections::BTreeMap;

use anello_client::{Bytes, Client, Keyspace, Read, Resolve};

/// What is in a cart, and what was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cart {
    items: BTreeMap<String, Counts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    put_in: u64,
    taken_out: u64,
}

impl Cart {
    fn put_in(&mut self, item: &str) {
        let counts = self.items.entry(item.to_owned()).or_default();
        counts.put_in = counts.taken_out + 1;
    }

    fn take_out(&mut self, item: &str) {
        if let Some(counts) = self.items.get_mut(item) {
            counts.taken_out = counts.put_in;
        }
    }

    fn contents(&self) -> Vec<&str> {
        let held = self.items.iter().filter(|(_, counts)| counts.put_in > counts.taken_out);
        held.map(|(item, _)| item.as_str()).collect()
    }

    fn merge(mut self, other: Self) -> Self {
        for (item, theirs) in other.items {
            let ours = self.items.entry(item).or_default();
            ours.put_in = ours.put_in.max(theirs.put_in);
            ours.taken_out = ours.taken_out.max(theirs.taken_out);
        }
        self
    }

    /// A line for each item: `put in, taken out, name`.
    fn encode(&self) -> Bytes {
        let line = |(item, counts): (&String, &Counts)| {
            format!("{} {} {item}\n", counts.put_in, counts.taken_out)
        };
        self.items.iter().map(line).collect::<String>().into()
    }

    fn decode(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let item = |line: &str| {
            let mut parts = line.splitn(3, ' ');
            let put_in = parts.next()?.parse().ok()?;
            let taken_out = parts.next()?.parse().ok()?;
            Some((parts.next()?.to_owned(), Counts { put_in, taken_out }))
        };
        Self { items: text.lines().filter_map(item).collect() }
    }
}

struct MergeCarts;

impl Resolve for MergeCarts {
    fn resolve(&self, carts: Vec<Bytes>) -> Bytes {
        let carts = carts.iter().map(|cart| Cart::decode(cart));
        carts.reduce(Cart::merge).unwrap_or_default().encode()
    }
}

async fn change(
    carts: &Keyspace,
    key: &str,
    change: impl FnOnce(&mut Cart) + Send + 'static,
) -> anyhow::Result<Cart> {
    let updated = carts
        .update(key, move |old| {
            let mut cart = old.map(|bytes| Cart::decode(&bytes)).unwrap_or_default();
            change(&mut cart);
            cart.encode()
        })
        .await?;
    Ok(updated.value.map(|bytes| Cart::decode(&bytes)).unwrap_or_default())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let node = in_process::start();
    let client = Client::from_profile(&node.profile()).await?;
    let carts = client.keyspace("default").resolver(MergeCarts);

    change(&carts, "cart:42", |cart| cart.put_in("a book")).await?;

    // The phone has read the cart and goes into a tunnel.
    let Read::One { value, context } = carts.get("cart:42").await? else {
        anyhow::bail!("there is one cart so far");
    };
    let mut offline = Cart::decode(&value);

    // Meanwhile, on the laptop:
    change(&carts, "cart:42", |cart| {
        cart.take_out("a book");
        cart.put_in("a lamp");
    })
    .await?;

    // Out of the tunnel, the phone writes what it had in mind. It hasn't seen the laptop's change, and
    // its context says so: both are kept.
    offline.put_in("a chair");
    carts.put("cart:42", offline.encode()).context(context).await?;
    if let Read::Siblings { siblings, .. } = carts.get("cart:42").await? {
        println!("{} carts that don't know of each other", siblings.len());
    }

    // Whoever comes next merges them.
    let cart = change(&carts, "cart:42", |_| {}).await?;
    println!("in the cart: {}", cart.contents().join(", "));
    assert_eq!(cart.contents(), ["a chair", "a lamp"]);
    Ok(())
}

#[test]
fn it_runs() -> anyhow::Result<()> {
    main()
}
