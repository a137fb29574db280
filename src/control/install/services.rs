//! systemd, as far as an installation needs it: start the service, let the resolver read its files again. A tree of files
//! has none of it.

use super::InstallError;
use super::host::Decider;
use std::process::Command;

/// What runs on the machine.
pub(super) trait Services {
    /// Starts the gateway, or starts it anew. Returns when it answers.
    fn start(&mut self) -> Result<(), InstallError>;
    /// Makes what decides whom programs ask read its files.
    fn follow(&mut self, decider: Decider) -> Result<(), InstallError>;
    /// Stops the gateway, and removes what systemd keeps of it: its state, not its logs.
    fn stop(&mut self) -> Result<(), InstallError>;
    /// Forgets the unit, whose file is gone.
    fn forget(&mut self) -> Result<(), InstallError>;
}

/// A tree of files: nothing runs.
pub(super) struct Nothing;

impl Services for Nothing {
    fn start(&mut self) -> Result<(), InstallError> {
        Ok(())
    }
    fn follow(&mut self, _: Decider) -> Result<(), InstallError> {
        Ok(())
    }
    fn stop(&mut self) -> Result<(), InstallError> {
        Ok(())
    }
    fn forget(&mut self) -> Result<(), InstallError> {
        Ok(())
    }
}

/// systemd of this machine; with what it runs, which tests replace.
pub(super) struct Systemd<R>(pub(super) R);

impl<R: FnMut(&[&str]) -> Result<(), InstallError>> Services for Systemd<R> {
    fn start(&mut self) -> Result<(), InstallError> {
        (self.0)(&["systemctl", "daemon-reload"])?;
        // The unit is Type=notify: this returns when the gateway answers.
        (self.0)(&["systemctl", "restart", "veildns.service"])
    }

    fn follow(&mut self, decider: Decider) -> Result<(), InstallError> {
        match decider {
            Decider::Resolved => (self.0)(&["systemctl", "restart", "systemd-resolved.service"]),
            Decider::NetworkManager => (self.0)(&["systemctl", "reload", "NetworkManager.service"]),
            Decider::File => Ok(()),
        }
    }

    fn stop(&mut self) -> Result<(), InstallError> {
        (self.0)(&["systemctl", "stop", "veildns.service"])?;
        (self.0)(&["systemctl", "clean", "--what=state", "--what=cache", "--what=runtime", "veildns.service"])
    }

    fn forget(&mut self) -> Result<(), InstallError> {
        (self.0)(&["systemctl", "daemon-reload"])
    }
}

/// Runs a command and waits for it; what it says goes where ours goes.
///
/// # Errors
/// It cannot be run, or says that it failed.
pub(super) fn run(words: &[&str]) -> Result<(), InstallError> {
    let failed = |why: String| InstallError::Command { command: words.join(" "), why };
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let status = Command::new(program).args(arguments).status().map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}
