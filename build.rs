//! Tells the program its commit and its crypto provider, for `veildns version`.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    // HEAD says which branch, its log when that moved. A file that is not there would mean a build each time.
    for file in [".git/HEAD", ".git/logs/HEAD", "build.rs"] {
        if Path::new(file).exists() {
            println!("cargo:rerun-if-changed={file}");
        }
    }
    println!("cargo:rerun-if-env-changed=BUILD_COMMIT");
    let commit = std::env::var("BUILD_COMMIT").ok().or_else(commit).unwrap_or_else(|| "no commit".to_owned());
    println!("cargo:rustc-env=BUILD_COMMIT={commit}");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rustc-env=BUILD_TIME={}", build_time());
    let aws = std::env::var_os("CARGO_FEATURE_CRYPTO_AWS").is_some();
    println!("cargo:rustc-env=BUILD_CRYPTO={}", if aws { "aws-lc-rs" } else { "ring" });
}

/// Returns when the program is built, seconds since 1970: what the packager says for builds that can be repeated
/// (reproducible-builds.org), else now.
#[expect(
    clippy::disallowed_methods,
    reason = "the build is no part of the program, which has a clock of its own"
)]
fn build_time() -> u64 {
    let said = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    said.unwrap_or_else(now)
}

/// Returns the short commit of the checkout; None outside of one.
fn commit() -> Option<String> {
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// Returns what git says; None when it says nothing.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}
