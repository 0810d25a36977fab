//! `anello import FILE` and `import --check FILE`: bulk load, or compare, JSON Lines.
//!
//! An import that is run again makes no siblings: the write of a record has the same name each time. A
//! killed node fails no record: each one is tried for a generous while. An interrupted import of a file
//! goes on where everything before is done; one that came to its end begins anew.

mod account;
mod bookmark;
mod frontier;
mod records;
mod session;

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anello_client::Client;
use anello_protocol::id::KeyspaceName;
use clap::Args;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    connect::{Cluster, Level, duration},
    interrupt::Interrupts,
    outcome::{Failure, Outcome},
    output::{self, Palette},
    progress::Progress,
};
use account::Account;
use bookmark::Bookmark;
use frontier::Frontier;
use records::{Line, Start, read_ahead};
use session::{End, Event, Finding, Task};

/// How often it is kept how far an import is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(1);

/// Load records in bulk, or compare them with what is there
///
/// FILE is JSON Lines: {"key": "…", "value": "…", "encoding": "utf-8" | "base64"}, a record a line. The
/// encoding is the value's and may be left out. Importing a record twice makes no second version of it;
/// a record whose key has another value already becomes its sibling.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The records; - for standard input
    file: PathBuf,
    /// Write nothing; compare every record with what is there, byte for byte
    #[arg(long)]
    check: bool,
    /// How many records are under way at a time
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_flight: u16,
    /// How long a record is tried before it counts as failed
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    patience: Duration,
    /// Begin anew, whatever an interrupted import has done
    #[arg(long)]
    restart: bool,
    /// The keyspace
    #[arg(long, value_name = "NAME", default_value = "default")]
    keyspace: KeyspaceName,
    /// One JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    level: Level,
    #[command(flatten)]
    cluster: Cluster,
}

/// Imports, or compares.
pub(crate) async fn run(command: Import) -> Result<Outcome, Failure> {
    let client = command.cluster.connect_with(|builder| command.level.apply(builder)).await?;
    let name = command.keyspace.as_str();
    let state = client.cluster_state().await?;
    if !state.keyspaces.contains_key(&command.keyspace) {
        return Err(Failure::failed(format_args!(
            "there is no keyspace {name}; create it with `anello keyspace create {name}`"
        )));
    }
    let task = Task {
        keyspace: client.keyspace(name),
        name: name.into(),
        check: command.check,
        patience: command.patience,
    };
    let input = Input::open(&command, &state.name, &task).await?;
    let ended = Running::new(&command, input).run(&task).await;
    close(&client).await;
    ended
}

/// Closing is a courtesy to the nodes: it is not waited for beyond a moment.
async fn close(client: &Client) {
    let _ = timeout(Duration::from_secs(1), client.close()).await;
}

/// Where records come from.
struct Input {
    lines: mpsc::Receiver<io::Result<Line>>,
    /// Its size, where it is a file.
    size: Option<u64>,
    start: Start,
    bookmark: Option<Bookmark>,
}

impl Input {
    async fn open(
        command: &Import,
        cluster: &anello_protocol::id::ClusterName,
        task: &Task,
    ) -> Result<Self, Failure> {
        let path = &command.file;
        if path == Path::new("-") {
            let (size, start, bookmark) = (None, Start::default(), None);
            return Ok(Self { lines: read_ahead(io::stdin(), start), size, start, bookmark });
        }
        let cannot = |error: io::Error| {
            Failure::usage(format_args!("cannot read {}: {error}", path.display()))
        };
        let about = std::fs::metadata(path).map_err(cannot)?;
        if !about.is_file() {
            // A pipe, or the like: read once, from its beginning, size unknown.
            let (size, start, bookmark) = (None, Start::default(), None);
            let lines = read_ahead(File::open(path).map_err(cannot)?, start);
            return Ok(Self { lines, size, start, bookmark });
        }
        let mut bookmark = None;
        let mut start = Start::default();
        if !command.check {
            let kept = Bookmark::of(&bookmark::home(), path, cluster, &command.keyspace);
            let kept = kept.map_err(cannot)?;
            if !command.restart {
                start = trusted(kept.read(), path, task).await?;
            }
            bookmark = Some(kept);
        }
        let mut file = File::open(path).map_err(cannot)?;
        file.seek(SeekFrom::Start(start.offset)).map_err(cannot)?;
        if start != Start::default() {
            output::note(format_args!(
                "going on after line {}, up to where the last import got all records in (--restart begins anew)",
                start.lines
            ));
        }
        Ok(Self { lines: read_ahead(file, start), size: Some(about.len()), start, bookmark })
    }
}

/// A bookmark is believed only if the key of the file's first record is seen to be in the cluster, which
/// may have been founded anew under its old name. Where something else is there, nobody but the user
/// can know: to go on may leave out what was never written, and to begin anew may bring old values back,
/// because a key that was written many times since doesn't know the import's write any more.
async fn trusted(start: Start, path: &Path, task: &Task) -> Result<Start, Failure> {
    if start == Start::default() {
        return Ok(start);
    }
    let file = File::open(path)
        .map_err(|error| Failure::usage(format_args!("cannot read {}: {error}", path.display())))?;
    let look = Task { check: true, ..task.clone() };
    match session::first(&look, read_ahead(file, Start::default())).await {
        Some(Finding::Good) => Ok(start),
        Some(Finding::Missing) | None => {
            output::note("beginning anew: the cluster has nothing of what the last import wrote");
            Ok(Start::default())
        }
        Some(Finding::Different | Finding::Siblings(_)) => Err(Failure::failed(
            "the first record has another value in the cluster than the last import gave it, so it is \
             not known whether the rest is there: --restart begins anew, over what was written since",
        )),
        Some(Finding::Failed(reason)) => Err(Failure::failed(format_args!(
            "cannot see whether the cluster has what the last import wrote, so as to go on there: \
             {reason} (--restart begins anew)"
        ))),
    }
}

/// An import that is under way.
struct Running<'a> {
    command: &'a Import,
    input: Input,
    account: Account,
    frontier: Frontier,
    progress: Progress,
    furthest: u64,
    kept: Instant,
}

impl<'a> Running<'a> {
    fn new(command: &'a Import, input: Input) -> Self {
        let what = if command.check { "check" } else { "import" };
        let start = input.start;
        Self {
            command,
            account: Account::default(),
            frontier: Frontier::at(start),
            progress: Progress::begin(what, input.size, start.offset),
            furthest: start.offset,
            kept: Instant::now(),
            input,
        }
    }

    async fn run(mut self, task: &Task) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let (_none, none) = mpsc::channel(1);
        let lines = std::mem::replace(&mut self.input.lines, none);
        let in_flight = self.command.in_flight.into();
        let mut interrupts = Interrupts::listen()?;
        let end = session::run(task, lines, in_flight, interrupts.next(), |event| {
            self.hear(event);
        })
        .await;
        self.progress.end();
        self.keep(matches!(end, End::Complete) && self.account.bad() == 0);
        self.report(&end, began.elapsed())
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Begun { line, end } => {
                self.frontier.begin(line, end);
                self.furthest = end;
            }
            Event::Settled { line, key, finding } => {
                match finding {
                    Finding::Good => self.frontier.done(line),
                    _ => self.frontier.failed(line),
                }
                self.account.add(line, &key, &finding);
            }
            Event::Tick => {
                self.progress.at(self.furthest, self.account.all());
                if self.kept.elapsed() >= BOOKMARK_EVERY {
                    self.kept = Instant::now();
                    self.keep(false);
                }
            }
        }
    }

    /// Keeps how far the import is, or that it is over.
    fn keep(&self, over: bool) {
        let Some(bookmark) = &self.input.bookmark else { return };
        if over {
            bookmark.remove();
        } else if let Err(error) = bookmark.write(self.frontier.reached()) {
            // The import itself is well; only an interruption would cost more.
            self.progress.say(&format!("cannot keep how far the import is: {error}"));
        }
    }

    fn report(&self, end: &End, took: Duration) -> Result<Outcome, Failure> {
        let check = self.command.check;
        let rate = self.account.all() as f64 / took.as_secs_f64().max(0.001);
        if self.command.json {
            let mut document = self.account.json();
            document["complete"] = matches!(end, End::Complete).into();
            document["resumed_after_line"] = self.input.start.lines.into();
            document["seconds"] = took.as_secs_f64().into();
            output::json(&document)?;
        } else {
            for line in self.account.list(Palette::of_stderr()) {
                output::note(line);
            }
            let counts = self.account.text(check);
            let seconds = took.as_secs_f64();
            output::line(format_args!("{counts}, in {seconds:.1} s ({rate:.0}/s)"))?;
        }
        let ended = match end {
            End::Interrupted => Err(Failure::failed(match &self.input.bookmark {
                Some(_) => "interrupted: the same command again goes on from here",
                None => "interrupted",
            })),
            End::Input(error) => Err(Failure::failed(format_args!(
                "cannot read on in {}: {error}",
                self.command.file.display()
            ))),
            End::Complete if self.account.bad() > 0 => {
                let (bad, all) = (self.account.bad(), self.account.all());
                let again = match check {
                    true => "",
                    false => "; the same command again goes on at the first of them",
                };
                Err(Failure::failed(format_args!(
                    "{bad} of {all} records are not as they should be{again}"
                )))
            }
            End::Complete => Ok(Outcome::Done),
        };
        if self.command.json { ended.map_err(Failure::documented) } else { ended }
    }
}
