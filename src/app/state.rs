//! What outlives a restart: addresses of servers that are configured by name only, so that a cold start needs no look-up, and
//! the last time the clock was known to be right. A small JSON file, replaced whole; one that cannot be read is left out
//! with a notice. Nothing of clients, and no name that they asked for, is in it.

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tracing::warn;

/// The file's name.
const FILE: &str = "state.json";

/// Octets read of it: many times what we write.
const LONGEST: u64 = 64 * 1024;

/// Names taken from it, and addresses of each.
const MOST_NAMES: usize = 64;
/// See [`MOST_NAMES`].
const MOST_ADDRESSES: usize = 16;

/// No last time is taken from further in the future than this, in seconds since 1970 (the year 2100): it would make every
/// certificate look expired.
const LATEST: u64 = 4_102_444_800;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Addresses by the names of servers.
    pub(super) addresses: Vec<(String, Vec<IpAddr>)>,
    /// When the clock was last known to be right, seconds since 1970.
    pub(super) good_time: u64,
}

impl State {
    /// Reads what was kept in `directory`; nothing when there is no file, or none that makes sense.
    pub(super) fn load(directory: &Path) -> Self {
        let path = directory.join(FILE);
        match read(&path) {
            Ok(text) => Self::parse(&text).unwrap_or_else(|| {
                warn!(path = %path.display(), "what was kept of the last run makes no sense and is not used");
                Self::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                warn!(path = %path.display(), %error, "what was kept of the last run cannot be read");
                Self::default()
            }
        }
    }

    /// Keeps it in `directory`: all or nothing, whenever the machine stops.
    pub(super) fn save(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join(format!("{FILE}.new"));
        fs::write(&temporary, self.text())?;
        fs::rename(temporary, directory.join(FILE))
    }

    /// Writes it down.
    fn text(&self) -> String {
        let addresses: serde_json::Map<String, Value> =
            self.addresses.iter().map(|(name, addresses)| (name.clone(), json!(texts(addresses)))).collect();
        format!("{:#}\n", json!({ "addresses": addresses, "good_time": self.good_time }))
    }

    /// Reads it. What does not belong is left out; None: it is no state at all.
    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let addresses = value.get("addresses")?.as_object()?.iter().take(MOST_NAMES);
        let addresses = addresses.filter_map(|(name, list)| {
            let list = list.as_array()?.iter().take(MOST_ADDRESSES);
            let list: Vec<IpAddr> = list.filter_map(|address| address.as_str()?.parse().ok()).collect();
            (!list.is_empty()).then(|| (name.clone(), list))
        });
        let good_time = value.get("good_time").and_then(Value::as_u64).filter(|time| *time < LATEST);
        Some(Self { addresses: addresses.collect(), good_time: good_time.unwrap_or(0) })
    }
}

/// Saves in the background; a failure is logged, and costs a look-up at the next start.
pub(super) async fn save(state: State, directory: PathBuf) {
    let saved = tokio::task::spawn_blocking(move || (state.save(&directory), directory)).await;
    if let Ok((Err(error), directory)) = saved {
        warn!(path = %directory.display(), %error, "what should outlive a restart cannot be kept");
    }
}

/// Returns addresses as text.
fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Reads a file of a size that makes sense.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        State { addresses: vec![("dns.example".to_owned(), addresses)], good_time: 1_795_381_080 }
    }

    #[test]
    fn what_was_saved_is_loaded_and_replaces_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        State::default().save(directory.path()).unwrap();
        state().save(directory.path()).unwrap();
        assert_eq!(State::load(directory.path()), state());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn nonsense_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(State::load(directory.path()), State::default());
        let long = format!("{{\"addresses\": {{\"a\": [\"{}\"]}}}}", "x".repeat(100_000));
        for text in ["", "{", "[]", "null", "{\"addresses\": 1}", "\u{0}\u{1}", long.as_str()] {
            fs::write(directory.path().join(FILE), text).unwrap();
            assert_eq!(State::load(directory.path()), State::default(), "{text:.40}");
        }
        fs::write(directory.path().join(FILE), b"\xff\xfe").unwrap();
        assert_eq!(State::load(directory.path()), State::default());
    }

    #[test]
    fn parts_that_make_no_sense_are_left_out_of_the_rest() {
        let text = r#"{"addresses": {"a": ["192.0.2.1", "x", 7], "b": [], "c": 1}, "good_time": 99999999999, "later": {}}"#;
        let state = State::parse(text).unwrap();
        assert_eq!(state.addresses, [("a".to_owned(), vec!["192.0.2.1".parse().unwrap()])]);
        assert_eq!(state.good_time, 0);
    }

    #[test]
    fn a_state_is_bounded() {
        let names: Vec<String> =
            (0..500).map(|n| format!("\"n{n}\": [{}]", vec!["\"192.0.2.1\""; 40].join(","))).collect();
        let state = State::parse(&format!("{{\"addresses\": {{{}}}}}", names.join(","))).unwrap();
        assert_eq!(state.addresses.len(), MOST_NAMES);
        assert!(state.addresses.iter().all(|(_, list)| list.len() == MOST_ADDRESSES));
    }
}
