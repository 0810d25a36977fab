//! A node's config file, as `fleet up` writes it.

use std::{net::SocketAddr, path::Path};

use anello_protocol::id::ClusterName;

use super::{file::Durability, layout::Place};

/// The files that a node's config names.
pub(super) struct NodeFiles<'a> {
    /// Its data.
    pub(super) data_dir: &'a Path,
    /// The authority's certificate.
    pub(super) ca: &'a Path,
    /// The node's certificate.
    pub(super) certificate: &'a Path,
    /// The node's key.
    pub(super) key: &'a Path,
}

/// A node's config file.
pub(super) fn node(
    place: &Place,
    cluster: &ClusterName,
    seeds: &[SocketAddr],
    partitions: u32,
    durability: Durability,
    threads: usize,
    files: &NodeFiles<'_>,
) -> String {
    let id = &place.node.id;
    let seeds: Vec<_> = seeds.iter().map(|seed| quoted(&seed.to_string())).collect();
    let seeds = seeds.join(", ");
    format!(
        "# Written by `anello fleet up`, which overwrites it.

[node]
id         = {id}
datacenter = {datacenter}
rack       = {rack}
data_dir   = {data_dir}
# The nodes share this machine's cores: one with more threads than its share only waits for them.
threads    = {threads}

[cluster]
name       = {cluster}
seeds      = [{seeds}]
partitions = {partitions}

[listen]
quic = {quic}
http = {http}

[tls]
ca   = {ca}
cert = {cert}
key  = {key}

[storage]
durability = {durability}
",
        id = quoted(id.as_str()),
        datacenter = quoted(place.node.datacenter.as_str()),
        rack = quoted(place.node.rack.as_str()),
        data_dir = path(files.data_dir),
        cluster = quoted(cluster.as_str()),
        quic = quoted(&place.quic.to_string()),
        http = quoted(&place.http.to_string()),
        ca = path(files.ca),
        cert = path(files.certificate),
        key = path(files.key),
        durability = quoted(durability.as_str()),
    )
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A TOML string, whatever is in it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_quoted() {
        for odd in ["/with \"quotes\"", "/with 'both' \"kinds\"", "/back\\slash", "/new\nline"] {
            let text = format!("path = {}", path(Path::new(odd)));
            let table: toml::Table = text.parse().unwrap();
            assert_eq!(table["path"].as_str(), Some(odd));
        }
    }
}
