//! Programs of other makers: where they are, and what becomes of a test without them.

#![allow(unreachable_pub, reason = "a module of several test binaries")]

use std::path::PathBuf;

/// Returns a program's path when it is installed.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(extra).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Returns a program's path; None, after a word about it, when the test has to be skipped.
///
/// # Panics
/// When it is missing and must not be.
pub fn peer(program: &str) -> Option<PathBuf> {
    let found = installed(program);
    if found.is_none() {
        let is_required = std::env::var("VEILDNS_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!is_required, "{program} is not installed, and VEILDNS_REQUIRE_PEERS=1 asks for it");
        eprintln!("skipped: {program} is not installed");
    }
    found
}
