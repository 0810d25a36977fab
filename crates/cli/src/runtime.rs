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
    let ended = runtime.block_on(command);
    // A host name that is still being looked up, say, would hold the command beyond its time.
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_still_blocks_in_the_background_is_not_waited_for() {
        let (end, ended) = mpsc::channel::<()>();
        let command = async {
            tokio::task::spawn_blocking(move || ended.recv());
            Ok(Outcome::Done)
        };
        assert_eq!(run(command), Ok(Outcome::Done));
        drop(end);
    }
}
