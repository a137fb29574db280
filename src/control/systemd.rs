//! What systemd is told (`Type=notify`, sd_notify(3)): ready, reloading, stopping, alive. Without systemd every call does nothing.

use sd_notify::NotifyState;
use std::path::PathBuf;
use std::time::Duration;
use tracing::debug;

/// Says that the gateway answers.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that a reload begins; `ready` ends it. systemd 253 and later wants the time with it, earlier ones ignore it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(time) => notify(&[NotifyState::Reloading, time]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Says that the gateway drains and ends.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Says that the gateway is alive.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// Returns how often `alive` is to be said: twice in the time the unit allows. None without a watchdog.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Returns the directory of the unit's `StateDirectory=`, the first if there are several (systemd.exec(5)).
pub(super) fn state_directory() -> Option<PathBuf> {
    let directories = std::env::var_os("STATE_DIRECTORY")?;
    std::env::split_paths(&directories).next().filter(|path| path.is_absolute())
}

/// Sends the states; a failure is of interest only when looking for one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd was not told");
    }
}
