//! Files, drop-ins, variables and flags: which of them wins.

use super::*;

#[test]
fn drop_ins_are_merged_in_name_order_and_errors_name_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veildns.toml");
    let drop_in = folder.path().join("veildns.d");
    fs::create_dir_all(drop_in.join("certs")).unwrap();
    fs::create_dir(folder.path().join("certs")).unwrap();
    let route = |name: &str| format!("[[route]]\ndomains = [\"{name}\"]\ngroup = \"default\"\n");
    fs::write(&path, format!("upstreams = [\"google\"]\n[cache]\nmin_ttl = \"1s\"\n{}", route("a"))).unwrap();
    fs::write(drop_in.join("10-b.toml"), format!("[cache]\nmax_ttl = \"1h\"\n{}", route("b"))).unwrap();
    fs::write(
        drop_in.join("20-c.toml"),
        format!("upstreams = [\"he\"]\n[cache]\nmax_ttl = \"2h\"\n{}", route("c")),
    )
    .unwrap();
    fs::write(drop_in.join("30-d.conf"), "nonsense").unwrap();
    let source = Source { path: Some(path.clone()), overrides: Overrides::default() };
    let settings = load(&source).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.origin, Origin::File(path));
    assert_eq!(settings.cache.min_ttl, Duration::from_secs(1));
    assert_eq!(settings.cache.max_ttl, Duration::from_secs(7200));
    assert_eq!(settings.servers.len(), 1);
    assert_eq!(settings.servers[0].name, "he");
    let domains: Vec<String> = settings.routes.iter().map(|route| route.domains[0].to_string()).collect();
    assert_eq!(domains, ["a.", "b.", "c."]);
    assert_eq!(settings.tls.extra_ca_dir, Some(folder.path().join("certs")));

    fs::write(drop_in.join("20-c.toml"), "\n\nstrategy = 1\n").unwrap();
    let errors = load(&source).unwrap_err();
    let expected = format!("{}:3:12: strategy: found a number", drop_in.join("20-c.toml").display());
    assert_eq!(errors.lines().collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_file_that_is_not_there_is_an_error_when_it_was_asked_for() {
    let source = Source { path: Some("/nonexistent/veildns.toml".into()), overrides: Overrides::default() };
    let report = load(&source).unwrap_err().to_string();
    assert!(report.contains("cannot read /nonexistent/veildns.toml"), "{report}");
}

#[test]
fn variables_win_over_files_and_flags_over_variables() {
    let overrides = environment(&[
        ("VEILDNS_CACHE__MAX_SIZE", "256MiB"),
        ("VEILDNS_LISTEN", "127.0.0.1:1053, [::1]:1053"),
        ("VEILDNS_UPSTREAMS", "google"),
        ("VEILDNS_CACHE__PREFETCH", "false"),
        ("VEILDNS_LIMITS__ATTEMPTS", "2"),
        ("VEILDNS_REBINDING__ALLOW", ""),
        ("VEILDNS_SERVER__HOME__URL", "tls://192.0.2.1"),
        ("HOME", "/root"),
    ]);
    let upstreams = Assigned::List(vec!["home".to_owned(), "cloudflare".to_owned()]);
    let overrides = overrides.with_flag("--upstream", "upstreams", upstreams).with_flag(
        "--log-level",
        "log.level",
        Assigned::Text("trace".to_owned()),
    );
    let file = "listen = [\"127.0.0.1:53\"]\n[rebinding]\nallow = [\"x\"]\n[cache]\nmin_ttl = \"3s\"";
    let settings = with_overrides(file, overrides).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.cache.max_size, 256 << 20);
    assert_eq!(settings.cache.min_ttl, Duration::from_secs(3));
    assert!(!settings.cache.prefetch);
    assert_eq!(settings.listen.len(), 2);
    assert_eq!(settings.limits.attempts, 2);
    assert_eq!(settings.rebinding.allow, []);
    let names: Vec<&str> = settings.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["home", "cloudflare"]);
    assert_eq!(settings.log.level, LogLevel::Trace);
}

#[test]
fn errors_of_variables_and_flags_point_into_them() {
    let overrides = environment(&[
        ("VEILDNS_CACHE__MAX_SISE", "1"),
        ("VEILDNS_CACHE__PREFETCH", "perhaps"),
        ("VEILDNS_LISTEN", "127.0.0.1:53,x"),
        ("VEILDNS_ROUTE__GROUP", "x"),
    ]);
    let overrides = overrides.with_flag("--log-level", "log.level", Assigned::Text("loud".to_owned()));
    let errors = with_overrides("", overrides).unwrap_err();
    assert_eq!(
        errors.lines().collect::<Vec<_>>(),
        [
            "environment:1:1: unknown variable VEILDNS_CACHE__MAX_SISE",
            "environment:1:25: cache.prefetch: found a string",
            "environment:1:29: listen: \"x\" is not an address with a port",
            "environment:1:1: unknown variable VEILDNS_ROUTE__GROUP",
            "command line:1:13: log.level: unknown value \"loud\"",
        ]
    );
    assert!(errors.to_string().contains("did you mean VEILDNS_CACHE__MAX_SIZE?"));
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_of_our_name_are_not_ours() {
    let overrides = environment(&[
        ("VEILDNS_SERVICE_HOST", "10.0.0.1"),
        ("VEILDNS_SERVICE_PORT_DNS", "53"),
        ("VEILDNS_PORT", "udp://10.0.0.1:53"),
        ("VEILDNS_PORT_53_UDP_ADDR", "10.0.0.1"),
    ]);
    assert!(with_overrides("", overrides).is_ok());
    // This one somebody wrote, and it does nothing.
    assert!(with_overrides("", environment(&[("VEILDNS_PORT", "53")])).is_err());
}

#[test]
fn what_a_command_brings_along_is_under_the_files() {
    let brought = |overrides: Overrides| {
        overrides
            .with_default("strategy", Assigned::Text("failover".to_owned()))
            .with_default("upstreams", Assigned::List(vec!["google".to_owned()]))
            .with_default("limits.max_connections", Assigned::Integer(5))
    };
    let settings = with_overrides("", brought(Overrides::default())).unwrap();
    assert_eq!(settings.groups[0].strategy, StrategyKind::Failover);
    assert_eq!(settings.servers[0].name, "google");
    assert_eq!(settings.limits.max_connections, 5);
    let file = "upstreams = [\"quad9\"]\nstrategy = \"weighted\"";
    let settings = with_overrides(file, brought(environment(&[("VEILDNS_STRATEGY", "fastest")]))).unwrap();
    assert_eq!(settings.groups[0].strategy, StrategyKind::Fastest);
    let names: Vec<&str> = settings.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["quad9"]);
    assert_eq!(settings.limits.max_connections, 5);
}
