//! The query log: one line a query, written by a thread of its own. It is the one place where names and clients of queries
//! are kept, and only when the operator says so. A query never waits for it: when the queue is full the line is dropped
//! and counted. It does not rotate files; it opens them anew when told to. What is in a line is `query_line`'s matter.

use super::feed::{Feed, Queue};
use super::query_line::{Entry, LineWriter, NameKey};
use super::throttle::Throttle;
use crate::config::settings::QueryLines;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::warn;

/// Lines are written together up to so many octets.
const WRITE_OCTETS: usize = 64 * 1024;

/// Where the query log is, if it is on.
#[derive(Debug, Default)]
pub(super) struct QueryLogSlot {
    /// What `is_on` reads: one plain load on the path of every query.
    on: AtomicBool,
    /// The way to the writing thread; lines that were not written: queue full, or the file could not be written.
    feed: Feed<Entry>,
    /// Hashes names, the same way for as long as the process lives.
    key: NameKey,
}

impl QueryLogSlot {
    /// True when there is a query log.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Hands an entry to the writing thread, or drops and counts it.
    pub(super) fn send(&self, entry: impl FnOnce() -> Entry) {
        self.feed.send(1, entry);
    }

    /// Returns the number of lines that were not written.
    pub(super) fn dropped(&self) -> u64 {
        self.feed.dropped()
    }

    /// Begins to write to `target`. What waits for the present one is still written there.
    ///
    /// # Errors
    /// No thread could be started; the present log then stays.
    pub(super) fn replace(&self, target: Target, lines: QueryLines, queue: usize) -> io::Result<()> {
        let line_writer = LineWriter::new(lines, self.key.clone());
        let write = move |entries| Writer::new(target.0, line_writer, entries).run();
        self.feed.replace("query-log", queue, write)?;
        self.on.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the log; returns at once.
    pub(super) fn close(&self) {
        self.on.store(false, Ordering::Relaxed);
        self.feed.close();
    }

    /// Ends the log and waits until what waited is written.
    pub(super) fn close_and_wait(&self) {
        self.close();
        if !self.feed.close_and_wait() {
            warn!("the last lines of the query log could not be written in time");
        }
    }
}

/// What lines are written to.
pub(super) struct Target(Box<dyn Write + Send>);

impl Target {
    /// Opens a file for appending, readable by its group and no others: it says who asked for what.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let file: File = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        Ok(Self(Box::new(file)))
    }

    /// Finds out whether `file` would succeed, and leaves everything as it is: a file that was not there is not there
    /// afterwards, for the next who opens it may be another user.
    ///
    /// # Errors
    /// As for `file`.
    pub(super) fn try_file(path: &Path) -> io::Result<()> {
        match OpenOptions::new().append(true).open(path) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                OpenOptions::new().append(true).create_new(true).mode(0o640).open(path)?;
                std::fs::remove_file(path)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes standard output.
    pub(super) fn stdout() -> Self {
        Self(Box::new(io::stdout()))
    }
}

/// The writing thread's state.
struct Writer {
    /// Where lines go.
    target: Box<dyn Write + Send>,
    /// Makes lines.
    line_writer: LineWriter,
    /// Lines to be written together.
    buffer: Vec<u8>,
    /// How many they are.
    lines: u64,
    /// True when the last write ended within a line.
    torn: bool,
    /// True after a write that failed: it is logged once, not for every line.
    failing: bool,
    /// A disk that is full by turns would be logged at every turn.
    throttle: Throttle,
    /// What is to be written, and where lines that are lost are counted.
    entries: Queue<Entry>,
}

impl Writer {
    /// Makes one that has written nothing.
    fn new(target: Box<dyn Write + Send>, line_writer: LineWriter, entries: Queue<Entry>) -> Self {
        Self {
            target,
            line_writer,
            buffer: Vec::new(),
            lines: 0,
            torn: false,
            failing: false,
            throttle: Throttle::default(),
            entries,
        }
    }

    /// Writes until there is nobody left to send: what has come together in one go, so that lines are seen at once when
    /// there are few and cost little when there are many.
    fn run(&mut self) {
        while let Some(first) = self.entries.next_blocking() {
            self.append(&first);
            while self.buffer.len() < WRITE_OCTETS
                && let Some(next) = self.entries.try_next()
            {
                self.append(&next);
            }
            self.flush();
        }
    }

    /// Puts one line to the others.
    fn append(&mut self, entry: &Entry) {
        // Writing into memory does not fail.
        if self.line_writer.write(entry, &mut self.buffer).is_ok() {
            self.lines = self.lines.saturating_add(1);
        }
    }

    /// Writes the lines, whole ones in one call: another writer may append to the same file.
    fn flush(&mut self) {
        if self.torn {
            self.buffer.insert(0, b'\n');
        }
        let result = write_counted(&mut *self.target, &self.buffer);
        let written = self.buffer.get(..result.written).unwrap_or_default();
        self.torn = written.last().map_or(self.torn, |last| *last != b'\n');
        if let Some(error) = result.error {
            let whole = written.iter().filter(|octet| **octet == b'\n').count();
            let lost = self.lines.saturating_sub(u64::try_from(whole).unwrap_or(u64::MAX));
            self.entries.lose(lost);
            if !self.failing
                && let Some(unsaid) = self.throttle.pass(crate::clock::now())
            {
                let unsaid = (unsaid > 0).then_some(unsaid);
                warn!(%error, unsaid, "the query log cannot be written; lines are dropped");
            }
            self.failing = true;
        } else {
            self.failing = false;
        }
        self.buffer.clear();
        self.lines = 0;
    }
}

/// How far a write went.
struct Written {
    /// Octets that were written.
    written: usize,
    /// Why not all of them were.
    error: Option<io::Error>,
}

/// Writes all of `octets` and says how far it got; `write_all` does not.
fn write_counted(target: &mut dyn Write, octets: &[u8]) -> Written {
    let mut written = 0;
    while let Some(rest @ [_, ..]) = octets.get(written..) {
        match target.write(rest) {
            Ok(0) => return Written { written, error: Some(io::ErrorKind::WriteZero.into()) },
            Ok(count) => written = written.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Written { written, error: Some(error) },
        }
    }
    Written { written, error: target.flush().err() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{LogFormat, LogLevel, LogSettings, QueryLog};
    use crate::telemetry::counters::Telemetry;
    use crate::telemetry::outcome::{Outcome, QueryDetail, Source, record};
    use crate::wire::ede::EdeCode;
    use crate::wire::header::Rcode;
    use crate::wire::query::ClientTransport;
    use crate::wire::question::QuestionRef;
    use serde_json::Value;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, SystemTime};

    /// The question of every test but one: a name with a quote in it.
    const QUESTION: &[u8] = b"\x07ex\"mple\x03com\x00\x00\x1c\x00\x01";

    /// Records one query that a server answered.
    fn ask(telemetry: &Telemetry) {
        let outcome = Outcome {
            source: Source::Upstream,
            rcode: Rcode::NOERROR,
            ede: None,
            transport: ClientTransport::Tcp,
            duration: Some(Duration::from_micros(12_345)),
        };
        let detail = QueryDetail {
            client: "::ffff:192.0.2.7".parse().unwrap(),
            question: QuestionRef::parse(QUESTION),
            upstream: Some("quad9"),
        };
        record(telemetry, &telemetry.block(), &outcome, &detail);
    }

    /// The settings of a log with lines of the usual form.
    fn to(queries: QueryLog) -> LogSettings {
        let (level, format) = (LogLevel::Info, LogFormat::Text);
        LogSettings { level, format, queries, query_lines: QueryLines::default() }
    }

    /// Reads a log; every line must be JSON.
    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A file that cannot take a line before it is told to; each write says that it has begun.
    struct Stuck {
        begun: Sender<()>,
        go_on: Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            let _ = self.go_on.recv();
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_says_who_asked_what_and_how_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.json");
        let telemetry = Telemetry::new();
        telemetry.open_query_log(&to(QueryLog::File(path.clone())), 16).unwrap();
        ask(&telemetry);
        let refused = Outcome {
            source: Source::Refused,
            rcode: Rcode::FORMERR,
            ede: Some(EdeCode::PROHIBITED),
            transport: ClientTransport::Udp,
            duration: None,
        };
        let unreadable =
            QueryDetail { client: "2001:db8::1".parse().unwrap(), question: None, upstream: None };
        record(&telemetry, &telemetry.block(), &refused, &unreadable);
        telemetry.close_query_log();
        let written = lines(&path);
        let time = written[0]["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        let mut expected = serde_json::json!({
            "time": time, "client": "192.0.2.7", "name": "ex\\\"mple.com.", "type": "AAAA", "class": "IN",
            "transport": "tcp", "rcode": "NOERROR", "source": "upstream", "upstream": "quad9",
            "duration_ms": 12.345, "ede": null
        });
        assert_eq!(written[0], expected);
        expected = serde_json::json!({
            "time": written[1]["time"], "client": "2001:db8::1", "name": null, "type": null, "class": null,
            "transport": "udp", "rcode": "FORMERR", "source": "refused", "upstream": null,
            "duration_ms": 0.0, "ede": 18
        });
        assert_eq!(written[1], expected);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "only owner and group may read");
    }

    #[test]
    fn a_stuck_file_holds_no_query_up_and_dropped_lines_are_counted() {
        let telemetry = Telemetry::new();
        let (begun, has_begun) = mpsc::channel();
        let (let_go, go_on) = mpsc::channel();
        telemetry
            .query_log()
            .replace(Target(Box::new(Stuck { begun, go_on })), QueryLines::default(), 4)
            .unwrap();
        ask(&telemetry);
        has_begun.recv().unwrap();
        for _ in 0..10 {
            ask(&telemetry);
        }
        assert_eq!(telemetry.query_log().dropped(), 6, "four wait in the queue");
        drop(let_go);
        telemetry.close_query_log();
        assert_eq!(telemetry.query_log().dropped(), 6);
    }

    #[test]
    fn opening_the_same_file_again_follows_a_rotation_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("q"), folder.path().join("q.1"));
        let log = to(QueryLog::File(path.clone()));
        let telemetry = Telemetry::new();
        telemetry.open_query_log(&log, 1024).unwrap();
        (0..100).for_each(|_| ask(&telemetry));
        // Lines that still wait go to the file under its new name.
        std::fs::rename(&path, &rotated).unwrap();
        telemetry.open_query_log(&log, 1024).unwrap();
        (0..50).for_each(|_| ask(&telemetry));
        telemetry.close_query_log();
        assert_eq!((lines(&rotated).len(), lines(&path).len()), (100, 50));
    }

    #[test]
    fn a_file_that_cannot_be_opened_leaves_the_log_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q");
        let telemetry = Telemetry::new();
        telemetry.open_query_log(&to(QueryLog::File(path.clone())), 8).unwrap();
        let bad = to(QueryLog::File(folder.path().join("no folder/q")));
        assert_eq!(telemetry.open_query_log(&bad, 8).unwrap_err().kind(), io::ErrorKind::NotFound);
        ask(&telemetry);
        telemetry.close_query_log();
        assert_eq!(lines(&path).len(), 1);
    }

    #[test]
    fn trying_a_log_leaves_no_file_behind_and_changes_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q");
        let attempt = |path: &Path| Telemetry::try_query_log(&QueryLog::File(path.to_owned()));
        attempt(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "kept\n").unwrap();
        attempt(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept\n");
        let missing = attempt(&folder.path().join("no folder/q")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!(attempt(folder.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn nothing_is_written_when_it_is_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q");
        let telemetry = Telemetry::new();
        telemetry.open_query_log(&to(QueryLog::File(path.clone())), 8).unwrap();
        telemetry.open_query_log(&to(QueryLog::Off), 8).unwrap();
        ask(&telemetry);
        telemetry.close_query_log();
        assert!(!telemetry.query_log().is_on());
        assert_eq!(lines(&path).len(), 0);
    }

    /// A disk that is full after some octets, and then is not.
    struct Full {
        room: usize,
        octets: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Full {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                self.room = usize::MAX;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = octets.len().min(self.room);
            self.room -= count;
            self.octets.lock().unwrap().extend_from_slice(&octets[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_the_lines_it_cannot_take_and_no_others() {
        let octets = Arc::new(Mutex::new(Vec::new()));
        let (feed, queue) = Feed::with_queue(16);
        let disk = Full { room: 300, octets: Arc::clone(&octets) };
        let mut writer =
            Writer::new(Box::new(disk), LineWriter::new(QueryLines::default(), NameKey::default()), queue);
        let entry = || {
            let outcome = Outcome {
                source: Source::Cache,
                rcode: Rcode::NOERROR,
                ede: None,
                transport: ClientTransport::Udp,
                duration: None,
            };
            let detail = QueryDetail {
                client: "192.0.2.7".parse().unwrap(),
                question: QuestionRef::parse(QUESTION),
                upstream: None,
            };
            Entry::new(&outcome, &detail, SystemTime::UNIX_EPOCH)
        };
        for _ in 0..3 {
            writer.append(&entry());
        }
        writer.flush();
        assert_eq!(feed.dropped(), 2);
        writer.append(&entry());
        writer.flush();
        let text = String::from_utf8(octets.lock().unwrap().clone()).unwrap();
        let whole: Vec<_> =
            text.lines().map(serde_json::from_str::<Value>).map(|line| line.is_ok()).collect();
        assert_eq!(whole, [true, false, true]);
    }
}
