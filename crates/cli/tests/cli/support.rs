//! Running the program as a person does, and reading what it says.

pub(crate) mod fleet;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// The program, in a directory of its own and without the caller's profile or colours.
pub(crate) fn anello(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anello"));
    command.current_dir(dir).env_remove("ANELLO_PROFILE").env("HOME", dir).env("NO_COLOR", "1");
    command
}

/// Runs the program to its end.
pub(crate) fn run(dir: &Path, args: &[&str]) -> Ended {
    let Output { status, stdout, stderr } =
        anello(dir).args(args).output().expect("the program starts");
    Ended {
        code: status.code(),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Runs the program with a standard output that nobody reads any more; its exit code.
pub(crate) fn run_unread(dir: &Path, args: &[&str]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().expect("there is a pipe");
    drop(reader);
    let status = anello(dir).args(args).stdout(writer).stderr(Stdio::null()).status();
    status.expect("the program starts").code()
}

/// How a run ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Asserts the exit code, and that an error is one line that holds the words.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(words), "{words:?} is not in {self:?}");
        assert_eq!(self.err.trim_end().lines().count(), 1, "{self:?}");
    }

    /// Asserts that it went well.
    #[track_caller]
    pub(crate) fn succeeds(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.out
    }
}
