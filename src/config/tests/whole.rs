//! Whole files: nothing said is the built-in default, and every key reaches the settings.

use super::*;

#[test]
fn an_empty_file_is_the_built_in_default() {
    let settings = good("");
    assert_eq!(settings.origin, Origin::BuiltIn);
    let listen: Vec<String> = settings.listen.iter().map(|listen| listen.address.to_string()).collect();
    assert_eq!(listen, ["127.0.0.1:5053", "[::1]:5053"]);
    assert!(settings.listen.iter().all(|listen| !listen.written));
    let names: Vec<&str> = settings.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["quad9", "cloudflare"]);
    assert!(settings.servers.iter().all(|server| !server.addresses.is_empty()));
    assert_eq!(
        settings.groups,
        [GroupSpec {
            name: "default".to_owned(),
            members: vec![0, 1],
            strategy: StrategyKind::Fastest,
            own: false
        }]
    );
    assert_eq!(settings.routes, []);
    assert_eq!(settings.limits, Limits::default());
    assert_eq!(settings.cache.max_size, 64 << 20);
    assert_eq!(settings.cache.stale_after, Duration::from_millis(1800));
    assert_eq!(settings.any, AnyQueries::Minimal);
    assert_eq!(settings.metrics, None);
    assert_eq!(settings.notices, Vec::<String>::new());
    let allowed: Vec<String> = settings.access.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["127.0.0.0/8", "::1/128"]);
    assert!(settings.workers >= 1);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one file with every key, then every setting")]
fn every_key_of_the_file_reaches_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("home.pem"), "").unwrap();
    fs::create_dir(folder.path().join("roots")).unwrap();
    let text = r#"
        listen = ["0.0.0.0:53"]
        upstreams = ["home", "quad9"]
        strategy = "weighted"
        workers = 3
        [server.home]
        url = "https://dns.home.example/q{?dns}"
        addresses = ["192.0.2.1"]
        ca_file = "home.pem"
        pins = ["sha256/AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="]
        weight = 7
        trust_ad = true
        [group.office]
        upstreams = ["udp://10.0.0.1", "home"]
        strategy = "failover"
        [[route]]
        domains = ["Corp.Example", "10.in-addr.arpa."]
        types = ["A", "TYPE65"]
        group = "office"
        [cache]
        max_size = "1MB"
        min_ttl = "5s"
        max_ttl = "2h"
        negative_max_ttl = 0
        max_stale = "2d"
        stale_after = "500ms"
        prefetch = false
        failure_ttl = "2s"
        failure_max_ttl = "5m"
        [privacy]
        client_subnet = "192.0.2.7/24"
        padding = false
        [rebinding]
        protect = false
        allow = ["plex.direct"]
        [policy]
        any = "forward"
        [tls]
        roots = "system"
        extra_ca_dir = "roots"
        min_version = "1.3"
        [timeouts]
        query = "3s"
        connect = "1s"
        attempt_min = "100ms"
        attempt_max = "1500ms"
        [access]
        allow = ["192.168.7.1/16", "2001:db8::1"]
        [limits]
        max_inflight = 100
        udp_batch = 8
        tcp_idle = "20s"
        retry_percent = 0
        hedge_percent = 1
        [log]
        level = "debug"
        format = "json"
        queries = "queries.log"
        query_format = "text"
        query_clients = "masked"
        query_names = "hashed"
        [control]
        socket = "run/veildns.sock"
        [metrics]
        listen = "127.0.0.1:9153"
    "#;
    let settings = from_text(text, folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.listen, [Listen { address: "0.0.0.0:53".parse().unwrap(), written: true }]);
    assert_eq!(settings.workers, 3);
    let home = &settings.servers[0];
    assert_eq!(
        **home,
        ServerSpec {
            name: "home".to_owned(),
            endpoint: Endpoint::Doh {
                host: Host::Name("dns.home.example".to_owned()),
                port: 443,
                path: "/q".to_owned(),
                method: DohMethod::Get
            },
            addresses: vec!["192.0.2.1".parse().unwrap()],
            ca_file: Some(folder.path().join("home.pem")),
            pins: vec![[1; 32]],
            weight: 7,
            trust_ad: true,
        }
    );
    assert_eq!(settings.groups[0].strategy, StrategyKind::Weighted);
    assert_eq!(
        settings.groups[1],
        GroupSpec {
            name: "office".to_owned(),
            members: vec![2, 0],
            strategy: StrategyKind::Failover,
            own: true
        }
    );
    assert_eq!(
        settings.routes,
        [RouteSpec {
            domains: vec!["corp.example".parse().unwrap(), "10.in-addr.arpa".parse().unwrap()],
            types: vec!["A".parse().unwrap(), "HTTPS".parse().unwrap()],
            group: 1
        }]
    );
    assert_eq!(
        settings.cache,
        CacheSettings {
            max_size: 1_000_000,
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(7200),
            negative_max_ttl: Duration::ZERO,
            max_stale: Duration::from_secs(172_800),
            stale_after: Duration::from_millis(500),
            prefetch: false,
            failure_ttl: Duration::from_secs(2),
            failure_max_ttl: Duration::from_secs(300),
        }
    );
    assert_eq!(
        settings.privacy,
        PrivacySettings {
            client_subnet: ClientSubnet::Fixed("192.0.2.0/24".parse().unwrap()),
            padding: false
        }
    );
    assert_eq!(
        settings.rebinding,
        RebindingSettings { protect: false, allow: vec!["plex.direct".parse().unwrap()] }
    );
    assert_eq!(settings.any, AnyQueries::Forward);
    assert_eq!(
        settings.tls,
        TlsSettings {
            roots: Roots::System,
            extra_ca_dir: Some(folder.path().join("roots")),
            min_version: TlsVersion::Tls13
        }
    );
    assert_eq!(
        settings.timeouts,
        Timeouts {
            query: Duration::from_secs(3),
            connect: Duration::from_secs(1),
            attempt: AttemptTime { least: Duration::from_millis(100), most: Duration::from_millis(1500) },
        }
    );
    let allowed: Vec<String> = settings.access.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["192.168.0.0/16", "2001:db8::1/128"]);
    assert_eq!(
        settings.limits,
        Limits {
            max_inflight: 100,
            max_inflight_per_client: 100,
            udp_batch: 8,
            tcp_idle: Duration::from_secs(20),
            retry_percent: 0,
            hedge_percent: 1,
            ..Limits::default()
        }
    );
    assert_eq!(
        settings.log,
        LogSettings {
            level: LogLevel::Debug,
            format: LogFormat::Json,
            queries: QueryLog::File(folder.path().join("queries.log")),
            query_lines: QueryLines {
                format: QueryFormat::Text,
                clients: QueryClients::Masked,
                names: QueryNames::Hashed,
            },
        }
    );
    assert_eq!(settings.control, ControlSocket::At(folder.path().join("run/veildns.sock")));
    assert_eq!(settings.metrics, Some("127.0.0.1:9153".parse().unwrap()));
}
