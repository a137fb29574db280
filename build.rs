//! Tells the program its commit and its crypto provider, for `veildns version`.

use std::path::Path;
use std::process::Command;

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
    if let Some(secs) =
        std::env::var("SOURCE_DATE_EPOCH").ok().or_else(|| git(&["log", "-1", "--format=%ct"]))
    {
        println!("cargo:rustc-env=BUILD_TIME={secs}");
    }
    let aws = std::env::var_os("CARGO_FEATURE_CRYPTO_AWS").is_some();
    println!("cargo:rustc-env=BUILD_CRYPTO={}", if aws { "aws-lc-rs" } else { "ring" });
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
