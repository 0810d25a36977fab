//! The runtime below commands that wait for something: one thread.

use std::future::Future;

use crate::outcome::{Failure, Outcome};

/// Runs a command to its end.
pub(crate) fn run(
    command: impl Future<Output = Result<Outcome, Failure>>,
) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    runtime.block_on(command)
}
