//! Holds the sources to the layers of `src/lib.rs` and to the shape of files: who may name whom, who may name which
//! crate, how files begin, how long they and their folders get. It reads text; it does not compile anything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::excessive_nesting,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, the lowest first. A module uses lower layers, and what `SIDEWAYS` allows.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["wire"]),
    (1, &["config", "telemetry", "clock", "seldom"]),
    (2, &["policy", "cache"]),
    (3, &["transport"]),
    (4, &["upstream"]),
    (5, &["resolver"]),
    (6, &["listener"]),
    (7, &["main", "cli", "app", "control"]),
];

/// Uses within a layer, each with its reason.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("telemetry", "config", "what is logged and where is a setting"),
    ("telemetry", "clock", "log lines have a time"),
    ("main", "cli", "main parses the arguments"),
    ("main", "control", "and calls what they ask for"),
    ("control", "cli", "commands have their arguments from there"),
    ("control", "app", "run composes the gateway"),
];

/// Crates that only some files may name.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("hickory_proto", &["wire/"], "a codec for cold paths: its types stay below our own"),
    (
        "nix",
        &["listener/batch/", "control/network/netlink.rs", "control/residency.rs"],
        "batched system calls, netlink, and reading own pages, each behind one interface",
    ),
    ("rustix", &["listener/batch/"], "socket options that other wrappers lack"),
    ("serde", &["config/"], "only the configuration is read by derive"),
    ("toml", &["config/"], "the format of the configuration"),
    ("saphyr_parser", &["control/import/yaml.rs"], "the format of another program's configuration"),
    (
        "serde_json",
        &["control/", "telemetry/", "app/state.rs"],
        "output for programs, and what outlives a restart",
    ),
    ("prometheus_client", &["telemetry/"], "metrics leave by the exporter"),
    ("opentelemetry_proto", &["telemetry/traces/"], "how a trace looks is known in one place"),
    ("prost", &["telemetry/dnstap/", "telemetry/traces/"], "the encoding of two protocols"),
    ("h2", &["transport/"], "the wire of one transport"),
    ("hyper", &["transport/", "telemetry/"], "the wire of one transport; the metrics page"),
    ("hyper_rustls", &["transport/"], "the wire of one transport"),
    ("tokio_rustls", &["transport/"], "encryption belongs to transports"),
    ("rustls", &["transport/"], "encryption belongs to transports"),
    ("webpki_roots", &["transport/tls.rs"], "trust is set up in one place"),
    ("rustls_native_certs", &["transport/tls.rs"], "trust is set up in one place"),
    (
        "sd_notify",
        &["control/systemd.rs", "listener/"],
        "systemd is told in one place, and may hand sockets in",
    ),
    ("clap", &["cli/", "control/", "main.rs"], "the command line"),
];

/// Names under which anything could hide.
const NO_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "types", "manager"];

/// Longest file, its tests aside.
const MOST_LINES: usize = 500;

/// Longer files, each with its bound and its reason.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// Most files in one folder: `config` has one for each kind of thing that can be configured.
const MOST_FILES: usize = 18;

/// A source file.
struct Source {
    /// From `src/`.
    path: String,
    text: String,
}

impl Source {
    /// The module at the top.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// True for files that are compiled for tests only.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap();
        self.path.contains("/tests/")
            || ["tests.rs", "samples.rs", "fake.rs", "rehearsal.rs", "scale.rs"].contains(&name)
    }

    /// The code of the product: without comments and without what is compiled for tests only.
    fn code(&self) -> Vec<(usize, &str)> {
        let lines = self.text.lines().enumerate().take_while(|(_, line)| !line.starts_with("mod tests {"));
        lines
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(at, line)| (at + 1, line))
            .collect()
    }
}

/// Reads every file of `src`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source { path, text });
            }
        }
    }
    assert!(sources.len() > 50, "only {} files found", sources.len());
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// Returns a module's layer.
fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

/// Returns the identifiers that follow `prefix` in a line.
fn named_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let parts = line.match_indices(prefix).map(|(at, _)| &line[at + prefix.len()..]);
    parts.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()).collect()
}

/// Returns true when a line names a crate: at the root of a path, not as a part of another word.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '.')
    })
}

/// Fails with all complaints at once.
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let complaints: Vec<String> = sources()
        .iter()
        .filter(|source| source.path != "lib.rs" && layer(source.module()).is_none())
        .map(|source| format!("{} is in no layer", source.path))
        .collect();
    assert_none(&complaints);
}

#[test]
fn layers_point_down() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.path != "lib.rs" && !source.is_test()) {
        let from = source.module();
        for (at, line) in source.code() {
            let used = named_after(line, "crate::").into_iter().chain(named_after(line, "veildns::"));
            for used in used.filter(|used| *used != from) {
                let Some(target) = layer(used) else {
                    complaints.push(format!("{}:{at}: {used} is in no layer", source.path));
                    continue;
                };
                let is_sideways = SIDEWAYS.iter().any(|(user, of, _)| (*user, *of) == (from, used));
                if Some(target) >= layer(from) && !is_sideways {
                    complaints.push(format!("{}:{at}: {from} may not use {used}", source.path));
                }
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn crates_are_named_only_where_they_belong() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (name, places, reason) in RESERVED {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for (at, line) in source.code().into_iter().filter(|(_, line)| names_crate(line, name)) {
                complaints.push(format!(
                    "{}:{at}: {name} is for {places:?} only ({reason}): {}",
                    source.path,
                    line.trim()
                ));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn only_one_file_builds_tls_configurations() {
    let builders =
        ["ClientConfig::builder", "RootCertStore::empty", ".dangerous()", "with_custom_certificate_verifier"];
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.path != "transport/tls.rs" && !source.is_test()) {
        for (at, line) in source.code() {
            if builders.iter().any(|builder| line.contains(builder)) {
                complaints.push(format!("{}:{at}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn nothing_past_the_resolver_can_name_a_client() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if !["policy", "cache", "upstream", "transport"].contains(&source.module()) {
            continue;
        }
        for (at, line) in source.code() {
            if ["ClientToken", "client_address", "Waiter"].iter().any(|word| line.contains(word)) {
                complaints.push(format!("{}:{at}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn sockets_are_opened_only_where_they_belong() {
    let opens =
        ["UdpSocket::bind", "TcpListener::bind", "TcpStream::connect", "TcpSocket::new", "Socket::new("];
    // The metrics page is the application's, and `health` asks it; the operator's unix socket is that of the commands. The
    // collector of dnstap is the operator's too.
    let places = [
        "listener/",
        "transport/",
        "app/",
        "control/socket/",
        "control/health.rs",
        "telemetry/dnstap/courier/mod.rs",
    ];
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (at, line) in source.code() {
            let is_there = places.iter().any(|place| source.path.starts_with(place));
            if !is_there && opens.iter().any(|open| line.contains(open)) {
                complaints.push(format!("{}:{at}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let complaints: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//! ") || source.text.starts_with("//! stub"))
        .map(|source| source.path.clone())
        .collect();
    assert_none(&complaints);
}

#[test]
fn files_are_named_for_their_idea() {
    let is_vague = |path: &str| path.split(['/', '.']).any(|part| NO_NAMES.contains(&part));
    let complaints: Vec<String> =
        sources().iter().filter(|source| is_vague(&source.path)).map(|source| source.path.clone()).collect();
    assert_none(&complaints);
}

#[test]
fn files_and_folders_stay_small() {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    let mut complaints = Vec::new();
    for source in sources() {
        if source.is_test() {
            continue;
        }
        let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        *folders.entry(folder.to_owned()).or_default() += 1;
        let lines = source.text.lines().take_while(|line| !line.starts_with("mod tests {")).count();
        let long = LONG_FILES.iter().find(|(path, ..)| *path == source.path);
        if lines > long.map_or(MOST_LINES, |(_, most, _)| *most) {
            complaints.push(format!("{}: {lines} lines without its tests", source.path));
        }
    }
    let large = folders.into_iter().filter(|(_, files)| *files > MOST_FILES);
    complaints.extend(large.map(|(folder, files)| format!("{folder}: {files} files")));
    assert_none(&complaints);
}

#[test]
fn no_task_is_left_to_itself_and_no_file_has_unfinished_work() {
    let words = [
        "tokio::spawn(",
        "unbounded_channel",
        "todo!(",
        "unimplemented!(",
        "TODO",
        "FIXME",
        "/tmp/",
        // Where this checkout stands: a path of one machine is of no use on another.
        env!("CARGO_MANIFEST_DIR"),
    ];
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let lines = source.text.lines().enumerate().take_while(|(_, line)| !line.starts_with("mod tests {"));
        for (at, line) in lines {
            if words.iter().any(|word| line.contains(word)) {
                complaints.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    assert_none(&complaints);
}
