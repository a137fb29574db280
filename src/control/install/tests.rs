//! The order of things on a machine that runs, and failures in the middle: with systemd replaced by a list.

use super::InstallError;
use super::host::Host;
use super::journal::{apply, fates, undo};
use super::plan::{Choice, Goods, Plan};
use super::services::{Nothing, Systemd};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A machine whose programs ask systemd-resolved.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/systemd/system")).unwrap();
    fs::create_dir_all(root.path().join("run/systemd/resolve")).unwrap();
    fs::write(root.path().join("run/systemd/resolve/resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    std::os::unix::fs::symlink("../run/systemd/resolve/resolv.conf", root.path().join("etc/resolv.conf"))
        .unwrap();
    root
}

/// What is installed there.
fn goods() -> Goods {
    Goods {
        program: Some(b"program".to_vec()),
        configuration: b"listen = [\"127.0.0.1:53\"]\n".to_vec(),
        choice: Choice::Default,
        nameserver: ([127, 0, 0, 1], 53).into(),
    }
}

/// Everything below a directory: links with where they lead, files with their text.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = match fs::read_link(&path) {
                Ok(target) => format!("-> {}", target.display()),
                Err(_) if path.is_dir() => {
                    folders.push(path.clone());
                    String::new()
                }
                Err(_) => fs::read_to_string(&path).unwrap(),
            };
            found.insert(path, text);
        }
    }
    found
}

/// What the resolver's file says at the moment a command runs.
fn points_at_us(root: &Path) -> bool {
    root.join("etc/systemd/resolved.conf.d/50-veildns.conf").exists()
}

#[test]
fn programs_are_pointed_at_the_gateway_once_it_answers_and_away_before_it_stops() {
    let root = machine();
    let host = Host::tree(root.path());
    let before = tree(root.path());
    let mut said = Vec::new();
    let mut record = |words: &[&str]| {
        said.push((words.join(" "), points_at_us(root.path())));
        Ok(())
    };
    let plan = Plan::new(&host, goods()).unwrap();
    apply(&host, &plan, &mut Systemd(&mut record)).unwrap();
    let fates = fates(&host, &plan.manifest).unwrap();
    undo(&host, &plan.manifest, &fates, &mut Systemd(&mut record)).unwrap();
    let said: Vec<(&str, bool)> = said.iter().map(|(words, points)| (words.as_str(), *points)).collect();
    let clean = "systemctl clean --what=state --what=cache --what=runtime veildns.service";
    assert_eq!(
        said,
        [
            ("systemctl daemon-reload", false),
            ("systemctl restart veildns.service", false),
            ("systemctl restart systemd-resolved.service", true),
            ("systemctl restart systemd-resolved.service", false),
            ("systemctl stop veildns.service", false),
            (clean, false),
            ("systemctl daemon-reload", false),
        ]
    );
    assert_eq!(tree(root.path()), before);
}

#[test]
fn whichever_command_fails_everything_is_as_it_was() {
    for failing in ["daemon-reload", "restart veildns.service", "restart systemd-resolved.service"] {
        let root = machine();
        let host = Host::tree(root.path());
        let before = tree(root.path());
        let plan = Plan::new(&host, goods()).unwrap();
        let mut services = Systemd(|words: &[&str]| {
            let command = words.join(" ");
            match command.ends_with(failing) {
                true => Err(InstallError::Command { command, why: "a test".to_owned() }),
                false => Ok(()),
            }
        });
        let error = apply(&host, &plan, &mut services).unwrap_err();
        assert!(matches!(error, InstallError::Command { .. }), "{error}");
        assert_eq!(tree(root.path()), before, "{failing}");
    }
}

#[test]
fn an_upgrade_that_fails_leaves_the_earlier_version() {
    let root = machine();
    let host = Host::tree(root.path());
    apply(&host, &Plan::new(&host, goods()).unwrap(), &mut Nothing).unwrap();
    let before = tree(root.path());
    let newer = Goods { program: Some(b"newer".to_vec()), ..goods() };
    let plan = Plan::new(&host, newer).unwrap();
    let mut services = Systemd(|words: &[&str]| match words.contains(&"restart") {
        true => Err(InstallError::Command { command: words.join(" "), why: "a test".to_owned() }),
        false => Ok(()),
    });
    apply(&host, &plan, &mut services).unwrap_err();
    assert_eq!(tree(root.path()), before);
    apply(&host, &plan, &mut Nothing).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("usr/local/bin/veildns")).unwrap(), "newer");
}

#[test]
fn an_installation_that_was_cut_short_anywhere_is_undone() {
    let root = machine();
    let host = Host::tree(root.path());
    let before = tree(root.path());
    let plan = Plan::new(&host, goods()).unwrap();
    let steps = plan.steps().count();
    for done in 0..=steps {
        // As after a loss of power: the manifest says everything, some of it was done.
        let mut partial = plan.clone();
        partial.resolver.truncate(done.saturating_sub(partial.service.len()));
        partial.service.truncate(done);
        apply(&host, &partial, &mut Nothing).unwrap();
        let fates = fates(&host, &plan.manifest).unwrap();
        undo(&host, &plan.manifest, &fates, &mut Nothing).unwrap();
        assert_eq!(tree(root.path()), before, "after {done} of {steps} steps");
    }
}
