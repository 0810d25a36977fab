//! Reading settings: where each one stands, and a line for each that is not as expected.
//!
//! A setting is named by its path, `node.id`; in the environment that is `ANELLO_NODE__ID`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    net::SocketAddr,
    path::Path,
};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{
    Problem,
    kinds::{Given, Kind},
    raw::{self, Raw, RawConfig, SECTIONS},
};

const PREFIX: &str = "ANELLO_";
/// Between a section and a key in the name of a variable.
const SEPARATOR: &str = "__";

/// Where settings stand: in which file, and which of them in the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    file: Option<String>,
    /// The paths of settings that the environment gives.
    from_environment: BTreeSet<String>,
}

impl Source {
    /// Where a setting stands: a variable, or a key in a file.
    pub fn place(&self, path: &str) -> String {
        match &self.file {
            Some(file) if !self.from_environment.contains(path) => format!("{file}: {path}"),
            _ => variable(path),
        }
    }
}

/// Reads settings, and gathers what is wrong with them.
pub(super) struct Reader {
    pub(super) source: Source,
    pub(super) problems: Vec<Problem>,
    /// The paths of settings whose values in the environment are no text.
    not_text: BTreeSet<String>,
}

impl Reader {
    /// Reads both sources; what the environment says replaces what the file says.
    pub(super) fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (RawConfig, Self) {
        let source = Source {
            file: file.map(|path| path.display().to_string()),
            from_environment: BTreeSet::new(),
        };
        let mut reader = Self { source, problems: Vec::new(), not_text: BTreeSet::new() };
        let mut sections = file.map(|path| reader.sections_of(path)).unwrap_or_default();
        // Sorted, so that problems are reported in the same order every time.
        for (variable, value) in environment.into_iter().collect::<BTreeMap<_, _>>() {
            // A name that is no text is none of a setting, which is then said of it.
            let variable = variable.to_string_lossy();
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            // One without a separator is no setting of a node: `ANELLO_PROFILE` is the CLI's, and an
            // orchestrator says by `ANELLO_SERVICE_HOST` where a service called `anello` is.
            let Some((section, key)) = name.rsplit_once(SEPARATOR) else {
                reader.problems.extend(slip(&variable, name));
                continue;
            };
            let section = section.to_ascii_lowercase().replace(SEPARATOR, ".");
            let key = key.to_ascii_lowercase();
            let path = format!("{section}.{key}");
            if value.to_str().is_none() {
                reader.not_text.insert(path.clone());
            }
            reader.source.from_environment.insert(path);
            let value = Value::String(value.to_string_lossy().into_owned());
            sections.entry(section).or_default().insert(key, value);
        }
        let raw = reader.raw(sections);
        (raw, reader)
    }

    fn raw(&mut self, mut sections: BTreeMap<String, Table>) -> RawConfig {
        let has_http_tls = sections.contains_key("http.tls");
        let raw = RawConfig {
            node: self.section(&mut sections, "node"),
            cluster: self.section(&mut sections, "cluster"),
            listen: self.section(&mut sections, "listen"),
            advertise: self.section(&mut sections, "advertise"),
            tls: self.section(&mut sections, "tls"),
            http_tls: has_http_tls.then(|| self.section(&mut sections, "http.tls")),
            storage: self.section(&mut sections, "storage"),
            hints: self.section(&mut sections, "hints"),
            telemetry: self.section(&mut sections, "telemetry"),
        };
        for (section, keys) in sections {
            let expected = format!("expected one of the sections {}", SECTIONS.join(", "));
            let from_environment: Vec<_> = keys
                .keys()
                .map(|key| format!("{section}.{key}"))
                .filter(|path| self.source.from_environment.contains(path))
                .collect();
            if from_environment.len() < keys.len() || keys.is_empty() {
                self.problem(&section, format!("unknown section; {expected}"));
            }
            for path in from_environment {
                self.problem(&path, format!("unknown setting; {expected}"));
            }
        }
        raw
    }

    /// The file's sections: `[http.tls]` is the section `http.tls`.
    fn sections_of(&mut self, path: &Path) -> BTreeMap<String, Table> {
        let mut sections = BTreeMap::<String, Table>::new();
        for (name, value) in self.table_of(path) {
            match value {
                Value::Table(keys) if name == "http" => {
                    for (key, value) in keys {
                        match value {
                            Value::Table(keys) if key == "tls" => {
                                sections.insert("http.tls".into(), keys);
                            }
                            value => {
                                sections.entry(name.clone()).or_default().insert(key, value);
                            }
                        }
                    }
                }
                Value::Table(keys) => {
                    sections.insert(name, keys);
                }
                _ => {
                    let expected = "unknown key; expected keys below a section, such as [node]";
                    self.problem(&name, expected.into());
                }
            }
        }
        sections
    }

    fn table_of(&mut self, path: &Path) -> Table {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let place = path.display().to_string();
                let what = format!(
                    "cannot be read: {error}; expected a configuration file (a relative path is \
                     relative to the working directory)"
                );
                self.problems.push(Problem { place, what });
                return Table::new();
            }
        };
        text.parse::<Table>().unwrap_or_else(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count();
            let key = text.lines().nth(line).and_then(|text| text.split_once('='));
            let key = key.map(|(key, _)| format!(": {}", key.trim())).unwrap_or_default();
            let place = format!("{} line {}{key}", path.display(), line + 1);
            let message = error.message().replace('\n', ", ");
            self.problems.push(Problem { place, what: format!("expected TOML: {message}") });
            Table::new()
        })
    }

    /// One section, without the keys that it can't have, which are reported.
    fn section<T: DeserializeOwned + Default>(
        &mut self,
        sections: &mut BTreeMap<String, Table>,
        name: &str,
    ) -> T {
        let mut known = Table::new();
        for (key, value) in sections.remove(name).unwrap_or_default() {
            match Table::from_iter([(key.clone(), value.clone())]).try_into::<T>() {
                Ok(_) => {
                    known.insert(key, value);
                }
                Err(error) => {
                    let message = error.message();
                    let expected =
                        message.split_once(", ").map_or(message, |(_, expected)| expected);
                    self.problem(&format!("{name}.{key}"), format!("unknown key; {expected}"));
                }
            }
        }
        known.try_into().unwrap_or_default()
    }

    /// A setting that there must be.
    pub(super) fn required<T>(&mut self, path: &str, raw: Raw, kind: Kind<T>) -> Option<T> {
        if raw.is_none() && !self.is_broken() {
            self.problem(path, format!("missing; expected {}", kind.expected));
        }
        self.optional(path, raw, kind)
    }

    /// A setting with a default.
    pub(super) fn or<T>(&mut self, path: &str, raw: Raw, kind: Kind<T>, default: T) -> T {
        self.optional(path, raw, kind).unwrap_or(default)
    }

    /// A setting that may be left out.
    pub(super) fn optional<T>(&mut self, path: &str, raw: Raw, kind: Kind<T>) -> Option<T> {
        let raw = raw?;
        let given = match (&raw, self.source.from_environment.contains(path)) {
            (Value::String(text), true) => Given::Text(text),
            _ => Given::Toml(&raw),
        };
        if self.not_text.contains(path) {
            let what = format!("expected {}, found {raw}, which is no UTF-8 text", kind.expected);
            self.problem(path, what);
            return None;
        }
        let value = (kind.parse)(given);
        if value.is_none() {
            self.problem(path, format!("expected {}, found {raw}", kind.expected));
        }
        value
    }

    /// Reports an address that is bound to all interfaces and told to others as it is.
    pub(super) fn reachable(&mut self, key: &str, bound: SocketAddr, advertised: Option<&str>) {
        if bound.ip().is_unspecified() && advertised.is_none() {
            let what = format!(
                "missing; expected the host:port at which others reach the node, because listen.{key} is \
                 {bound}, which is every address of the machine"
            );
            self.problem(&format!("advertise.{key}"), what);
        }
    }

    fn problem(&mut self, path: &str, what: String) {
        self.problems.push(Problem { place: self.source.place(path), what });
    }

    /// Whether the file could not be read at all, so that everything would seem missing.
    fn is_broken(&self) -> bool {
        self.problems.iter().any(|problem| {
            let file = self.source.file.as_deref().unwrap_or_default();
            problem.place == file || problem.what.starts_with("expected TOML")
        })
    }
}

/// What is wrong with a variable that is no setting and was most likely meant as one: `ANELLO_NODE_ID`,
/// `ANELLO_DATA_DIR`.
fn slip(given: &str, name: &str) -> Option<Problem> {
    let letters = |text: &str| text.to_ascii_lowercase().replace(['_', '.'], "");
    let name = letters(name);
    let is_meant = |path: &String| {
        let (_, key) = path.rsplit_once('.').unwrap_or_default();
        name == letters(path) || name == letters(key)
    };
    let meant = raw::paths().find(is_meant)?;
    let what = format!("unknown setting; expected {}", variable(&meant));
    Some(Problem { place: given.into(), what })
}

fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', SEPARATOR))
}
