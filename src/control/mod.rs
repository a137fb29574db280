//! The operator: commands, signals, reload, stop, systemd.

pub mod check;
#[cfg(feature = "tools")]
pub mod doctor;
pub mod health;
#[cfg(feature = "tools")]
pub mod import;
#[cfg(feature = "tools")]
pub mod install;
#[cfg(feature = "tools")]
mod man;
pub mod network;
mod proxy_dns;
pub mod query;
mod remote;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod residency;
pub mod run;
#[cfg(feature = "tools")]
pub mod servers;
pub mod socket;
mod sources;
mod status;
mod summary;
mod systemd;
mod table;
mod terminal;
mod watchdog;

#[cfg(feature = "tools")]
use self::import::ImportError;
#[cfg(feature = "tools")]
use self::install::InstallError;
use self::query::QueryError;
use self::run::RunError;
use self::socket::bind::SocketError;
use self::socket::client::ClientError;
use crate::app::error::{PathFault, StartError};
use crate::cli::{Cli, Command, exit};
use crate::config::Source;
use crate::config::error::{Appearance, ConfigErrors};
use crate::listener::bind::{BindError, BindErrorKind};
use crate::listener::handover::Sharing;
use crate::telemetry::logging;
use clap::CommandFactory;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use thiserror::Error;

/// A command's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(u8);

impl Exit {
    /// All went well.
    const OK: Self = Self(0);
    /// The gateway that was asked about does not serve clients.
    const UNWELL: Self = Self(exit::FAILED);
    /// The operator said no.
    const DECLINED: Self = Self(exit::FAILED);
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The gateway could not run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A name or type on the command line is wrong, or nothing could be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Nothing was installed, or not everything undone.
    #[cfg(feature = "tools")]
    #[error(transparent)]
    Install(#[from] InstallError),
    /// Another program's configuration could not be carried over.
    #[cfg(feature = "tools")]
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A part could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The running gateway could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Output could not be written.
    #[error("cannot write")]
    Output(#[from] io::Error),
}

/// Does what a command says.
///
/// # Errors
/// Each of `CommandError`, with its exit code.
pub fn command(command: Command) -> Result<Exit, CommandError> {
    match command {
        Command::Run(args) => {
            let sharing = if args.take_over { Sharing::Ours } else { Sharing::Nobody };
            run(sources::source_of_run(&args), sharing)
        }
        Command::ProxyDns(args) => run(proxy_dns::source(&args), Sharing::Nobody),
        Command::Check(args) => check::check(&args),
        Command::Query(args) => query::query(&args),
        #[cfg(feature = "tools")]
        Command::Upstreams(args) => servers::upstreams(&args),
        #[cfg(feature = "tools")]
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Health(args) => health::health(&args),
        #[cfg(feature = "tools")]
        Command::Install(args) => install::install(&args),
        #[cfg(feature = "tools")]
        Command::Uninstall(args) => install::uninstall(&args),
        #[cfg(feature = "tools")]
        Command::Import(args) => import::import(&args),
        Command::Status(args) => status::status(&args),
        Command::Cache(command) => remote::cache(command),
        Command::LogLevel(args) => remote::log_level(&args),
        #[cfg(feature = "tools")]
        Command::Completions { shell } => print(|out| {
            clap_complete::generate(shell, &mut Cli::command(), "veildns", out);
            Ok(())
        }),
        #[cfg(feature = "tools")]
        Command::Man => print(|out| man::page(Cli::command(), out)),
        Command::Version => print(|out| {
            let command = Cli::command();
            writeln!(out, "veildns {}", command.get_long_version().unwrap_or_default())
        }),
    }
}

/// Runs the gateway.
fn run(source: Source, sharing: Sharing) -> Result<Exit, CommandError> {
    run::run(source, sharing)?;
    Ok(Exit::OK)
}

/// Writes to standard output in one go; a reader that went away is no error of ours.
fn print(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<Exit, CommandError> {
    let mut text = Vec::new();
    write(&mut text)?;
    match io::stdout().lock().write_all(&text).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(Exit::OK),
    }
}

impl CommandError {
    /// Returns the text for standard error: one cause a line.
    pub fn message(&self) -> String {
        match self {
            #[cfg(feature = "tools")]
            Self::Install(InstallError::Config(errors)) | Self::Import(ImportError::Config(errors)) => {
                unusable(errors)
            }
            Self::Config(errors)
            | Self::Run(RunError::Config(errors))
            | Self::Client(ClientError::Config(errors)) => unusable(errors),
            #[cfg(feature = "tools")]
            Self::Install(_) | Self::Import(_) => lines(self),
            Self::Run(_) | Self::Query(_) | Self::Start(_) | Self::Client(_) | Self::Output(_) => lines(self),
        }
    }

    /// Returns the exit code of the interface.
    pub fn exit_code(&self) -> Exit {
        Exit(match self {
            Self::Config(_) | Self::Run(RunError::Config(_)) | Self::Client(ClientError::Config(_)) => {
                exit::CONFIG
            }
            Self::Run(RunError::Control(error)) => socket_code(error),
            Self::Client(ClientError::Permission { .. }) => exit::PERMISSION,
            Self::Client(ClientError::Off) => exit::CONFIG,
            Self::Client(
                ClientError::NotRunning { .. } | ClientError::Silent { .. } | ClientError::Answer { .. },
            ) => exit::FAILED,
            Self::Run(RunError::Start(error)) | Self::Start(error) => start_code(error),
            Self::Query(_) => exit::USAGE,
            #[cfg(feature = "tools")]
            Self::Install(error) => install_code(error),
            #[cfg(feature = "tools")]
            Self::Import(error) => import_code(error),
            Self::Run(RunError::Signals(_)) | Self::Output(_) => exit::FAILED,
        })
    }
}

/// Returns the exit code for an import that failed.
#[cfg(feature = "tools")]
fn import_code(error: &ImportError) -> u8 {
    match error {
        ImportError::Config(_) | ImportError::TooLong(_) => exit::CONFIG,
        ImportError::Read { source, .. } => path_code(source),
        ImportError::Write { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => exit::USAGE,
        ImportError::Write { source, .. } => path_code(source),
        ImportError::Unknown(_) | ImportError::OtherProgram(_) => exit::USAGE,
    }
}

/// Returns the exit code for an installation that failed.
#[cfg(feature = "tools")]
fn install_code(error: &InstallError) -> u8 {
    match error {
        InstallError::Config(_) | InstallError::NoPort53 { .. } => exit::CONFIG,
        InstallError::NobodyToAsk => exit::USAGE,
        InstallError::Path { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            exit::PERMISSION
        }
        InstallError::Taken(error) => bind_code(error),
        InstallError::NotPutBack { .. }
        | InstallError::Path { .. }
        | InstallError::InTheWay { .. }
        | InstallError::OutOfTree { .. }
        | InstallError::NoSystemd
        | InstallError::NotInstalled
        | InstallError::Command { .. } => exit::FAILED,
    }
}

/// Returns the exit code for a gateway that does not start.
fn start_code(error: &StartError) -> u8 {
    match error {
        StartError::Bind(error) | StartError::Metrics(error) => bind_code(error),
        StartError::Server { .. } | StartError::Roots(_) => exit::CONFIG,
        StartError::QueryLog { source, .. } => path_code(source),
        StartError::Dnstap { source, .. } if source.kind() == io::ErrorKind::InvalidInput => exit::CONFIG,
        StartError::Dnstap { .. } | StartError::Threads(_) => exit::FAILED,
    }
}

/// Returns the exit code for a control socket that cannot be had.
fn socket_code(error: &SocketError) -> u8 {
    match error {
        SocketError::InUse { .. } | SocketError::NotASocket { .. } => exit::ADDRESS_TAKEN,
        SocketError::System { source, .. } => path_code(source),
    }
}

/// Returns the exit code for a path of the configuration that cannot be used: one that leads nowhere is a mistake in it.
fn path_code(error: &io::Error) -> u8 {
    match PathFault::of(error) {
        PathFault::Forbidden => exit::PERMISSION,
        PathFault::Missing | PathFault::NotADirectory | PathFault::IsADirectory => exit::CONFIG,
        PathFault::Other => exit::FAILED,
    }
}

/// Returns the exit code for an address that cannot be had.
fn bind_code(error: &BindError) -> u8 {
    match error.kind {
        BindErrorKind::InUse { .. } | BindErrorKind::NotHere => exit::ADDRESS_TAKEN,
        BindErrorKind::Permission => exit::PERMISSION,
        BindErrorKind::Other => exit::FAILED,
    }
}

/// Says what is wrong with a configuration, with the lines in question.
fn unusable(errors: &ConfigErrors) -> String {
    let appearance = if logging::colours() { Appearance::Coloured } else { Appearance::Plain };
    format!("the configuration cannot be used\n{}", errors.render(appearance))
}

/// Returns an error and its causes, one a line.
fn lines(error: &dyn Error) -> String {
    join(error, "\n  because: ")
}

/// Returns an error and its causes in one line, for the log.
fn chain(error: &dyn Error) -> String {
    join(error, ": ")
}

/// Joins an error and its causes. A transparent wrapper says what its source says: once is enough.
fn join(error: &dyn Error, separator: &str) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if next != last && write!(text, "{separator}{next}").is_err() {
            break;
        }
        last = next;
        cause = error.source();
    }
    text
}
