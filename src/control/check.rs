//! `veildns check`: every error of the configuration, or `ok` and what would run.

use super::terminal::{Hue, Palette};
use super::{CommandError, Exit, print, sources};
use crate::app::error::StartError;
use crate::cli::ConfigArgs;
use crate::config::settings::Settings;
use crate::config::summary::summary;
use crate::telemetry::counters::Telemetry;
use crate::telemetry::dnstap::Dnstap;
use crate::transport::tls::TlsContext;
use std::io::Write;

/// Checks the configuration as `run` would read it, the files it names included.
///
/// # Errors
/// Every error of the configuration; output that cannot be written.
pub(super) fn check(args: &ConfigArgs) -> Result<Exit, CommandError> {
    let settings = sources::load_plain(args)?;
    let tls = TlsContext::load(&settings.tls).map_err(StartError::Roots)?;
    for spec in &settings.servers {
        tls.client_config(spec, &[])
            .map_err(|source| StartError::Server { server: spec.name.clone(), source })?;
    }
    try_records(&settings)?;
    let ok = Palette::of_stdout().paint(Hue::Good, "ok");
    print(|out| writeln!(out, "{ok}\n\n{}", summary(&settings).trim_end()))
}

/// Finds out whether the query log can be written and a collector of dnstap can be where it should, before anything is changed
/// for them. They are left as they are.
///
/// # Errors
/// A file that cannot be opened, a path that is no socket; with what to do about it.
pub(super) fn try_records(settings: &Settings) -> Result<(), StartError> {
    let log = &settings.log.queries;
    Telemetry::try_query_log(log).map_err(|source| StartError::query_log(log, source))?;
    let Some(dnstap) = &settings.dnstap else { return Ok(()) };
    Dnstap::check(dnstap).map_err(|source| StartError::dnstap(dnstap, source))
}
