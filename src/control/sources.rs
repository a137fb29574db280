//! Where a command finds its configuration: flags, environment, files.

use super::systemd;
use crate::cli::{ConfigArgs, Level, RunArgs};
use crate::config::error::ConfigErrors;
use crate::config::overrides::{Assigned, Overrides};
use crate::config::settings::Settings;
use crate::config::{Source, load as load_config};
use clap::ValueEnum;

/// Loads what a source leads to.
///
/// # Errors
/// Every error of it.
pub(super) fn load(source: &Source) -> Result<Settings, ConfigErrors> {
    let mut settings = load_config(source)?;
    settings.state_dir = settings.state_dir.or_else(systemd::state_directory);
    Ok(settings)
}

/// Loads the configuration that a command names which has no flags for its keys.
///
/// # Errors
/// Every error of it.
pub(super) fn load_plain(args: &ConfigArgs) -> Result<Settings, ConfigErrors> {
    load(&source(args))
}

/// Returns the files and variables.
pub(super) fn source(args: &ConfigArgs) -> Source {
    let text = |name: std::ffi::OsString| name.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    Source { path: args.config.clone(), overrides: Overrides::default().with_environment(variables) }
}

/// Returns the files, variables and flags of `run`.
pub(super) fn source_of_run(args: &RunArgs) -> Source {
    let mut source = source(&args.config);
    source.overrides = source
        .overrides
        .with_flag("--listen", "listen", Assigned::List(args.listen.clone()))
        .with_flag("--upstream", "upstreams", Assigned::List(args.upstream.clone()));
    if let Some(written) = args.log_level {
        source.overrides = source.overrides.with_flag("--log-level", "log.level", level(written));
    }
    source
}

/// Returns a level as the file spells it.
pub(super) fn level(level: Level) -> Assigned {
    Assigned::Text(level.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()))
}
