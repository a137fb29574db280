//! Set-up of the log: level, text or JSON, on standard error, one line an event whatever is in it. What is logged is decided
//! where it happens; `info` and above never carry names of queries or addresses of clients.

use super::throttle::Throttle;
use crate::config::settings::{LogFormat, LogLevel, LogSettings};
use std::any::Any;
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Changes the level of a running log; the default one has no log.
#[derive(Clone, Debug, Default)]
pub struct LogHandle {
    /// The way to the filter. None when another log was set up before.
    filter: Option<reload::Handle<Targets, Registry>>,
    /// What `RUST_LOG` asks for: who debugs with it does not want a reload to end that.
    debugging: Option<Targets>,
}

impl LogHandle {
    /// Puts the configured level in force, or what `RUST_LOG` asks for instead; ends what `set_for_now` began.
    pub fn set_level(&self, level: LogLevel) {
        self.put(self.debugging.clone().unwrap_or_else(|| directives(level)));
    }

    /// Puts a level in force until the next `set_level`.
    pub fn set_for_now(&self, level: LogLevel) {
        self.put(directives(level));
    }

    /// Returns what is in force: a level, or a list of what is let through.
    pub fn in_force(&self) -> String {
        let shown = self.filter.as_ref().and_then(|filter| filter.with_current(show).ok());
        shown.unwrap_or_else(|| "unknown".to_owned())
    }

    /// Puts a filter in place.
    fn put(&self, targets: Targets) {
        let Some(filter) = &self.filter else { return };
        if let Err(error) = filter.reload(targets) {
            tracing::warn!(%error, "the log level cannot be changed");
        }
    }
}

/// Shows a filter: as the level that it stands for, or as `RUST_LOG` would have it.
fn show(targets: &Targets) -> String {
    const LEVELS: [(LogLevel, &str); 5] = [
        (LogLevel::Error, "error"),
        (LogLevel::Warn, "warn"),
        (LogLevel::Info, "info"),
        (LogLevel::Debug, "debug"),
        (LogLevel::Trace, "trace"),
    ];
    let level = LEVELS.into_iter().find(|(level, _)| directives(*level) == *targets);
    level.map_or_else(|| format!("RUST_LOG={targets}"), |(_, word)| word.to_owned())
}

/// Sets the log up for the life of the process (a second call only returns a handle that does nothing).
pub fn init(settings: &LogSettings) -> LogHandle {
    let (debugging, unreadable) = match from_environment() {
        Ok(debugging) => (debugging, None),
        Err(error) => (None, Some(error)),
    };
    let first = debugging.clone().unwrap_or_else(|| directives(settings.level));
    let (filter, handle) = reload::Layer::new(first);
    let output = match settings.format {
        LogFormat::Json => json(io::stderr),
        LogFormat::Text if is_journal() => text(io::stderr, JournalText::new()),
        LogFormat::Text => {
            let colours = colours();
            text(io::stderr, tracing_subscriber::fmt::format().with_ansi(colours))
        }
    };
    let fresh = tracing_subscriber::registry().with(filter).with(output).try_init().is_ok();
    if let Some(error) = unreadable {
        tracing::warn!(%error, "RUST_LOG cannot be read and is left out");
    }
    LogHandle { filter: fresh.then_some(handle), debugging }
}

/// Makes a panic a line of the log like any other: the usual message is several, and no JSON. A message that was made at the
/// time may quote what a client sent, so it is for those who look closely.
pub fn log_panics() {
    let throttle = Mutex::new(Throttle::default());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let pass = throttle.lock().unwrap_or_else(PoisonError::into_inner).pass(crate::clock::now());
        let Some(unsaid) = pass else { return };
        let unsaid = (unsaid > 0).then_some(unsaid);
        let place = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        tracing::error!(place, reason = fixed_text(payload), unsaid, "a bug: please report this line");
        if let Some(text) = payload.downcast_ref::<String>() {
            tracing::debug!(text, "what the bug says");
        }
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            usual(panic);
        }
    }));
}

/// Returns the message of a panic if it stands so in the source.
fn fixed_text(payload: &(dyn Any + Send)) -> Option<&'static str> {
    payload.downcast_ref::<&'static str>().copied()
}

/// For commands that print a result: only errors, as text.
pub fn init_quiet() {
    let filter = from_environment().ok().flatten().unwrap_or_else(|| directives(LogLevel::Error));
    let output = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours()).without_time();
    // A second call leaves the first log in place.
    let _ = tracing_subscriber::registry().with(filter).with(output).try_init();
}

/// Returns the layer that writes one flat object a line: timestamp, level, target, message, and the event's own fields.
fn json<S, W>(writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer)
        .boxed()
}

/// Returns the layer that writes text, one line an event.
fn text<S, W, F>(writer: W, format: F) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
    F: FormatEvent<S, DefaultFields> + Send + Sync + 'static,
{
    // Whether there are colours is the format's to say.
    tracing_subscriber::fmt::layer().with_writer(writer).event_format(OneLine(format)).boxed()
}

/// Returns what `RUST_LOG` asks for (`debug`, `veildns::transport=trace,h2=warn`), if it is set. Targets and levels only:
/// filters by span and field would bring a regular-expression engine along.
fn from_environment() -> Result<Option<Targets>, ParseError> {
    match std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map(Some),
        None => Ok(None),
    }
}

/// Returns the filter of a level: ours as asked; libraries only when something is wrong, unless one looks closely.
fn directives(level: LogLevel) -> Targets {
    let (libraries, ours) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::WARN, LevelFilter::INFO),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::DEBUG),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_default(libraries).with_target("veildns", ours)
}

/// True when a person reads standard error who has not asked for plain text.
pub(crate) fn colours() -> bool {
    colours_on(&io::stderr())
}

/// True when a person reads `output` who has not asked for plain text (<https://no-color.org>), on a terminal that can do more.
pub(crate) fn colours_on(output: &impl IsTerminal) -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    !plain && !dumb && output.is_terminal()
}

/// True when standard error goes to systemd's journal: `JOURNAL_STREAM` names the device and inode of the journal's socket,
/// and is inherited by those whose standard error goes elsewhere (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Another format, each event on one line: what servers and the system say may have line ends in it, and a line of text is
/// one event to every program that reads it.
struct OneLine<F>(F);

impl<S, N, F> FormatEvent<S, N> for OneLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        for c in text.trim_end_matches('\n').chars() {
            match c {
                '\n' => writer.write_str("\\n")?,
                '\r' => writer.write_str("\\r")?,
                _ => writer.write_char(c)?,
            }
        }
        writer.write_char('\n')
    }
}

/// Text for the journal: it keeps the time itself, and reads the level from a prefix (sd-daemon(3)).
struct JournalText {
    /// Writes what follows the prefix.
    text: Format<Full, ()>,
}

impl JournalText {
    /// Makes the format.
    fn new() -> Self {
        Self { text: tracing_subscriber::fmt::format().without_time().with_level(false).with_ansi(false) }
    }
}

impl<S, N> FormatEvent<S, N> for JournalText
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(priority(*event.metadata().level()))?;
        self.text.format_event(context, writer, event)
    }
}

/// Returns the prefix of a level.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn json_lines_are_flat_objects_with_stable_names() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::registry().with(json(move || writer.clone()));
        tracing::subscriber::with_default(log, || {
            let _span = tracing::info_span!("span", hidden = 1).entered();
            tracing::warn!(upstream = "quad9", attempts = 2, "marked down");
        });
        let mut line: serde_json::Value = serde_json::from_str(kept.text().trim_end()).unwrap();
        assert!(line["timestamp"].take().as_str().unwrap().ends_with('Z'));
        let expected = serde_json::json!({
            "timestamp": null, "level": "WARN", "target": "veildns::telemetry::logging::tests",
            "message": "marked down", "upstream": "quad9", "attempts": 2
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let kept = Kept::default();
        let writer = kept.clone();
        let format = tracing_subscriber::fmt::format().with_ansi(false).without_time();
        let log = tracing_subscriber::registry().with(text(move || writer.clone(), format));
        tracing::subscriber::with_default(log, || {
            let error = "one\r\ntwo\n";
            tracing::warn!(target: "veildns", %error, detail = "a\nb", "three\nfour");
        });
        let text = kept.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("one\\r\\ntwo") && text.contains("a\\nb") && text.contains("three\\nfour"),
            "{text}"
        );
    }

    #[test]
    fn only_a_message_that_stands_in_the_source_is_told_to_everybody() {
        assert_eq!(fixed_text(&"a fixed one"), Some("a fixed one"));
        assert_eq!(fixed_text(&String::from("one that quotes www.example.com")), None);
    }

    #[test]
    fn the_journal_gets_levels_as_prefixes_and_no_times() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .event_format(JournalText::new());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(target: "veildns", "one");
            tracing::info!(target: "veildns", at = "x", "two");
        });
        assert_eq!(kept.text(), "<3>veildns: one\n<6>veildns: two at=\"x\"\n");
    }

    #[test]
    fn libraries_are_quiet_until_one_looks_closely() {
        let heard = |level| {
            let kept = Kept::default();
            let writer = kept.clone();
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(move || writer.clone())
                .event_format(JournalText::new());
            let log = tracing_subscriber::registry().with(directives(level)).with(layer);
            tracing::subscriber::with_default(log, || {
                tracing::info!(target: "h2::client", "theirs");
                tracing::warn!(target: "h2::client", "their warning");
                tracing::info!(target: "veildns::app", "ours");
                tracing::debug!(target: "veildns::app", "our detail");
            });
            kept.text().lines().count()
        };
        assert_eq!(heard(LogLevel::Error), 0);
        assert_eq!(heard(LogLevel::Warn), 1);
        assert_eq!(heard(LogLevel::Info), 2);
        assert_eq!(heard(LogLevel::Debug), 4);
    }

    #[test]
    fn the_level_changes_while_the_log_runs_and_a_second_set_up_changes_nothing() {
        let settings = |level| LogSettings {
            level,
            format: LogFormat::Text,
            queries: crate::config::settings::QueryLog::Off,
            query_lines: crate::config::settings::QueryLines::default(),
        };
        let handle = init(&settings(LogLevel::Warn));
        assert!(!tracing::enabled!(target: "veildns::test", Level::INFO));
        handle.set_level(LogLevel::Info);
        assert!(tracing::enabled!(target: "veildns::test", Level::INFO));
        assert_eq!(handle.in_force(), "info");
        handle.set_for_now(LogLevel::Trace);
        assert!(tracing::enabled!(target: "veildns::test", Level::TRACE));
        assert_eq!(handle.in_force(), "trace");
        handle.set_level(LogLevel::Info);
        assert!(!tracing::enabled!(target: "veildns::test", Level::TRACE));
        let second = init(&settings(LogLevel::Error));
        second.set_level(LogLevel::Error);
        init_quiet();
        assert!(tracing::enabled!(target: "veildns::test", Level::INFO));
        handle.set_level(LogLevel::Error);
    }
}
