//! The program as a person runs it: what it prints, and how it ends.

mod bench;
mod fleet;
mod import;
mod support;
mod tls;
mod usage;
