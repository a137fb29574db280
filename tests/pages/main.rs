//! The commands of README.md and of the pages below `docs/`, run as they stand there: each page from its beginning to its end
//! on a machine of its own, with systemd, root, dig and a made-up Internet, all in namespaces. It needs Linux, root and the
//! programs named below; elsewhere it says that it is skipped, unless VEILDNS_REQUIRE_NETNS=1 forbids it.
//! `VEILDNS_PAGES=laptop` tries some pages only, and shows what their commands said.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test"
)]
#![allow(unreachable_pub, reason = "modules of one test")]

#[path = "../support/mod.rs"]
mod support;

mod blocks;
mod machine;
mod world;

use blocks::{Block, Mark, Word};
use machine::{Machine, Outcome};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::netns;
use world::{Manner, World};

/// Which page is to be tried, in the process that is the world.
const PAGE: &str = "VEILDNS_PAGE";
/// Where the programs for the machine are.
const GOODS: &str = "VEILDNS_PAGE_GOODS";

/// What the machine is made of, and what pages tell their readers to use.
const PROGRAMS: [&str; 10] =
    ["ip", "nft", "nsenter", "systemctl", "script", "dig", "dnsmasq", "tcpdump", "curl", "openssl"];

/// Stands for `cargo` there: the programs are built already.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
    "run --release") exec veildns ;;
    "run --release -- "*) shift 3; exec veildns "$@" ;;
    "run --release --example lab") exec lab ;;
    "run --release --example lab -- "*) shift 5; exec lab "$@" ;;
    *) echo "cargo $* is not done here" >&2; exit 1 ;;
esac
"#;

/// Stands for `sudo`: everybody is root there. Like it, it passes no variables on and looks for programs of the system only.
const SUDO: &str = "#!/bin/sh\nexec env -i HOME=/root TERM=dumb LANG=C.UTF-8 \
                    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \"$@\"\n";

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages, in the order of their names.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.extend(["README.md", "certs/README.md"].map(|name| root().join(name)));
    pages.sort();
    pages
}

#[test]
fn every_page_does_what_it_says() {
    if !netns::possible(&PROGRAMS) {
        return;
    }
    let inside = std::env::current_exe().unwrap();
    let goods = tempfile::tempdir().unwrap();
    stripped(Path::new(env!("CARGO_BIN_EXE_veildns")), &goods.path().join("veildns"));
    stripped(&lab(&inside), &goods.path().join("lab"));
    script(&goods.path().join("cargo"), CARGO);
    script(&goods.path().join("sudo"), SUDO);
    let wanted = std::env::var("VEILDNS_PAGES").unwrap_or_default();
    // All at once: they mostly wait.
    let tries: Vec<_> = pages()
        .into_iter()
        .filter(|page| page.to_string_lossy().contains(&wanted))
        .map(|page| {
            let mut command = Command::new("unshare");
            command.args(["--net", "--mount", "--"]).arg(&inside);
            command.args(["--exact", "inside_the_world", "--ignored", "--nocapture"]);
            command.env(GOODS, goods.path()).env(PAGE, page).env("RUST_BACKTRACE", "0");
            std::thread::spawn(move || command.output().unwrap())
        })
        .collect();
    let mut said = String::new();
    let mut failed = 0;
    for tried in tries {
        let output = tried.join().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_good = output.status.success() && text.contains("1 passed");
        failed += usize::from(!is_good);
        if !is_good || !wanted.is_empty() {
            said.push_str(&text);
            said.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        said.extend(text.lines().filter(|line| line.contains(" blocks run, ")).flat_map(|line| [line, "\n"]));
    }
    assert_eq!(failed, 0, "{said}");
    println!("{said}");
}

/// Builds the lab, which `cargo test --test pages` does not, and returns where it is.
fn lab(test: &Path) -> PathBuf {
    let folder = test.parent().and_then(Path::parent).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--offline", "--example", "lab"]).current_dir(root());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the lab cannot be built");
    folder.join("examples/lab")
}

#[test]
#[ignore = "runs in the namespaces that `every_page_does_what_it_says` makes"]
fn inside_the_world() {
    let (Some(page), Some(goods)) = (std::env::var_os(PAGE), std::env::var_os(GOODS)) else { return };
    let page = PathBuf::from(page);
    let began = std::time::Instant::now();
    let name = page.strip_prefix(root()).unwrap().display();
    match try_page(&page, Path::new(&goods)) {
        Ok((run, not_run)) => {
            println!("{name}: {run} blocks run, {not_run} not, {} s", began.elapsed().as_secs())
        }
        Err(why) => panic!("{name}: {why}"),
    }
}

/// Copies a program without what a debugger needs, which is most of it; as it is when there is no `strip`.
fn stripped(program: &Path, copy: &Path) {
    let done = Command::new("strip").arg("-o").arg(copy).arg(program).status();
    if !done.is_ok_and(|status| status.success()) {
        fs::copy(program, copy).unwrap();
    }
}

/// Writes a script.
fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a page's blocks; how many were run, how many not.
fn try_page(page: &Path, goods: &Path) -> Result<(usize, usize), String> {
    let blocks = blocks::read(&fs::read_to_string(page).unwrap())?;
    let run = blocks.iter().filter(|block| matches!(block.mark, Mark::Tested(_))).count();
    if run == 0 {
        return Ok((0, blocks.len()));
    }
    let world = World::make();
    let machine = Machine::boot(goods, |init| world.connect(init))
        .map_err(|said| format!("the machine does not start: {said}"))?;
    for block in &blocks {
        let Mark::Tested(words) = &block.mark else { continue };
        let outcome = perform(block, words, &machine, &world);
        println!("--- line {}\n{}\n--- says\n{}\n", block.line, block.text, outcome.said);
        judge(words, &outcome, &machine).map_err(|why| format!("line {}: {why}", block.line))?;
    }
    Ok((run, blocks.len() - run))
}

/// Does what a block's words say, and its commands.
fn perform(block: &Block, words: &[Word], machine: &Machine, world: &World) -> Outcome {
    let left_out = |line: &&str| {
        !words.iter().any(|word| matches!(word, Word::LeavesOut(start) if line.starts_with(start)))
    };
    let text = block.text.lines().filter(left_out).collect::<Vec<_>>().join("\n");
    for word in words {
        match word {
            Word::Network(manner) => world.behave(Manner::of(manner)),
            Word::Ends => machine.end(),
            Word::Given(command) => {
                let outcome = machine.run(command);
                if outcome.code != 0 {
                    return Outcome { said: format!("given {command}: {}", outcome.said), code: -1 };
                }
            }
            Word::Answers(typed) => return machine.run_at_terminal(&text, typed),
            Word::Interrupted(seconds) => return machine.run_for(&text, *seconds),
            Word::Stays(ready) => {
                let (before, program) = text.rsplit_once('\n').unwrap_or(("", &text));
                return machine.stay(before, program, ready);
            }
            Word::LeavesOut(_) | Word::Exits(_) | Word::Prints(_) | Word::Lacks(_) | Word::Then(_) => {}
        }
    }
    machine.run(&text)
}

/// Says what is wrong with what came of a block.
fn judge(words: &[Word], outcome: &Outcome, machine: &Machine) -> Result<(), String> {
    let expected =
        words.iter().find_map(|word| if let Word::Exits(code) = word { Some(*code) } else { None });
    if outcome.code != expected.unwrap_or(0) {
        return Err(format!("it ends with {}", outcome.code));
    }
    for word in words {
        match word {
            Word::Prints(text) if !outcome.said.contains(text) => {
                return Err(format!("it does not say {text:?}"));
            }
            Word::Lacks(text) if outcome.said.contains(text) => return Err(format!("it says {text:?}")),
            Word::Then(command) => {
                let after = machine.run(command);
                if after.code != 0 {
                    return Err(format!("then {command:?} ends with {}: {}", after.code, after.said));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
