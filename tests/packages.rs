//! What is in `packaging/`, as far as it can be looked at without building a package: scripts are scripts, files that are named
//! exist, configurations load, OpenWrt's configuration becomes ours, and `veildns health` says what probes want to know.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test"
)]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::binary::{undisturbed, veildns};
use support::gateway::setup;
use support::installed::peer;
use support::script::Script;
use support::server::{Protocol, Server};
use support::trap::Trap;
use veildns::config;
use veildns::config::keys::{KEYS, Kind};
use veildns::config::settings::{Settings, StrategyKind};

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Loads a configuration.
fn load(text: &str) -> Settings {
    let folder = tempfile::tempdir().unwrap();
    config::from_text(text, folder.path())
        .unwrap_or_else(|errors| panic!("{text}\n{}", errors.render(config::error::Appearance::Plain)))
}

#[test]
fn every_script_is_one_for_sh() {
    let scripts = [
        "packaging/container-test",
        "packaging/deb",
        "packaging/deb-test",
        "packaging/small",
        "packaging/debian/prerm",
        "packaging/debian/postrm",
        "packaging/openwrt/files/uci-to-toml",
        "packaging/openwrt/files/veildns.init",
    ];
    for script in scripts {
        assert!(read(script).starts_with("#!/bin/sh"), "{script}");
        let output = Command::new("sh").arg("-n").arg(file(script)).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_linker_script_of_the_small_form_is_the_same_everywhere() {
    let script = "packaging/small.ld";
    assert!(read(script).contains("/DISCARD/"));
    for user in ["packaging/small", "packaging/openwrt/Makefile"] {
        assert!(read(user).contains(script), "{user}");
    }
    // It takes the tables for unwinding away: nothing may unwind.
    let small = read("Cargo.toml").split("[profile.small]").nth(1).unwrap().to_owned();
    assert!(small.split("\n[").next().unwrap().contains("panic = \"abort\""));
}

#[test]
fn every_file_that_the_package_takes_from_the_repository_exists() {
    let manifest = read("Cargo.toml");
    let package = manifest.split("[package.metadata.deb]").nth(1).unwrap();
    let package = package.split("\n[features]").next().unwrap();
    let assets: Vec<&str> =
        package.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next()).collect();
    assert!(assets.len() > 8, "{assets:?}");
    for asset in assets {
        let folder = asset.split('*').next().unwrap();
        // What packaging/deb makes.
        let is_made = asset.starts_with("target/packaging/");
        let script = read("packaging/deb");
        assert!(if is_made { script.contains(asset) } else { file(folder).exists() }, "{asset}");
    }
}

#[test]
fn the_configurations_of_all_packages_load() {
    let deb = load(&read("packaging/veildns.toml"));
    assert_eq!(deb.listen.len(), 1);
    assert_eq!(deb.listen[0].address, ([127, 0, 0, 1], 53).into());
    let container = load(&read("packaging/container/veildns.toml"));
    assert_eq!(container.metrics, Some(([0, 0, 0, 0], 9153).into()));

    let map = read("packaging/kubernetes/configmap.yaml");
    let text = map.split("veildns.toml: |\n").nth(1).unwrap();
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    let pod = load(&text);
    assert_eq!(pod.listen[0].address.port(), 5353);
    assert_eq!(pod.metrics.map(|address| address.port()), Some(9153));

    let secret = read("packaging/kubernetes/secret.yaml");
    let accounts = secret.split("accounts.toml: |\n").nth(1).unwrap();
    let accounts: String =
        accounts.lines().map(|line| format!("{}\n", line.trim_start().trim_start_matches("# "))).collect();
    load(&format!("upstreams = [\"nextdns\"]\n{accounts}"));
}

#[test]
fn ports_and_paths_agree_between_image_manifests_and_configuration() {
    let recipe = read("packaging/container/Containerfile");
    assert!(recipe.contains("\nUSER 65532:65532\n") && recipe.contains("\nFROM scratch\n"));
    assert!(recipe.contains("EXPOSE 5353/udp 5353/tcp 9153/tcp"));
    let state = "state_dir = \"/var/lib/veildns\"";
    assert!(recipe.contains("\nENV RUNTIME_DIRECTORY=/var/lib/veildns\n"));
    for configuration in ["packaging/container/veildns.toml", "packaging/kubernetes/configmap.yaml"] {
        assert!(read(configuration).contains(state), "{configuration}");
    }
    let compose = read("packaging/container/compose.yaml");
    assert!(recipe.contains("CMD [\"/veildns\", \"health\"]") && compose.contains("[CMD, /veildns, health]"));
    assert!(compose.contains(":53:5353/udp\"") && compose.contains(":53:5353/tcp\""));
    let deployment = read("packaging/kubernetes/deployment.yaml");
    for line in
        ["runAsUser: 65532", "path: /ready", "path: /health", "maxUnavailable: 0", "containerPort: 9153"]
    {
        assert!(deployment.contains(line), "{line}");
    }
    assert!(deployment.contains(&format!("image: veildns:{}\n", env!("CARGO_PKG_VERSION"))));
    assert!(
        read("packaging/openwrt/Makefile").contains(&format!("PKG_VERSION:={}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn the_manifests_fit_the_published_schemas() {
    let Some(validate) = peer("kubernetes-validate") else { return };
    let folder = file("packaging/kubernetes");
    let kustomization = read("packaging/kubernetes/kustomization.yaml");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "kustomization.yaml" {
            continue;
        }
        assert!(kustomization.contains(&format!("- {name}\n")), "{name} is not applied");
        let output = Command::new(&validate).arg("--strict").arg(&path).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
        seen += 1;
    }
    assert!(seen >= 6);
}

/// Prepares a shell of a router: that of busybox, which has only its own commands, when it is installed; else that of this host.
fn routers_shell(folder: &Path) -> Command {
    let Some(busybox) = peer("busybox") else { return Command::new("sh") };
    let commands = folder.join("commands");
    fs::create_dir_all(&commands).unwrap();
    for command in ["awk", "cat", "mkdir", "mv"] {
        std::os::unix::fs::symlink(&busybox, commands.join(command)).unwrap();
    }
    let mut shell = Command::new(busybox);
    shell.arg("sh").env("PATH", commands);
    shell
}

/// Turns what `uci show veildns` says into a configuration.
fn converted(uci: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut child = routers_shell(folder.path())
        .arg(file("packaging/openwrt/files/uci-to-toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(uci.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_key_can_be_said_in_openwrts_configuration() {
    for key in KEYS {
        // `server.*.weight` is an option of a section of the kind `server`.
        let (section, option) = key.name.rsplit_once('.').unwrap_or(("veildns", key.name));
        let section = section.trim_end_matches(".*");
        let (value, expected) = match key.kind {
            Kind::List => ("'a' 'b'", "[\"a\", \"b\"]"),
            Kind::Integer => ("'7'", "7"),
            Kind::Boolean => ("'true'", "true"),
            Kind::Text => ("'a'", "\"a\""),
        };
        let text = converted(&format!("veildns.x={section}\nveildns.x.{option}={value}\n"));
        assert!(text.ends_with(&format!("\n{option} = {expected}\n")), "{}: {text}", key.name);
    }
}

#[test]
fn openwrts_configuration_becomes_ours() {
    let text = converted(
        "veildns.main=veildns\n\
         veildns.main.enabled='1'\n\
         veildns.main.listen='127.0.0.1:5453' '[::1]:5453'\n\
         veildns.main.upstreams='quad9' 'home'\n\
         veildns.main.strategy='failover'\n\
         veildns.main.workers='1'\n\
         veildns.cache=cache\n\
         veildns.cache.max_size='4MiB'\n\
         veildns.cache.prefetch='false'\n\
         veildns.limits=limits\n\
         veildns.limits.max_inflight='512'\n\
         veildns.home=server\n\
         veildns.home.url='https://dns.home.example/dns-query'\n\
         veildns.home.addresses='192.0.2.1'\n\
         veildns.home.weight='7'\n\
         veildns.lan=group\n\
         veildns.lan.upstreams='udp://192.168.1.2'\n\
         veildns.@route[0]=route\n\
         veildns.@route[0].domains='corp.example' 'lan'\n\
         veildns.@route[0].group='lan'\n\
         veildns.@route[1]=route\n\
         veildns.@route[1].domains='office.example'\n\
         veildns.@route[1].group='lan'\n",
    );
    let settings = load(&text);
    assert_eq!(settings.listen.len(), 2);
    assert_eq!(settings.workers, 1);
    assert_eq!(settings.cache.max_size, 4 << 20);
    assert!(!settings.cache.prefetch);
    assert_eq!(settings.limits.max_inflight, 512);
    assert_eq!(settings.groups[0].strategy, StrategyKind::Failover);
    assert!(settings.servers.iter().any(|server| server.name == "home" && server.weight == 7));
    assert_eq!(settings.groups.len(), 2);
}

#[test]
fn the_configuration_of_openwrts_package_loads() {
    // As `uci show` would print it.
    let (mut uci, mut section) = (String::new(), String::new());
    let mut lists: Vec<(String, String)> = Vec::new();
    for line in read("packaging/openwrt/files/veildns.config").lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = line.split_once(" '").map(|(_, value)| format!("'{value}")).unwrap_or_default();
        match words.first() {
            Some(&"config") => {
                section = words[2].trim_matches('\'').to_owned();
                lists.push((format!("veildns.{section}"), words[1].to_owned()));
            }
            Some(&"option") => lists.push((format!("veildns.{section}.{}", words[1]), value)),
            Some(&"list") => {
                let key = format!("veildns.{section}.{}", words[1]);
                match lists.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, values)) => *values = format!("{values} {value}"),
                    None => lists.push((key, value)),
                }
            }
            _ => {}
        }
    }
    for (key, value) in lists {
        uci.push_str(&format!("{key}={value}\n"));
    }
    let settings = load(&converted(&uci));
    assert_eq!(settings.listen[0].address, ([127, 0, 0, 1], 5453).into());
    assert_eq!(settings.cache.max_size, 4 << 20);
}

#[test]
fn no_value_of_openwrt_breaks_out_of_its_string() {
    let hostile = r#"a"b\c'\''d"]; x = ["#;
    let text = converted(&format!(
        "veildns.main=veildns\nveildns.main.listen='127.0.0.1:0'\nveildns.log=log\nveildns.log.queries='/x/{hostile}'\n"
    ));
    assert!(text.contains(r#"queries = "/x/a\"b\\c'd\"]; x = [""#), "{text}");
    load(&text);
    let text = converted(
        "veildns.main=veildns\nveildns.main.strategy='fast\u{1}est'\nveildns.main.workers='2; x'\n",
    );
    assert!(text.contains("strategy = \"fastest\"") && text.contains("workers = \"2; x\""), "{text}");
    assert!(!text.contains('\u{1}'));
}

/// What procd, its rc.common and uci are to the init script: what they are told to do goes to the file `told`.
const PROCD: &str = r#"
for call in procd_open_instance procd_set_param procd_close_instance procd_send_signal procd_add_reload_trigger; do
    eval "$call() { echo $call \"\$@\" >> told; }"
done
procd_running() { [ -e running ]; }
uci() { case "$2" in show) cat shown ;; get) cat enabled ;; esac; }
start() { start_service; }
stop() { echo stop >> told; }
"#;

/// A router with the package on it, in a folder.
struct Router(tempfile::TempDir);

impl Router {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Calls a function of the init script; says whether it went well, and what procd was told.
    fn does(&self, function: &str) -> (bool, String) {
        let folder = self.0.path();
        let script = read("packaging/openwrt/files/veildns.init")
            .replace("/usr/sbin/veildns", env!("CARGO_BIN_EXE_veildns"))
            .replace(
                "/usr/share/veildns/uci-to-toml",
                file("packaging/openwrt/files/uci-to-toml").to_str().unwrap(),
            )
            .replace("/var/", &format!("{}/var/", folder.display()));
        self.write("told", "");
        self.write("init", &format!("{PROCD}\n{script}\n{function}\n"));
        let _ = fs::remove_dir_all(folder.join("commands"));
        let output = undisturbed(routers_shell(folder)).arg("init").current_dir(folder).output().unwrap();
        (output.status.success(), fs::read_to_string(folder.join("told")).unwrap())
    }

    fn configuration(&self) -> String {
        fs::read_to_string(self.0.path().join("var/etc/veildns/veildns.toml")).unwrap_or_default()
    }
}

#[test]
fn openwrts_service_starts_and_reloads_and_survives_a_mistake() {
    let router = Router::new();
    let good = "veildns.main=veildns\nveildns.main.enabled='1'\nveildns.main.listen='127.0.0.1:5453'\n";
    router.write("enabled", "0\n");
    router.write("shown", good);
    assert_eq!(router.does("start"), (true, String::new()), "it is not enabled");
    router.write("enabled", "1\n");
    let (started, told) = router.does("start");
    assert!(started, "{told}");
    for line in ["procd_open_instance", "procd_set_param respawn 3600 1 0", "procd_close_instance"] {
        assert!(told.lines().any(|other| other == line), "{line}: {told}");
    }
    let command = told.lines().find(|line| line.starts_with("procd_set_param command ")).unwrap();
    assert!(command.contains("/veildns run --config /") && command.ends_with("/veildns.toml"), "{command}");
    assert_eq!(load(&router.configuration()).listen[0].address, ([127, 0, 0, 1], 5453).into());

    router.write("running", "");
    router.write("shown", &good.replace("5453", "5454"));
    assert_eq!(router.does("reload_service"), (true, "procd_send_signal veildns\n".to_owned()));
    assert!(router.configuration().contains("127.0.0.1:5454"));
    router.write("shown", &good.replace("listen", "lissten"));
    assert_eq!(router.does("reload_service"), (false, String::new()), "a mistake");
    assert!(router.configuration().contains("127.0.0.1:5454"), "{}", router.configuration());
    assert!(router.does("start").0, "the one before is there");

    router.write("enabled", "0\n");
    assert_eq!(router.does("reload_service"), (true, "stop\n".to_owned()));
    assert_eq!(router.does("service_triggers"), (true, "procd_add_reload_trigger veildns\n".to_owned()));
}

/// Runs `veildns health` on a page.
fn health(metrics: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veildns.toml");
    fs::write(&path, metrics).unwrap();
    veildns().args(["health", "--config"]).arg(path).output().unwrap()
}

#[test]
fn health_says_whether_the_gateway_serves_clients() {
    let server = Server::start(Protocol::Dot, Script::good());
    let gateway = setup().server("lab", &server).table("[metrics]\nlisten = \"127.0.0.1:0\"").start();
    let address = gateway.gateway().metrics_address().unwrap();
    let page = format!("[metrics]\nlisten = \"{address}\"\n");
    let output = health(&page);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"ready\n"[..]));
    gateway.gateway().stop_accepting();
    let output = health(&page);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"not ready\n"[..]));
}

#[test]
fn health_of_a_gateway_that_does_not_run_or_has_no_page_is_not_good() {
    let nobody = Trap::lay().address();
    let output = health(&format!("[metrics]\nlisten = \"{nobody}\"\n"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("does not answer"));
    let output = health("");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("[metrics] listen"));
}
