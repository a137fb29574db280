//! Where a command finds its configuration: flags, environment, files.

use super::systemd;
use crate::cli::{ConfigArgs, Level, RunArgs};
use crate::config::error::ConfigErrors;
use crate::config::overrides::Overrides;
use crate::config::settings::Settings;
use crate::config::{Source, load as load_config};
use clap::ValueEnum;

/// Loads the configuration that `args` name.
///
/// # Errors
/// Every error of it.
pub(super) fn load(args: &RunArgs) -> Result<Settings, ConfigErrors> {
    let mut settings = load_config(&source(args))?;
    settings.state_dir = settings.state_dir.or_else(systemd::state_directory);
    Ok(settings)
}

/// Loads the configuration that a command names which has no flags for its keys.
///
/// # Errors
/// Every error of it.
pub(super) fn load_plain(args: &ConfigArgs) -> Result<Settings, ConfigErrors> {
    load(&RunArgs { config: args.clone(), ..RunArgs::default() })
}

/// Returns the files, variables and flags.
fn source(args: &RunArgs) -> Source {
    let text = |name: std::ffi::OsString| name.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    let mut overrides = Overrides::default().with_environment(variables);
    overrides.listen.clone_from(&args.listen);
    overrides.upstreams.clone_from(&args.upstream);
    overrides.log_level = args.log_level.map(level);
    Source { path: args.config.config.clone(), overrides }
}

/// Returns a level as the file spells it.
fn level(level: Level) -> String {
    level.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
