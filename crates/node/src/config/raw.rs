//! Which keys there are: the sections of the file, every value as it was written.
//!
//! Values stay unread here, so that one that is of the wrong kind is reported with its own key.

use serde::Deserialize;
use toml::Value;

/// A value as it was written, if it was.
pub(super) type Raw = Option<Value>;

/// The sections that there are, by their names.
pub(super) const SECTIONS: [&str; 9] =
    ["node", "cluster", "listen", "advertise", "tls", "http.tls", "storage", "hints", "telemetry"];

/// All sections.
#[derive(Debug, Default)]
pub(super) struct RawConfig {
    pub(super) node: RawNode,
    pub(super) cluster: RawCluster,
    pub(super) listen: RawAddresses,
    pub(super) advertise: RawAddresses,
    pub(super) tls: RawTls,
    pub(super) http_tls: Option<RawHttpTls>,
    pub(super) storage: RawStorage,
    pub(super) hints: RawHints,
    pub(super) telemetry: RawTelemetry,
}

macro_rules! section {
    ($type:ident { $($key:ident),* }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $type {
            $(pub(super) $key: Raw,)*
        }

        impl $type {
            const KEYS: &[&str] = &[$(stringify!($key)),*];
        }
    };
}

section!(RawNode { id, datacenter, rack, weight, data_dir, threads });
section!(RawCluster { name, seeds, partitions });
section!(RawAddresses { quic, http });
section!(RawTls { ca, cert, key });
section!(RawHttpTls { cert, key });
section!(RawStorage { durability });
section!(RawHints { age_max_s, bytes_max });
section!(RawTelemetry { otlp_endpoint, sample_ratio, log, log_format });

/// The paths of all settings, such as `node.id`.
pub(super) fn paths() -> impl Iterator<Item = String> {
    let keys = [
        RawNode::KEYS,
        RawCluster::KEYS,
        RawAddresses::KEYS,
        RawAddresses::KEYS,
        RawTls::KEYS,
        RawHttpTls::KEYS,
        RawStorage::KEYS,
        RawHints::KEYS,
        RawTelemetry::KEYS,
    ];
    let sections = SECTIONS.into_iter().zip(keys);
    sections.flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")))
}
