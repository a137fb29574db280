//! The control socket: how `veildns status` and its like reach the gateway that runs. A unix socket that only its owner and
//! root may use; one line of JSON asks, one answers (`protocol`). What can be asked: how things are (`report`), what the
//! cache keeps of a name and that it forget it, another log level. Nothing of it is on the path of a query.

pub(super) mod bind;
pub(super) mod client;
mod kept;
pub mod protocol;
pub(super) mod report;
pub(super) mod serve;

use crate::config::settings::ControlSocket;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The socket in the directory that systemd makes for the unit (`RuntimeDirectory=veildns`), seen from outside of it.
const SYSTEM_PLACE: &str = "/run/veildns/control.sock";

/// Where a gateway's socket is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere.
    Nowhere,
    /// In the usual place: the gateway runs without it if need be.
    Usual(PathBuf),
    /// Where the operator wrote it: it has to be there.
    Written(PathBuf),
}

/// Returns where the gateway of these settings has its socket.
pub(super) fn place(setting: &ControlSocket) -> Place {
    match setting {
        ControlSocket::Off => Place::Nowhere,
        ControlSocket::At(path) => Place::Written(path.clone()),
        ControlSocket::Usual => {
            usual(std::env::var_os).into_iter().next().map_or(Place::Nowhere, Place::Usual)
        }
    }
}

/// Returns where a gateway may have its socket, the likeliest first.
pub(super) fn candidates(setting: &ControlSocket) -> Vec<PathBuf> {
    match setting {
        ControlSocket::Off => Vec::new(),
        ControlSocket::At(path) => vec![path.clone()],
        ControlSocket::Usual => {
            let mut places = usual(std::env::var_os);
            if !places.iter().any(|place| place == Path::new(SYSTEM_PLACE)) {
                places.push(SYSTEM_PLACE.into());
            }
            places
        }
    }
}

/// Returns the usual places: the directory that systemd gives the unit (systemd.exec(5)), and that of the user's session.
fn usual(variable: impl Fn(&'static str) -> Option<OsString>) -> Vec<PathBuf> {
    let directory = |name| {
        let value = variable(name)?;
        std::env::split_paths(&value).next().filter(|path| path.is_absolute())
    };
    let system = directory("RUNTIME_DIRECTORY").map(|path| path.join("control.sock"));
    let session = directory("XDG_RUNTIME_DIR").map(|path| path.join("veildns.sock"));
    system.into_iter().chain(session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_directory_comes_before_the_sessions_and_without_either_there_is_none() {
        let of = |unit: &str, session: &str| {
            let variables = [("RUNTIME_DIRECTORY", unit), ("XDG_RUNTIME_DIR", session)];
            let variable =
                |name| variables.into_iter().find(|(known, value)| *known == name && !value.is_empty());
            let places = usual(|name| variable(name).map(|(_, value)| value.into()));
            places.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            of("/run/veildns", "/run/user/7"),
            ["/run/veildns/control.sock", "/run/user/7/veildns.sock"]
        );
        assert_eq!(of("/run/one:/run/two", ""), ["/run/one/control.sock"]);
        assert_eq!(of("", "/run/user/7"), ["/run/user/7/veildns.sock"]);
        assert!(of("", "").is_empty() && of("relative", "here").is_empty());
    }

    #[test]
    fn what_the_operator_wrote_is_the_only_candidate() {
        assert_eq!(candidates(&ControlSocket::At("/x/y".into())), [PathBuf::from("/x/y")]);
        assert_eq!(place(&ControlSocket::At("/x/y".into())), Place::Written("/x/y".into()));
        assert!(candidates(&ControlSocket::Off).is_empty());
        assert_eq!(place(&ControlSocket::Off), Place::Nowhere);
        assert!(candidates(&ControlSocket::Usual).contains(&PathBuf::from(SYSTEM_PLACE)));
    }
}
