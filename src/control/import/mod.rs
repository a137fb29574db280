//! `veildns import`: makes a `veildns.toml` of another program's configuration. What cannot be carried over stands in it as a
//! comment with the reason; what is wrong is shown at its line, all of it at once. The file is read back before it is given
//! out: what comes of an import passes `veildns check`. Nothing of the other program is changed.

mod draft;
mod https_dns_proxy;
mod stubby;
mod uci;
mod yaml;

use self::draft::Draft;
use super::{CommandError, Exit, print};
use crate::cli::migration::{ImportArgs, ImportFormat};
use crate::config::document::{Place, Text};
use crate::config::error::{ConfigErrors, Faults};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Octets read at most: a configuration is a few thousand.
const LONGEST: u64 = 1 << 20;

/// What stands for standard input.
const STDIN: &str = "-";

/// Why nothing was imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The original is wrong, or what came of it.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The original cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("cannot write {path}{}", if .source.kind() == io::ErrorKind::AlreadyExists { ": choose another name, or move that file away" } else { "" })]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The original is too long to be a configuration.
    #[error("{0} is longer than 1 MiB: that is no configuration")]
    TooLong(PathBuf),
    /// It does not look like any that is known.
    #[error("{0} looks like no configuration of stubby and none of https_dns_proxy: say which with --from")]
    Unknown(PathBuf),
    /// Another program's command line.
    #[error("{0:?} is not https_dns_proxy: only its command line is read")]
    OtherProgram(String),
}

/// Reads, converts, and prints or writes.
///
/// # Errors
/// An original that cannot be read or has mistakes; a file that cannot be written.
pub(super) fn import(args: &ImportArgs) -> Result<Exit, CommandError> {
    let (draft, origin) = match &args.file {
        Some(path) => (from_file(path, args.from)?, path.display().to_string()),
        None => (from_command(&args.command)?, "a command line of https_dns_proxy".to_owned()),
    };
    let text = draft.text(&origin);
    crate::config::from_text(&text, Path::new(".")).map_err(ImportError::Config)?;
    let exit = match &args.output {
        None => print(|out| out.write_all(text.as_bytes()))?,
        Some(path) => {
            write_new(path, &text).map_err(|source| ImportError::Write { path: path.clone(), source })?;
            Exit::OK
        }
    };
    say(&draft, args.output.as_deref());
    Ok(exit)
}

/// Says on standard error what is left to do; whoever does not read it finds the same in the file.
fn say(draft: &Draft, output: Option<&Path>) {
    let mut stderr = io::stderr().lock();
    let left = draft.left_out();
    if left > 0 {
        let plural = if left == 1 { " was" } else { "s were" };
        let _ = writeln!(
            stderr,
            "veildns: {left} setting{plural} not carried over: its first lines say which, and why"
        );
    }
    if let Some(path) = output {
        let _ = writeln!(stderr, "veildns: next: veildns check --config {}", path.display());
    }
}

/// Converts a file.
fn from_file(path: &Path, format: Option<ImportFormat>) -> Result<Draft, ImportError> {
    let source = read(path)?;
    let format = format.or_else(|| guess(&source)).ok_or_else(|| ImportError::Unknown(path.to_owned()))?;
    Ok(from_source(path.display().to_string(), source, format)?)
}

/// Converts the text of a file, and returns ours. For fuzzing and tools.
///
/// # Errors
/// Everything that is wrong with it.
pub fn from_text(source: &str, format: ImportFormat) -> Result<String, ConfigErrors> {
    from_source("original".to_owned(), source.to_owned(), format).map(|draft| draft.text("a text"))
}

/// Converts the text of a file called `name`.
fn from_source(name: String, source: String, format: ImportFormat) -> Result<Draft, ConfigErrors> {
    convert(Text { name, text: source, folder: PathBuf::new() }, |text, draft, faults| match format {
        ImportFormat::Stubby => {
            let table = yaml::parse(0, &text.text, faults);
            // A tree with a hole in it says nothing about what is missing.
            if faults.is_empty() {
                stubby::convert(&table, text, draft, faults);
            }
        }
        ImportFormat::HttpsDnsProxy => {
            let sections = uci::parse(0, &text.text, faults);
            https_dns_proxy::convert_uci(&sections, text, draft, faults);
        }
    })
}

/// Converts a command line: the program's name, if it is there, and its flags.
fn from_command(words: &[String]) -> Result<Draft, ImportError> {
    let flags = match words.split_first() {
        Some((program, flags)) if !program.starts_with('-') => {
            let name = program.rsplit('/').next().unwrap_or(program);
            if !matches!(name, "https_dns_proxy" | "https-dns-proxy") {
                return Err(ImportError::OtherProgram(program.clone()));
            }
            flags
        }
        Some(_) | None => words,
    };
    let mut line = String::new();
    let mut placed = Vec::new();
    for word in flags {
        if !line.is_empty() {
            line.push(' ');
        }
        let start = line.len();
        line.push_str(word);
        placed.push((word.clone(), Place { text: 0, span: start..line.len() }));
    }
    let text = Text { name: "command line".to_owned(), text: line, folder: PathBuf::new() };
    Ok(convert(text, |text, draft, faults| https_dns_proxy::convert_flags(&placed, text, draft, faults))?)
}

/// Makes a draft, or reports everything that is wrong.
fn convert(text: Text, read: impl FnOnce(&Text, &mut Draft, &mut Faults)) -> Result<Draft, ConfigErrors> {
    let (mut draft, mut faults) = (Draft::default(), Faults::default());
    read(&text, &mut draft, &mut faults);
    if faults.is_empty() { Ok(draft) } else { Err(ConfigErrors::new(faults, vec![text])) }
}

/// Reads the original.
fn read(path: &Path) -> Result<String, ImportError> {
    let fail = |source| ImportError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    if path == Path::new(STDIN) {
        io::stdin().lock().take(LONGEST + 1).read_to_string(&mut text).map_err(fail)?;
    } else {
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(LONGEST + 1).read_to_string(&mut text).map_err(fail)?;
    }
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    if length > LONGEST { Err(ImportError::TooLong(path.to_owned())) } else { Ok(text) }
}

/// Tells the formats apart by the first line that means something in one of them.
fn guess(source: &str) -> Option<ImportFormat> {
    source.lines().map(str::trim_start).filter(|line| !line.starts_with('#')).find_map(|line| {
        let first = line.split([' ', '\t', ':']).next()?;
        match first {
            "config" | "package" => Some(ImportFormat::HttpsDnsProxy),
            "resolution_type"
            | "dns_transport_list"
            | "tls_authentication"
            | "upstream_recursive_servers"
            | "listen_addresses"
            | "round_robin_upstreams"
            | "idle_timeout"
            | "log_level"
            | "appdata_dir" => Some(ImportFormat::Stubby),
            _ => None,
        }
    })
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
