//! What the end-to-end tests and the offline lab share: a certificate authority, scripted servers, a small zone, the
//! gateway itself and plain DNS clients. Everything is on loopback and on ports that the kernel chose. Nothing here
//! uses the program's own message code: it is the second opinion.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a broken assumption must end a test"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "real sockets run in real time, and servers of tests end with their process"
)]
#![allow(clippy::excessive_nesting, reason = "a server is tasks within loops within tasks")]
#![allow(
    missing_docs,
    clippy::missing_docs_in_private_items,
    reason = "fields of plain records are named for what they are"
)]

pub mod authority;
pub mod binary;
pub mod client;
pub mod gateway;
pub mod installed;
pub mod load;
pub mod message;
pub mod netns;
pub mod process;
pub mod script;
pub mod server;
pub mod trap;
pub mod zone;

use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long anything may take before a test gives up on it. Generous: machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The runtime of all servers of this process, on a thread of its own so that blocking tests cannot starve it.
static RUNTIME: LazyLock<Handle> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
});

/// Returns the runtime of the servers.
pub fn runtime() -> Handle {
    RUNTIME.clone()
}

/// Receives again when a signal interrupted it: with a time limit set the kernel does not go on by itself (signal(7)).
///
/// # Errors
/// Whatever else went wrong.
pub fn uninterrupted<T>(mut receive: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match receive() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `PATIENCE`; `what` says what was waited for.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, condition), "not within {PATIENCE:?}: {what}");
}

/// Waits until `condition` holds; false when it does not within `limit`.
pub fn comes_true(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
