//! The built program from the shell: what it prints where, and how it exits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::excessive_nesting,
    clippy::missing_docs_in_private_items,
    reason = "a broken assumption must end a test, and its table is its documentation"
)]

mod support;

use assert_cmd::assert::OutputAssertExt as _;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use support::authority::{Certificate, NAME};
use support::binary::{run, stderr, stdout, veildns, with_servers, written};
use support::gateway::setup;
use support::script::Script;
use support::server::{BOTH, Protocol, Server};

/// Runs `check` on a text.
fn check(text: &str) -> (Output, PathBuf) {
    let (_directory, file) = written(text);
    (run(&["check", "--config", file.to_str().unwrap()]), file)
}

#[test]
fn check_finds_every_shipped_file_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> =
        files.iter().filter(|file| file.extension().is_some_and(|end| end == "toml")).collect();
    assert!(files.len() >= 4);
    for file in files {
        let output = run(&["check", "--config", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}:\n{}", file.display(), stderr(&output));
        assert!(stdout(&output).contains("ok"), "{}", stdout(&output));
    }
}

#[test]
fn check_shows_where_each_error_is_and_what_was_meant() {
    let (output, file) = check(
        "listen = [\"127.0.0.1:5053\"]\nupstrams = [\"quad9\"]\n\n[cache]\nmax_size = \"64 bananas\"\n",
    );
    assert_eq!(output.status.code(), Some(78));
    let text = stderr(&output);
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(text.contains(&format!("{name}:2:1")), "file, line and column of the first:\n{text}");
    assert!(text.contains(&format!("{name}:5:12")), "and of the second:\n{text}");
    assert!(text.contains("did you mean `upstreams`?"), "{text}");
    assert!(text.contains("upstrams = [\"quad9\"]"), "the line itself:\n{text}");
    assert!(text.contains("^^^"), "a mark under it:\n{text}");
    assert!(stdout(&output).is_empty());
    assert!(!text.contains('\u{1b}'), "no colours into a pipe");
}

#[test]
fn check_refuses_what_would_not_work_or_not_be_private() {
    for (bad, word) in [
        ("listen = [", "listen"),
        ("listen = []", "listen"),
        ("listen = [\"nowhere\"]", "nowhere"),
        ("upstreams = []", "upstreams"),
        ("upstreams = [\"qud9\"]", "quad9"),
        ("upstreams = [\"udp://192.0.2.1\"]", "udp://192.0.2.1"),
        ("upstreams = [\"http://192.0.2.1/dns-query\"]", "https://"),
        ("strategy = \"fastets\"", "fastest"),
        ("[cache]\nmax_ttl = \"1 fortnight\"", "fortnight"),
        ("[server.a]\nurl = \"tls://a.example\"\npins = [\"sha256/short\"]", "pin"),
        ("[server.a]\nurl = \"tls://a.example\"\nca_file = \"missing.pem\"\n", "missing.pem"),
        ("[[route]]\ndomains = [\"x.example\"]\ngroup = \"nobody\"", "nobody"),
        ("[tls]\nmin_version = \"1.1\"", "1.2"),
        ("[access]\nallow = [\"10.0.0.0/40\"]", "10.0.0.0/40"),
    ] {
        let (output, _) = check(bad);
        assert_eq!(output.status.code(), Some(78), "{bad}\n{}{}", stdout(&output), stderr(&output));
        let text = stderr(&output);
        assert!(text.contains(word), "{bad}: {text}");
    }
}

#[test]
fn a_missing_file_is_a_configuration_error_and_named() {
    let output = run(&["check", "--config", "no/such/file.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("no/such/file.toml"));
}

#[test]
fn check_names_every_file_that_it_has_read() {
    let (directory, file) = written("strategy = \"failover\"");
    let drop_ins = directory.path().join("veildns.d");
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::write(drop_ins.join("20-late.toml"), "[cache]\nmax_size = \"2MiB\"").unwrap();
    std::fs::write(drop_ins.join("10-early.toml"), "[cache]\nmax_size = \"1MiB\"").unwrap();
    std::fs::write(drop_ins.join("notes.txt"), "not for us").unwrap();
    let output = run(&["check", "--config", file.to_str().unwrap()]);
    let text = stdout(&output);
    let places = ["veildns.toml", "10-early.toml", "20-late.toml"].map(|name| text.find(name).expect(name));
    assert!(places.is_sorted(), "{text}");
    assert!(text.contains("2MiB, answers kept") && !text.contains("notes.txt"), "{text}");
}

#[test]
fn the_environment_overrides_single_keys() {
    let (_directory, file) = written("");
    let good = veildns()
        .args(["check", "--config"])
        .arg(&file)
        .env("VEILDNS_CACHE__MAX_SIZE", "1MiB")
        .output()
        .unwrap();
    assert!(good.status.success(), "{}", stderr(&good));
    let bad = veildns()
        .args(["check", "--config"])
        .arg(&file)
        .env("VEILDNS_CACHE__MAX_SIZE", "much")
        .output()
        .unwrap();
    assert_eq!(bad.status.code(), Some(78));
    assert!(stderr(&bad).contains("VEILDNS_CACHE__MAX_SIZE"), "{}", stderr(&bad));
}

#[test]
fn usage_errors_exit_with_64() {
    for arguments in [
        &["--nonsense"][..],
        &["query"],
        &["frobnicate"],
        &["completions", "tcl"],
        &["query", "a..b"],
        &["query", "x.example", "NOTYPE"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty());
    }
}

#[test]
fn help_version_completions_and_man_page_go_to_standard_output() {
    for (arguments, word) in [
        (&["--help"][..], "veildns check"),
        (&["query", "--help"], "--upstream"),
        (&["doctor", "--help"], "--plan"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["version"], env!("CARGO_PKG_VERSION")),
        (&["man"], ".TH veildns"),
        (&["completions", "bash"], "_veildns"),
        (&["completions", "zsh"], "#compdef veildns"),
        (&["completions", "fish"], "complete -c veildns"),
    ] {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).contains(word), "{arguments:?}: {}", stdout(&output));
        assert!(stderr(&output).is_empty(), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn an_address_that_is_taken_exits_with_69_and_says_what_to_do() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["run", "--listen", &address, "--upstream", "quad9"]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains(&taken.local_addr().unwrap().port().to_string()), "{text}");
    assert!(text.contains("taken"), "{text}");
}

#[test]
fn an_address_that_this_host_lacks_exits_with_69_so_that_a_service_is_started_again() {
    let output = run(&["run", "--listen", "192.0.2.1:0", "--upstream", "quad9"]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(stderr(&output).contains("this host does not have the address"), "{}", stderr(&output));
}

#[test]
fn a_port_that_needs_privileges_exits_with_77() {
    let free = (1..1024).find(|port| {
        std::net::UdpSocket::bind(("127.0.0.1", *port))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    });
    let Some(port) = free else {
        eprintln!("skipped: who runs this may bind every port");
        return;
    };
    let output = run(&["run", "--listen", &format!("127.0.0.1:{port}"), "--upstream", "quad9"]);
    assert_eq!(output.status.code(), Some(77), "{}", stderr(&output));
}

#[test]
fn query_prints_the_answer_and_where_it_came_from() {
    for protocol in BOTH {
        let server = Server::start(protocol, Script::good());
        let (_directory, file) = with_servers(&[("lab", &server)]);
        let file = file.to_str().unwrap();
        let text = run(&["query", "www.lab.example", "--config", file]);
        assert!(text.status.success(), "{}", stderr(&text));
        for word in ["NOERROR", "lab", "104.51.100.4", "104.51.100.3", "TLS 1.3"] {
            assert!(stdout(&text).contains(word), "{word}: {}", stdout(&text));
        }
        let json = run(&["query", "lab.example", "MX", "--json", "--config", file]);
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["rcode"], "NOERROR", "{json}");
        assert_eq!(json["upstream"], "lab", "{json}");
        assert_eq!(json["answer"].as_array().unwrap().len(), 2, "{json}");
        assert_eq!(json["answer"][0]["type"], "MX", "{json}");
        assert_eq!(json["answer"][0]["data"], "10 mail.lab.example.", "{json}");
    }
}

#[test]
fn query_without_an_answer_exits_with_1_and_says_why() {
    let server = Server::with_certificate(Protocol::Dot, Script::good(), Certificate::Expired);
    let (_directory, file) = with_servers(&[("lab", &server)]);
    let output = run(&["query", "www.lab.example", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("certificate"), "{}", stdout(&output));
    let output = run(&["query", "www.lab.example", "--json", "--config", file.to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let reason = &report["extended_error"];
    assert_eq!((&reason["code"], &reason["purpose"]), (&22.into(), &"No Reachable Authority".into()));
    assert_eq!(server.log.asked(), 0);
}

#[test]
fn upstreams_shows_every_server_and_which_of_them_works() {
    let (good, bad) = (
        Server::start(Protocol::Doh, Script::good()),
        Server::with_certificate(Protocol::Dot, Script::good(), Certificate::WrongName),
    );
    let (_directory, file) = with_servers(&[("fine", &good), ("impostor", &bad)]);
    let file = file.to_str().unwrap();
    let output = run(&["upstreams", "--json", "--config", file]);
    let list: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(&output), stderr(&output)));
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    assert_eq!((&list[0]["name"], &list[0]["ok"]), (&"fine".into(), &true.into()), "{list}");
    assert_eq!(list[0]["tls_version"], "1.3", "{list}");
    assert_eq!((&list[1]["name"], &list[1]["ok"]), (&"impostor".into(), &false.into()), "{list}");
    let table = run(&["upstreams", "--config", file]);
    for word in ["fine", "impostor"] {
        assert!(stdout(&table).contains(word), "{}", stdout(&table));
    }
    assert_eq!(bad.log.asked(), 0, "an impostor is never asked");
}

#[test]
fn upstreams_exits_with_1_when_none_works() {
    let server = Server::refusing(Protocol::Dot, Script::good(), Certificate::Good);
    let (_directory, file) = with_servers(&[("down", &server)]);
    veildns().args(["upstreams", "--config"]).arg(file).assert().code(1);
}

#[test]
fn a_server_on_the_command_line_is_asked_instead() {
    let (configured, other) =
        (Server::start(Protocol::Dot, Script::good()), Server::start(Protocol::Dot, Script::good()));
    let text = setup().server("configured", &configured).spare("other", &other, "").text();
    let (_directory, file) = written(&text);
    let output =
        run(&["query", "www.lab.example", "--upstream", "other", "--config", file.to_str().unwrap()]);
    assert!(output.status.success(), "{NAME}: {}{}", stdout(&output), stderr(&output));
    assert_eq!((configured.log.asked(), other.log.asked()), (0, 1));
}

#[test]
fn a_flag_in_front_of_a_command_is_told_of_and_not_overlooked() {
    let output = run(&["--config", "no/such/file.toml", "check"]);
    assert_eq!(output.status.code(), Some(64), "{}", stdout(&output));
    assert!(stderr(&output).contains("--config"), "{}", stderr(&output));
}

#[test]
fn whoever_has_a_port_is_named_for_clients_and_for_the_metrics_page() {
    let held_udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let held_tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp, tcp) = (held_udp.local_addr().unwrap(), held_tcp.local_addr().unwrap());
    let holder = format!("(pid {})", std::process::id());
    let clients = format!("listen = [\"{udp}\"]\n");
    let page = format!("listen = [\"127.0.0.1:0\"]\n[metrics]\nlisten = \"{tcp}\"\n");
    for (text, address) in [(clients, udp), (page, tcp)] {
        let (_directory, file) = written(&text);
        let output = run(&["run", "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains(&address.to_string()) && said.contains(&holder), "{holder}: {said}");
    }
}
