//! `veildns install` and `veildns uninstall`: the gateway as a service of a systemd host, and its programs pointed at it.
//! Both say what they will do, ask, and do all of it or nothing; `uninstall` puts back exactly what was there.
//!
//! ```text
//! install:   host ──> plan ──> shown, asked ──> journal (manifest, service, start, resolver)
//! uninstall: manifest ──> fates ──> shown, asked ──> journal (resolver, stop, service, manifest)
//! ```

mod contents;
mod host;
mod journal;
pub(super) mod manifest;
mod plan;
mod services;
#[cfg(test)]
mod tests;

use self::host::Host;
use self::journal::Fate;
use self::plan::{CONFIG, Choice, Goods, Plan};
use self::services::{Nothing, Services, Systemd};
use super::{CommandError, Exit};
use crate::cli::{ChangeArgs, InstallArgs};
use crate::config::error::ConfigErrors;
use crate::config::overrides::Overrides;
use crate::config::{self, Source};
use crate::listener::bind::{self, BindError};
use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why nothing was installed, or not everything undone.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The configuration that would be used is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A file or directory cannot be read or changed.
    #[error("{}{}", path.display(), if source.kind() == io::ErrorKind::PermissionDenied { ": this takes root: come again with sudo" } else { "" })]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that is not ours is where something of ours has to be.
    #[error("{} is in the way: move it elsewhere, then come back", path.display())]
    InTheWay {
        /// Which.
        path: PathBuf,
    },
    /// A link in a tree leads out of it.
    #[error("{} is a link that leads out of the tree", path.display())]
    OutOfTree {
        /// Which.
        path: PathBuf,
    },
    /// Programs of this machine can only ask port 53.
    #[error(
        "programs ask port 53 only, and the configuration listens on {nameserver}: add \"127.0.0.1:53\" to `listen`"
    )]
    NoPort53 {
        /// Where the gateway would answer.
        nameserver: SocketAddr,
    },
    /// Somebody else answers where the gateway is to answer.
    #[error(transparent)]
    Taken(#[from] BindError),
    /// The machine has no systemd.
    #[error(
        "this machine does not run systemd: `--root DIR` puts the files into a tree, docs/router.md has other ways"
    )]
    NoSystemd,
    /// There is nothing to undo.
    #[error("veildns is not installed here by `veildns install`: there is no {}", manifest::PATH)]
    NotInstalled,
    /// Nobody can be asked.
    #[error("nobody is at a terminal to be asked: say --yes, or --dry-run to see what would be done")]
    NobodyToAsk,
    /// A change failed, and some of those before it could not be taken back.
    #[error(
        "these could not be put back: {}; what was there before is beside them, as *.before-veildns",
        list(left)
    )]
    NotPutBack {
        /// Which.
        left: Vec<PathBuf>,
        /// What failed first.
        #[source]
        source: Box<InstallError>,
    },
    /// A command of the system failed.
    #[error("`{command}` failed: {why}")]
    Command {
        /// Which.
        command: String,
        /// Why.
        why: String,
    },
}

/// Installs.
///
/// # Errors
/// Each of `InstallError`; then nothing was changed.
pub(super) fn install(args: &InstallArgs) -> Result<Exit, CommandError> {
    let host = host(&args.change)?;
    let goods = goods(&host, args)?;
    let nameserver = goods.nameserver;
    let plan = Plan::new(&host, goods)?;
    if plan.is_done() {
        return say("everything is in place already: nothing to do\n");
    }
    if plan.earlier.is_none() && !host.is_tree() {
        // Will the gateway get its address?
        bind::try_once(nameserver).map_err(InstallError::Taken)?;
    }
    let mut text = format!("veildns {} will be installed:\n\n{}", env!("CARGO_PKG_VERSION"), plan.show());
    if !host.is_tree() {
        let _ =
            writeln!(text, "\nThen the service is started, and programs are pointed at it once it answers.");
    }
    text.push_str("`veildns uninstall` undoes all of it.\n");
    if agreed(&text, &args.change)? == Answer::No {
        return Ok(Exit::DECLINED);
    }
    if args.change.dry_run {
        return Ok(Exit::OK);
    }
    journal::apply(&host, &plan, services(&host).as_mut())?;
    say("installed. `veildns doctor` shows whether programs ask it;\n`veildns uninstall` undoes it\n")
}

/// Uninstalls.
///
/// # Errors
/// Each of `InstallError`; the manifest stays for another try.
pub(super) fn uninstall(args: &ChangeArgs) -> Result<Exit, CommandError> {
    let host = host(args)?;
    let manifest = plan::load(&host)?.ok_or(InstallError::NotInstalled)?;
    let fates = journal::fates(&host, &manifest)?;
    let mut text = "What `veildns install` did will be undone:\n\n".to_owned();
    for (entry, fate) in &fates {
        let path = entry.path.display();
        let _ = match (fate, entry.backup()) {
            (Fate::Remove, _) => writeln!(text, "  remove   {path}"),
            (Fate::Restore, _) => writeln!(text, "  restore  {path}"),
            (Fate::Nothing, _) => writeln!(text, "  as was   {path}"),
            (Fate::Keep, None) => writeln!(text, "  keep     {path}\n           it was changed since"),
            (Fate::Keep, Some(backup)) => writeln!(
                text,
                "  keep     {path}\n           it was changed since; the one before is {}",
                backup.display()
            ),
        };
    }
    if agreed(&text, args)? == Answer::No {
        return Ok(Exit::DECLINED);
    }
    if args.dry_run {
        return Ok(Exit::OK);
    }
    journal::undo(&host, &manifest, &fates, services(&host).as_mut())?;
    say("uninstalled\n")
}

/// Returns the machine or tree that is meant.
fn host(args: &ChangeArgs) -> Result<Host, InstallError> {
    match &args.root {
        Some(root) if root.is_dir() => Ok(Host::tree(root)),
        Some(root) => {
            Err(InstallError::Path { path: root.clone(), source: io::Error::other("it is no directory") })
        }
        // What sd_booted(3) looks at.
        None if Path::new("/run/systemd/system").is_dir() => Ok(Host::this()),
        None => Err(InstallError::NoSystemd),
    }
}

/// Returns what runs there.
fn services(host: &Host) -> Box<dyn Services> {
    if host.is_tree() { Box::new(Nothing) } else { Box::new(Systemd(services::run)) }
}

/// Gathers what is to be installed: this program, and the configuration that will be in force.
fn goods(host: &Host, args: &InstallArgs) -> Result<Goods, InstallError> {
    let (program, running) = this_program()?;
    let (configuration, choice) = match &args.config {
        Some(path) => (std::fs::read_to_string(path).map_err(|error| failed(path, error))?, Choice::Explicit),
        None => (contents::configuration(host.has_ipv6_loopback()), Choice::Default),
    };
    let present = host.at(Path::new(CONFIG));
    // One that is there stays unless the operator says otherwise, and so is the one to look at.
    let settings = if choice == Choice::Default && present.is_file() {
        config::load(&Source { path: Some(present), overrides: Overrides::default() })?
    } else {
        config::from_text(&configuration, present.parent().unwrap_or(Path::new("/")))?
    };
    let nameserver = contents::nameserver(settings.listen.iter().map(|listen| listen.address));
    let nameserver = nameserver.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 53)));
    // A package's program stays in its place.
    let is_packaged = !host.is_tree() && running.starts_with("/usr/bin");
    let program = (!is_packaged).then_some(program);
    Ok(Goods { program, configuration: configuration.into_bytes(), choice, nameserver })
}

/// Reads this program: its octets and its path.
fn this_program() -> Result<(Vec<u8>, PathBuf), InstallError> {
    let path = std::env::current_exe().map_err(|error| failed(Path::new("/proc/self/exe"), error))?;
    // The link leads to the file even when another one has its name by now.
    let octets = std::fs::read("/proc/self/exe").map_err(|error| failed(&path, error))?;
    Ok((octets, path))
}

/// Makes the error of a path.
fn failed(path: &Path, source: io::Error) -> InstallError {
    InstallError::Path { path: path.to_owned(), source }
}

/// Joins paths for a message.
fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What the operator said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Go on.
    Yes,
    /// Change nothing.
    No,
}

/// Shows what will be done and asks, unless that was answered on the command line.
fn agreed(text: &str, args: &ChangeArgs) -> Result<Answer, CommandError> {
    say(text)?;
    if args.yes || args.dry_run {
        return Ok(Answer::Yes);
    }
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(InstallError::NobodyToAsk.into());
    }
    say("\nGo on? [y/N] ")?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    if matches!(line.trim(), "y" | "Y" | "yes") {
        return Ok(Answer::Yes);
    }
    say("nothing was changed\n")?;
    Ok(Answer::No)
}

/// Writes to standard output.
fn say(text: &str) -> Result<Exit, CommandError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(Exit::OK)
}
