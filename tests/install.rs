//! `veildns install --root` and `veildns uninstall --root` on trees that look like hosts: what is there afterwards is what was
//! there before, octet by octet.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::SystemTime;

/// The program without what a debugger needs, which is most of it; as it is when there is no `strip`.
fn program() -> &'static Path {
    static STRIPPED: LazyLock<PathBuf> = LazyLock::new(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_veildns"));
        let stripped = Path::new(env!("CARGO_TARGET_TMPDIR")).join("veildns-stripped");
        let done = Command::new("strip").arg("-o").arg(&stripped).arg(built).status();
        if done.is_ok_and(|status| status.success()) { stripped } else { built.to_owned() }
    });
    &STRIPPED
}

/// Prepares a run, free of what the environment of the test says.
fn veildns() -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VEILDNS_")) {
        command.env_remove(name);
    }
    command
}

/// A host to be.
struct Tree(tempfile::TempDir);

/// What is at a path: kind and permissions, owner, content or target, and of files when it was written. Of programs, which
/// are large, the length will do.
type Entry = (u32, u32, Vec<u8>, Option<SystemTime>);

/// Returns what is at a path.
fn entry(path: &Path, metadata: &fs::Metadata) -> Entry {
    let (octets, time) = if metadata.is_symlink() {
        (fs::read_link(path).unwrap().into_os_string().into_encoded_bytes(), None)
    } else if metadata.is_dir() {
        (Vec::new(), None)
    } else if metadata.len() > 1_000_000 {
        (metadata.len().to_be_bytes().to_vec(), Some(metadata.modified().unwrap()))
    } else {
        (fs::read(path).unwrap(), Some(metadata.modified().unwrap()))
    };
    (metadata.mode(), metadata.uid(), octets, time)
}

impl Tree {
    /// Makes one from paths and texts; a text that begins with "-> " is a link.
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            tree.write(path, text);
        }
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let place = self.at(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        match text.strip_prefix("-> ") {
            Some(target) => symlink(target, place).unwrap(),
            None => fs::write(place, text).unwrap(),
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Everything in it.
    fn content(&self) -> BTreeMap<PathBuf, Entry> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let metadata = fs::symlink_metadata(&path).unwrap();
                found.insert(path.clone(), entry(&path, &metadata));
                folders.extend(metadata.is_dir().then_some(path));
            }
        }
        found
    }

    /// Runs a command on it.
    fn run(&self, arguments: &[&str]) -> Output {
        veildns().args(arguments).arg("--root").arg(self.0.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that has to succeed; what it says.
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

const BY_HAND: &str = "# by hand\nnameserver 192.0.2.1\nsearch corp.example\n";
const INSTALLED: &[&str] = &["install", "--yes"];
const UNINSTALLED: &[&str] = &["uninstall", "--yes"];

/// Hosts, and the file that makes programs ask us on each.
#[expect(clippy::too_many_lines, reason = "a table")]
fn hosts() -> Vec<(&'static str, Tree, &'static str)> {
    let resolved = "etc/systemd/resolved.conf.d/50-veildns.conf";
    let hooked = Tree::new(&[
        ("etc/resolv.conf", "# written by dhclient\nnameserver 192.0.2.1\n"),
        ("etc/dhcp/dhclient-enter-hooks.d/debug", "# nothing\n"),
    ]);
    let odd = Tree::new(&[
        ("etc/resolv.conf", BY_HAND),
        ("usr/local/bin/veildns", "an older one, put there by hand"),
    ]);
    fs::set_permissions(odd.at("usr/local/bin/veildns"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(odd.at("etc/resolv.conf"), fs::Permissions::from_mode(0o600)).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(odd.at("etc/resolv.conf")).unwrap().set_modified(long_ago).unwrap();
    vec![
        ("empty", Tree::new(&[]), "etc/resolv.conf"),
        ("by hand", Tree::new(&[("etc/resolv.conf", BY_HAND)]), "etc/resolv.conf"),
        ("permissions and dates", odd, "etc/resolv.conf"),
        (
            "systemd-resolved's stub",
            Tree::new(&[
                ("etc/resolv.conf", "-> ../run/systemd/resolve/stub-resolv.conf"),
                ("run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n"),
                ("etc/systemd/resolved.conf.d/10-mine.conf", "[Resolve]\nMulticastDNS=no\n"),
            ]),
            resolved,
        ),
        (
            "systemd-resolved by an absolute link that leads nowhere yet",
            Tree::new(&[("etc/resolv.conf", "-> /run/systemd/resolve/stub-resolv.conf")]),
            resolved,
        ),
        (
            "systemd-resolved with a file of its stub",
            Tree::new(&[("etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad\n")]),
            resolved,
        ),
        (
            "systemd-resolved and NetworkManager",
            Tree::new(&[
                ("etc/resolv.conf", "-> ../run/systemd/resolve/resolv.conf"),
                ("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n"),
                ("etc/NetworkManager/NetworkManager.conf", "[main]\n"),
            ]),
            resolved,
        ),
        (
            "NetworkManager",
            Tree::new(&[
                ("etc/resolv.conf", "# Generated by NetworkManager\nnameserver 192.0.2.1\n"),
                ("etc/NetworkManager/NetworkManager.conf", "[main]\n"),
            ]),
            "etc/NetworkManager/conf.d/90-veildns.conf",
        ),
        (
            "NetworkManager by a link",
            Tree::new(&[("etc/resolv.conf", "-> /run/NetworkManager/resolv.conf")]),
            "etc/NetworkManager/conf.d/90-veildns.conf",
        ),
        (
            "resolvconf by a link",
            Tree::new(&[
                ("etc/resolv.conf", "-> ../run/resolvconf/resolv.conf"),
                ("run/resolvconf/resolv.conf", "nameserver 192.0.2.1\nsearch lan\n"),
            ]),
            "etc/resolv.conf",
        ),
        ("dhclient", hooked, "etc/resolv.conf"),
        (
            "a configuration of its own",
            Tree::new(&[
                ("etc/resolv.conf", BY_HAND),
                ("etc/veildns/veildns.toml", "listen = [\"127.0.0.1:53\"]\nupstreams = [\"adguard\"]\n"),
            ]),
            "etc/resolv.conf",
        ),
        (
            "a unit by hand that is enabled",
            Tree::new(&[
                ("etc/resolv.conf", BY_HAND),
                ("etc/systemd/system/veildns.service", "[Service]\nExecStart=/opt/veildns\n"),
                (
                    "etc/systemd/system/multi-user.target.wants/veildns.service",
                    "-> /etc/systemd/system/veildns.service",
                ),
            ]),
            "etc/resolv.conf",
        ),
    ]
}

#[test]
fn uninstall_leaves_every_host_as_it_was_before_one_install_or_two() {
    for (name, tree, points) in hosts() {
        let before = tree.content();
        let said = tree.good(INSTALLED);
        assert!(said.contains(&format!("/{points}")), "{name}: {said}");
        assert!(tree.read(points).contains("127.0.0.1"), "{name}");
        assert!(tree.at("usr/local/bin/veildns").is_file() && tree.at("etc/veildns/veildns.toml").is_file());
        let installed = tree.content();
        assert_ne!(installed, before, "{name}");
        assert!(tree.good(INSTALLED).contains("nothing to do"), "{name}");
        assert_eq!(tree.content(), installed, "{name}");
        tree.good(UNINSTALLED);
        assert_eq!(tree.content(), before, "{name}");
    }
}

#[test]
fn an_upgrade_replaces_the_program_and_still_knows_what_was_there_before() {
    let tree = Tree::new(&[("etc/resolv.conf", BY_HAND), ("usr/local/bin/veildns", "by hand")]);
    let before = tree.content();
    tree.good(INSTALLED);
    tree.write("usr/local/bin/veildns", "an older version");
    let said = tree.good(INSTALLED);
    assert!(said.contains("update   /usr/local/bin/veildns"), "{said}");
    assert!(fs::metadata(tree.at("usr/local/bin/veildns")).unwrap().len() > 100_000);
    assert_eq!(tree.read("usr/local/bin/veildns.before-veildns"), "by hand");
    tree.good(UNINSTALLED);
    assert_eq!(tree.content(), before);
}

#[test]
fn what_the_operator_changed_is_kept_and_told() {
    let tree = Tree::new(&[("etc/resolv.conf", BY_HAND)]);
    tree.good(INSTALLED);
    let mine = "listen = [\"127.0.0.1:53\"]\nupstreams = [\"adguard\"]\n";
    tree.write("etc/veildns/veildns.toml", mine);
    tree.write("etc/resolv.conf", "nameserver 203.0.113.1\n");
    // A second install leaves it alone.
    let said = tree.good(INSTALLED);
    assert!(said.contains("nothing to do"), "{said}");
    let said = tree.good(UNINSTALLED);
    assert!(said.contains("keep     /etc/veildns/veildns.toml"), "{said}");
    assert!(said.contains("the one before is /etc/resolv.conf.before-veildns"), "{said}");
    assert_eq!(tree.read("etc/veildns/veildns.toml"), mine);
    assert_eq!(tree.read("etc/resolv.conf"), "nameserver 203.0.113.1\n");
    assert_eq!(tree.read("etc/resolv.conf.before-veildns"), BY_HAND);
    assert!(!tree.at("usr/local/bin/veildns").exists() && !tree.at("var").exists());
}

#[test]
fn the_configuration_that_is_installed_is_the_one_that_was_named_and_it_is_looked_at_first() {
    let tree = Tree::new(&[("etc/resolv.conf", BY_HAND), ("my.toml", "listen = [\"0.0.0.0:53\"]\n")]);
    let before = tree.content();
    let mine = tree.at("my.toml");
    tree.good(&["install", "--yes", "--config", mine.to_str().unwrap()]);
    assert_eq!(tree.read("etc/veildns/veildns.toml"), "listen = [\"0.0.0.0:53\"]\n");
    assert!(tree.read("etc/resolv.conf").contains("\nnameserver 127.0.0.1\nsearch corp.example\n"));
    tree.good(UNINSTALLED);
    assert_eq!(tree.content(), before);

    fs::write(&mine, "listen = [\"127.0.0.1:5053\"]\n").unwrap();
    let refused = tree.run(&["install", "--yes", "--config", mine.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(78), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("programs ask port 53 only"), "{}", text(&refused.stderr));
    fs::write(&mine, "lisen = []\n").unwrap();
    let refused = tree.run(&["install", "--yes", "--config", mine.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(text(&refused.stderr).contains("listen"), "{}", text(&refused.stderr));
    fs::write(&mine, "listen = [\"0.0.0.0:53\"]\n").unwrap();
    assert!(!tree.at("etc/veildns").exists());
}

#[test]
fn a_failure_midway_leaves_everything_as_it_was() {
    // The directory of the drop-in is a file: found out when the program and the unit are there already.
    let tree = Tree::new(&[
        ("etc/resolv.conf", "-> ../run/systemd/resolve/stub-resolv.conf"),
        ("etc/systemd/resolved.conf.d", "no directory"),
        ("usr/local/bin/veildns", "by hand"),
    ]);
    let before = tree.content();
    let failed = tree.run(INSTALLED);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    assert!(text(&failed.stderr).contains("/etc/systemd/resolved.conf.d"), "{}", text(&failed.stderr));
    assert_eq!(tree.content(), before);
}

#[test]
fn a_directory_or_an_old_backup_in_the_way_is_not_touched() {
    for files in [
        [("etc/resolv.conf/file", "x"), ("etc/hosts", "")],
        [("etc/resolv.conf", BY_HAND), ("etc/resolv.conf.before-veildns", "precious")],
    ] {
        let tree = Tree::new(&files);
        let before = tree.content();
        let failed = tree.run(INSTALLED);
        assert_eq!(failed.status.code(), Some(1));
        assert!(text(&failed.stderr).contains("is in the way"), "{}", text(&failed.stderr));
        assert_eq!(tree.content(), before);
    }
}

#[test]
fn links_in_a_tree_do_not_lead_out_of_it() {
    let outside = tempfile::tempdir().unwrap();
    let tree = Tree::new(&[]);
    symlink(outside.path(), tree.at("etc")).unwrap();
    let failed = tree.run(INSTALLED);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("leads out of the tree"), "{}", text(&failed.stderr));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn without_a_terminal_and_without_yes_nothing_is_done() {
    let tree = Tree::new(&[("etc/resolv.conf", BY_HAND)]);
    let before = tree.content();
    for command in ["install", "uninstall"] {
        let refused = tree.run(&[command]);
        assert_eq!(refused.status.code(), Some(64), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("--yes"), "{}", text(&refused.stderr));
        if command == "install" {
            assert_eq!(tree.content(), before);
            tree.good(INSTALLED);
        }
    }
    assert!(tree.at("usr/local/bin/veildns").exists());
}

#[test]
fn a_dry_run_shows_the_plan_and_does_nothing() {
    let tree = Tree::new(&[("etc/resolv.conf", BY_HAND)]);
    let before = tree.content();
    let said = tree.good(&["install", "--dry-run"]);
    for path in [
        "write    /usr/local/bin/veildns\n",
        "write    /etc/veildns/veildns.toml\n",
        "write    /etc/systemd/system/veildns.service\n",
        "replace  /etc/resolv.conf\n",
        "/etc/resolv.conf.before-veildns\n",
    ] {
        assert!(said.contains(path), "{path}: {said}");
    }
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert_eq!(tree.content(), before);
    tree.good(INSTALLED);
    let installed = tree.content();
    let said = tree.good(&["uninstall", "--dry-run"]);
    assert!(said.contains("restore  /etc/resolv.conf\n"), "{said}");
    assert_eq!(tree.content(), installed);
}

#[test]
fn uninstall_without_install_says_so() {
    let tree = Tree::new(&[]);
    let failed = tree.run(UNINSTALLED);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("is not installed here"), "{}", text(&failed.stderr));
    assert!(tree.content().is_empty());
}

#[test]
fn the_installed_configuration_is_good_and_does_not_need_ipv6_where_there_is_none() {
    for (if_inet6, listens) in
        [("", false), ("00000000000000000000000000000001 01 80 10 80       lo\n", true)]
    {
        let tree = Tree::new(&[("proc/net/if_inet6", if_inet6)]);
        tree.good(INSTALLED);
        let config = tree.read("etc/veildns/veildns.toml");
        let listen = config.lines().find(|line| line.starts_with("listen =")).unwrap();
        assert_eq!(listen.contains("[::1]:53"), listens, "{listen}");
        let checked =
            veildns().args(["check", "--config"]).arg(tree.at("etc/veildns/veildns.toml")).output().unwrap();
        assert!(checked.status.success(), "{}", text(&checked.stderr));
    }
}

#[test]
fn files_are_readable_whatever_the_umask_is() {
    let tree = Tree::new(&[]);
    let command = "umask 077 && exec \"$0\" install --yes --root \"$1\"";
    let status = Command::new("sh")
        .args(["-c", command])
        .arg(program())
        .arg(tree.0.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&tree.at("etc/resolv.conf")), 0o644);
    assert_eq!(mode(&tree.at("etc/veildns/veildns.toml")), 0o644);
    assert_eq!(mode(&tree.at("etc/veildns")), 0o755);
    assert_eq!(mode(&tree.at("usr/local/bin/veildns")), 0o755);
}
