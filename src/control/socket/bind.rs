//! The socket's file: made for its owner alone, put in the place of one that a dead process left, never in that of a living
//! one, and removed at the end. What is said over it is not its matter.

use crate::app::error::PathFault;
use crate::listener::handover::Sharing;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Only the owner reads and writes; root may anyway.
const MODE: u32 = 0o600;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 16;

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error("another veildns answers on {path}: stop it, or put another path into control.socket")]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{path} is not a socket: remove it, or put another path into control.socket")]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The system says no.
    #[error("cannot make the control socket {path}{}", advice(.path, .source))]
    System {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A file that is removed with this, unless another has taken its place by then.
#[derive(Debug)]
pub(in crate::control) struct SocketFile {
    /// Where it is.
    path: PathBuf,
    /// Its device and number, by which it is known again.
    identity: (u64, u64),
}

/// Makes a socket and its file. Beside a running gateway of ours (`Sharing::Ours`) it takes the name from that one's, which
/// goes on without.
///
/// # Errors
/// A process that answers there, something else that is there, or the system.
pub(in crate::control) fn bind(
    path: &Path,
    sharing: Sharing,
) -> Result<(UnixListener, SocketFile), SocketError> {
    let system = |source| SocketError::System { path: path.to_owned(), source };
    let listener = match listen(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            clear(path, sharing)?;
            listen(path).map_err(system)?
        }
        other => other.map_err(system)?,
    };
    let file = fs::symlink_metadata(path).map_err(system)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity: (file.dev(), file.ino()) }))
}

/// Makes a socket that listens. Its mode is set before it has a name (unix(7): bind takes it over, less the umask), so that
/// there is no moment at which others could connect.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let address = SockAddr::unix(path)?;
    let file = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None)?));
    file.set_permissions(Permissions::from_mode(MODE))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    // Elsewhere than on Linux the mode may not be taken over.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// Removes what a dead process left behind, or one that is to be followed; nothing else.
fn clear(path: &Path, sharing: Sharing) -> Result<(), SocketError> {
    let system = |source| SocketError::System { path: path.to_owned(), source };
    let file = fs::symlink_metadata(path).map_err(system)?;
    if !file.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        // Nobody listens: its process is gone.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(system(error)),
        Ok(_) if sharing == Sharing::Ours => fs::remove_file(path).map_err(system),
        Ok(_) | Err(_) => Err(SocketError::InUse { path: path.to_owned() }),
    }
}

impl SocketFile {
    /// Returns where it is.
    pub(in crate::control) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |file: &fs::Metadata| (file.dev(), file.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(|file| is_ours(&file)) {
            // Whoever finds it finds that nobody listens.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Says what to do about a socket that cannot be made.
fn advice(path: &Path, source: &io::Error) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match PathFault::of(source) {
        PathFault::Missing => {
            format!(": make the directory {folder}, or put another path into control.socket")
        }
        PathFault::Forbidden => format!(
            ": this user may not write to {folder}; put another path into control.socket, or \"off\" (a systemd unit with \
             RuntimeDirectory=veildns has /run/veildns)"
        ),
        PathFault::NotADirectory | PathFault::IsADirectory | PathFault::Other => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_takes_the_name_and_keeps_it_when_the_predecessor_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind(&path, Sharing::Nobody).unwrap();
        let (second, _file) = bind(&path, Sharing::Ours).unwrap();
        drop(first);
        let _client = UnixStream::connect(&path).unwrap();
        second.set_nonblocking(false).unwrap();
        second.accept().unwrap();
    }

    #[test]
    fn the_file_is_its_owners_alone_and_goes_with_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (listener, file) = bind(&path, Sharing::Nobody).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        UnixStream::connect(&path).unwrap();
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        // A listener that goes without its file is what a killed process leaves behind.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (listener, _file) = bind(&path, Sharing::Nobody).unwrap();
        assert!(matches!(bind(&path, Sharing::Nobody), Err(SocketError::InUse { .. })));
        UnixStream::connect(&path).expect("the first one is still there");
        drop(listener);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, Sharing::Nobody), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_file_that_took_its_place_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (_listener, file) = bind(&path, Sharing::Nobody).unwrap();
        fs::rename(&path, folder.path().join("old")).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
        drop(other);
    }

    #[test]
    fn a_missing_directory_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = bind(&folder.path().join("no/s"), Sharing::Nobody).unwrap_err();
        assert!(error.to_string().contains("make the directory"), "{error}");
    }
}
