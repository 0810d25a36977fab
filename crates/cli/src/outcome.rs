//! How a command ends: the exit codes that scripts rely on, and the one line that a person reads.

use std::{fmt, process::ExitCode};

use serde_json::{Value, json};

use crate::output;

/// How a command ended when it did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Done,
    /// The key has siblings; exit code 3.
    Siblings,
    /// There is no such key; exit code 4.
    NotFound,
}

impl Outcome {
    /// Tells the person and the shell how a command ended, and the program that asked for JSON why it
    /// failed.
    pub(crate) fn report(ended: Result<Outcome, Failure>, json: bool) -> ExitCode {
        match ended {
            Ok(Outcome::Done) => ExitCode::SUCCESS,
            Ok(Outcome::Siblings) => ExitCode::from(3),
            Ok(Outcome::NotFound) => ExitCode::from(4),
            Err(failure) => {
                output::note(format_args!("anello: {failure}"));
                if json && !failure.documented {
                    // The exit code and the line above say it too, should nobody read this.
                    let _ = output::json(&failure.document());
                }
                ExitCode::from(failure.kind.code())
            }
        }
    }
}

/// What went wrong, as far as a script cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    Usage,
    TooFewReplicas,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::TooFewReplicas => 5,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Usage => "bad_usage",
            Kind::TooFewReplicas => "too_few_replicas",
        }
    }
}

/// Why a command did not do what it was asked: one line that says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    /// Whether the command's own document is on standard output already.
    documented: bool,
}

impl Failure {
    /// It was tried and went wrong; exit code 1.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// It was asked wrongly: a bad flag, file or value; exit code 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Too few replicas can be reached, or answered in time; exit code 5.
    pub(crate) fn too_few_replicas(message: impl fmt::Display) -> Self {
        Self::new(Kind::TooFewReplicas, message)
    }

    /// The same of a command that has printed its document, which is to stay the only one.
    pub(crate) fn documented(self) -> Self {
        Self { documented: true, ..self }
    }

    fn document(&self) -> Value {
        json!({ "error": self.kind.name(), "message": self.message })
    }

    fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), documented: false }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
