//! The machine that is installed on: its files below a root, what is at a path, and who decides which nameservers its
//! programs ask. Reads only; `journal` writes.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Which nameservers programs ask (resolv.conf(5)).
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Hooks of dhclient (dhclient-script(8)): it would write resolv.conf anew with each lease.
pub(super) const DHCLIENT_HOOKS: &str = "/etc/dhcp/dhclient-enter-hooks.d";

/// A machine, or a tree of files that becomes one.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// What `/` is.
    root: PathBuf,
    /// True for a tree: nothing of it runs.
    is_tree: bool,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Absent,
    /// A file with this SHA-256, in hexadecimal digits.
    File(String),
    /// A symbolic link to there.
    Link(PathBuf),
    /// A directory.
    Directory,
    /// A device, a socket.
    Other,
}

/// Who decides which nameservers programs ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decider {
    /// systemd-resolved: it answers programs, and asks whom a drop-in names.
    Resolved,
    /// NetworkManager writes resolv.conf, with the servers that a drop-in names.
    NetworkManager,
    /// resolv.conf itself.
    File,
}

impl Decider {
    /// All of them.
    const ALL: [Self; 3] = [Self::Resolved, Self::NetworkManager, Self::File];

    /// Returns the word in the manifest.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Resolved => "systemd-resolved",
            Self::NetworkManager => "NetworkManager",
            Self::File => "resolv.conf",
        }
    }

    /// Returns the decider of a word.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|decider| decider.word() == word)
    }
}

impl Host {
    /// The machine we run on.
    pub(super) fn this() -> Self {
        Self { root: "/".into(), is_tree: false }
    }

    /// A tree of files.
    pub(super) fn tree(root: &Path) -> Self {
        Self { root: root.to_owned(), is_tree: true }
    }

    /// Returns true for a tree.
    pub(super) fn is_tree(&self) -> bool {
        self.is_tree
    }

    /// Returns where a path of the machine is for us.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns the parent directory that would lead out of a tree: an absolute link in it leads to the machine we run on.
    pub(super) fn way_out(&self, path: &Path) -> Option<PathBuf> {
        let parents = self.parents(path);
        let leads_out = |parent: &PathBuf| {
            let target = fs::read_link(self.at(parent)).ok();
            target.is_some_and(|to| to.is_absolute() || to.components().any(|c| c == Component::ParentDir))
        };
        self.is_tree.then(|| parents.into_iter().find(leads_out)).flatten()
    }

    /// Returns the directories above a path that are not there yet, the highest first.
    pub(super) fn missing_parents(&self, path: &Path) -> Vec<PathBuf> {
        self.parents(path).into_iter().filter(|parent| !self.at(parent).exists()).collect()
    }

    /// Returns the directories above a path but the root, the highest first.
    fn parents(&self, path: &Path) -> Vec<PathBuf> {
        let mut parents: Vec<PathBuf> =
            path.ancestors().skip(1).filter(|parent| parent.parent().is_some()).map(Path::to_owned).collect();
        parents.reverse();
        parents
    }

    /// Returns what is at a path.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub(super) fn state(&self, path: &Path) -> io::Result<State> {
        let place = self.at(path);
        let kind = match fs::symlink_metadata(&place) {
            Ok(metadata) => metadata.file_type(),
            // A file where a directory would have to be.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(State::Absent);
            }
            Err(error) => return Err(error),
        };
        Ok(if kind.is_symlink() {
            State::Link(fs::read_link(&place)?)
        } else if kind.is_dir() {
            State::Directory
        } else if kind.is_file() {
            State::File(sha256(&fs::read(&place)?))
        } else {
            State::Other
        })
    }

    /// Returns the text of a file, empty when there is none. A link is followed within the tree.
    pub(super) fn text(&self, path: &Path) -> String {
        let mut path = path.to_owned();
        // As many links as the kernel follows.
        for _ in 0..40 {
            let Ok(target) = fs::read_link(self.at(&path)) else { break };
            path = within(path.parent().unwrap_or(Path::new("/")), &target);
        }
        fs::read(self.at(&path))
            .map(|octets| String::from_utf8_lossy(&octets).into_owned())
            .unwrap_or_default()
    }

    /// Returns true when the machine can bind ::1.
    pub(super) fn has_ipv6_loopback(&self) -> bool {
        self.text(Path::new("/proc/net/if_inet6")).contains("00000000000000000000000000000001")
    }

    /// Finds out who decides which nameservers programs ask.
    pub(super) fn decider(&self) -> Decider {
        let path = Path::new(RESOLV_CONF);
        let target = fs::read_link(self.at(path)).map(|target| target.to_string_lossy().into_owned());
        let target = target.unwrap_or_default();
        let text = self.text(path);
        let comments: String = text.lines().filter(|line| line.starts_with(['#', ';'])).collect();
        let stub = text.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("nameserver") && words.next() == Some("127.0.0.53")
        });
        if stub || target.contains("systemd/resolve") || comments.contains("systemd-resolved") {
            Decider::Resolved
        } else if target.contains("NetworkManager") || comments.contains("NetworkManager") {
            Decider::NetworkManager
        } else {
            Decider::File
        }
    }
}

/// Returns where a link in `folder` leads.
fn within(folder: &Path, target: &Path) -> PathBuf {
    let mut path = PathBuf::from("/");
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path
}

/// Returns the SHA-256 of octets in hexadecimal digits.
pub(super) fn sha256(octets: &[u8]) -> String {
    Sha256::digest(octets).iter().fold(String::new(), |mut text, octet| {
        // Writing into memory does not fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}
