//! What was measured, as a table and as a figure.

use super::{Measured, ROUND_S};

/// A table, in Markdown.
pub fn table(measured: &[Measured]) -> String {
    let mut lines = String::new();
    for m in measured {
        lines += &format!("{m:#?}\n");
    }
    let _ = ROUND_S;
    lines
}

/// A figure.
pub fn svg(_measured: &[Measured]) -> String {
    String::new()
}
