//! Tells the program its commit and its crypto provider, for `veildns version`, and the linker what the C library can read.

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
    if packs_relocations() {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if has_layout() {
        println!("cargo:rerun-if-changed={LAYOUT}");
        let root = variable("CARGO_MANIFEST_DIR");
        println!("cargo:rustc-link-arg-bins=-T{root}/{LAYOUT}");
    }
}

/// Which functions are put together.
const LAYOUT: &str = "packaging/layout.ld";

/// True for a release on the machine that it is for, by the linker that comes with the compiler or the system: LLVM's and GNU's
/// read the layout, others may not. The small form has a layout of its own.
fn has_layout() -> bool {
    let is_fast = matches!(variable("OPT_LEVEL").as_str(), "2" | "3");
    let is_usual_linker =
        variable("RUSTC_LINKER").is_empty() && !variable("CARGO_ENCODED_RUSTFLAGS").contains("link");
    is_fast
        && is_usual_linker
        && Path::new(LAYOUT).exists()
        && is_native()
        && variable("CARGO_CFG_TARGET_ARCH") == "x86_64"
}

/// Returns what cargo says; nothing where it says nothing.
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// True when the program is for this machine and GNU's C library.
fn is_native() -> bool {
    variable("HOST") == variable("TARGET") && variable("CARGO_CFG_TARGET_ENV") == "gnu"
}

/// True when the program is for this machine and its C library reads packed relocations (glibc 2.36): 300 KB less on disk and in
/// memory. A linker that does not know the option warns, and writes them as ever.
fn packs_relocations() -> bool {
    is_native() && glibc().is_some_and(|version| version >= (2, 36))
}

/// Returns the version of this machine's C library.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
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
