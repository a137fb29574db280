//! `veildns check`: every error of the configuration, or `ok` and what would run.

use super::{CommandError, Exit, print, sources};
use crate::cli::{ConfigArgs, RunArgs};
use crate::config::summary::summary;
use crate::transport::tls::TlsContext;
use std::io::Write;

/// Checks the configuration as `run` would read it, the files it names included.
///
/// # Errors
/// Every error of the configuration; output that cannot be written.
pub(super) fn check(args: &ConfigArgs) -> Result<Exit, CommandError> {
    let settings = sources::load(&RunArgs { config: args.clone(), ..RunArgs::default() })?;
    let roots = crate::app::error::StartError::Roots;
    let tls = TlsContext::load(&settings.tls).map_err(roots)?;
    for spec in &settings.servers {
        tls.client_config(spec, &[])
            .map_err(|source| crate::app::error::StartError::Server { server: spec.name.clone(), source })?;
    }
    print(|out| writeln!(out, "ok\n\n{}", summary(&settings).trim_end()))
}
