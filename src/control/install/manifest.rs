//! What an installation did, kept on the machine: each path with what was there before and what was put there. It is what
//! `uninstall` goes by, and it is written before anything else is.

use super::host::{Decider, Host, State};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where it is. Not the state directory of the service, which belongs to the service.
pub(super) const PATH: &str = "/var/lib/veildns-install/manifest.json";

/// The ending of what was there before, kept beside its place: a rename brings it back with all that belongs to it.
const BACKUP: &str = ".before-veildns";

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Whom programs asked.
    pub(super) decider: Decider,
    /// Directories that were made, in order.
    pub(super) directories: Vec<PathBuf>,
    /// Files and links, in order.
    pub(super) entries: Vec<Entry>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// On the machine.
    pub(super) path: PathBuf,
    /// What was there.
    pub(super) before: State,
    /// What we put there.
    pub(super) after: State,
}

impl Entry {
    /// Returns where what was there before is kept; None when nothing was there.
    pub(super) fn backup(&self) -> Option<PathBuf> {
        (self.before != State::Absent).then(|| backup(&self.path))
    }
}

/// Returns where what was at a path is kept.
pub(in crate::control) fn backup(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BACKUP);
    name.into()
}

impl Manifest {
    /// Makes an empty one.
    pub(super) fn new(decider: Decider) -> Self {
        Self { decider, directories: Vec::new(), entries: Vec::new() }
    }

    /// Returns the entry of a path.
    pub(super) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// Reads the machine's; None when there is none.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense: then nothing may be undone by it.
    pub(super) fn load(host: &Host) -> io::Result<Option<Self>> {
        match fs::read_to_string(host.at(Path::new(PATH))) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "it is no manifest of this version")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it down.
    pub(super) fn text(&self) -> String {
        let entries: Vec<Value> = self
            .entries
            .iter()
            .map(|entry| {
                json!({
                    "path": entry.path.to_string_lossy(),
                    "before": written(&entry.before),
                    "after": written(&entry.after),
                })
            })
            .collect();
        let directories: Vec<_> = self.directories.iter().map(|path| path.to_string_lossy()).collect();
        let whole = json!({
            "version": 1,
            "resolver": self.decider.word(),
            "directories": directories,
            "entries": entries,
        });
        format!("{whole:#}\n")
    }

    /// Reads it; None when it makes no sense.
    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        if value.get("version")?.as_u64()? != 1 {
            return None;
        }
        let directories = value.get("directories")?.as_array()?.iter().map(absolute);
        let entries = value.get("entries")?.as_array()?.iter().map(|entry| {
            Some(Entry {
                path: absolute(entry.get("path")?)?,
                before: read(entry.get("before")?)?,
                after: read(entry.get("after")?)?,
            })
        });
        Some(Self {
            decider: Decider::from_word(value.get("resolver")?.as_str()?)?,
            directories: directories.collect::<Option<_>>()?,
            entries: entries.collect::<Option<_>>()?,
        })
    }
}

/// Returns an absolute path without steps upwards.
fn absolute(value: &Value) -> Option<PathBuf> {
    let path = PathBuf::from(value.as_str()?);
    let upwards = path.components().any(|part| part == std::path::Component::ParentDir);
    (path.is_absolute() && !upwards).then_some(path)
}

/// Writes a state down.
fn written(state: &State) -> Value {
    match state {
        State::File(sha256) => json!({ "sha256": sha256 }),
        State::Link(target) => json!({ "link": target.to_string_lossy() }),
        // Nothing else is ever replaced.
        State::Absent | State::Directory | State::Other => Value::Null,
    }
}

/// Reads a state; None when it makes no sense.
fn read(value: &Value) -> Option<State> {
    if value.is_null() {
        return Some(State::Absent);
    }
    let file = value.get("sha256").and_then(Value::as_str).map(|sha256| State::File(sha256.to_owned()));
    file.or_else(|| value.get("link").and_then(Value::as_str).map(|target| State::Link(target.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let manifest = Manifest {
            decider: Decider::Resolved,
            directories: vec!["/etc/veildns".into()],
            entries: vec![
                Entry { path: "/a".into(), before: State::Absent, after: State::File("00ff".to_owned()) },
                Entry {
                    path: "/b".into(),
                    before: State::Link("../c".into()),
                    after: State::Link("/d".into()),
                },
            ],
        };
        assert_eq!(Manifest::parse(&manifest.text()), Some(manifest));
    }

    #[test]
    fn a_manifest_that_makes_no_sense_undoes_nothing() {
        let good = Manifest::new(Decider::File).text();
        assert!(Manifest::parse(&good).is_some());
        for text in [
            "",
            "{}",
            "[]",
            &good.replace("\"version\": 1", "\"version\": 2"),
            &good.replace("resolv.conf", "somebody"),
            &good.replace("\"directories\": []", "\"directories\": [\"etc\"]"),
            &good.replace("\"directories\": []", "\"directories\": [\"/var/../etc\"]"),
            &good.replace(
                "\"entries\": []",
                "\"entries\": [{\"path\": \"/a\", \"before\": 1, \"after\": null}]",
            ),
        ] {
            assert_eq!(Manifest::parse(text), None, "{text}");
        }
    }
}
