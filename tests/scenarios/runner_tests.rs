//! The runner itself: it must fail where it should, and say where.

use super::{LEAST, play, play_all};
use std::fs;

/// A scenario that holds.
const GOOD: &str = r#"# Says what it proves.

servers a b

0s     a answers in 20ms: A 198.51.100.1 ttl 60
0s     b answers in 20ms: A 198.51.100.2 ttl 60
0s     alice asks WWW.example
0s     a is asked WWW.example A without do
20ms   alice gets NOERROR from a: A 198.51.100.1 ttl 60
1s     a is up
end    a was asked once
end    b was asked never
"#;

/// The report on `GOOD` with one part replaced.
fn report(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    play("x", &GOOD.replace(old, new)).unwrap_or_else(|| panic!("`{new}` passes"))
}

#[test]
fn what_holds_passes() {
    assert_eq!(play("x", GOOD), None);
}

#[test]
fn a_wrong_expectation_fails_with_its_line() {
    let table = [
        ("gets NOERROR", "gets SERVFAIL", "x:9:", "not SERVFAIL"),
        ("from a: A", "from b: A", "x:9:", "not from b"),
        ("from a: A", "from nowhere: A", "x:9:", "neither a source nor a server"),
        ("from a: A", "from a ede 3: A", "x:9:", "not ede 3"),
        ("from a: A", "from a ecs 192.0.2.0/24 scope 0: A", "x:9:", "with ECS data None"),
        ("from a: A", "from a ad: A", "x:9:", "ad"),
        ("from a: A", "from a tc: A", "x:9:", "tc"),
        ("from a: A 198.51.100.1", "from a: A 198.51.100.3", "x:9:", "not [A 198.51.100.3 ttl 60]"),
        ("1 ttl 60\n1s", "1 ttl 61\n1s", "x:9:", "not [A 198.51.100.1 ttl 61]"),
        ("from a: A 198.51.100.1 ttl 60\n1s", "from a empty\n1s", "x:9:", "not []"),
        ("without do", "with do", "x:8:", "a is asked without do"),
        ("without do", "with ecs 192.0.2.0/24", "x:8:", "with ECS data None"),
        ("a is asked WWW", "a is asked other", "x:8:", "a is not asked"),
        ("a is up", "a is down", "x:10:", "a is up"),
        ("a was asked once", "a was asked twice", "x:11:", "a was asked 1 times"),
        ("a was asked once", "a was asked 2..3 times", "x:11:", "a was asked 1 times"),
        ("a was asked once", "a was probed once", "x:11:", "a was probed 0 times"),
        (
            "a was asked once",
            "counter veildns_queries_total{transport=\"udp\"} is 2",
            "x:11:",
            "veildns_queries_total{transport=\"udp\"} is 1",
        ),
    ];
    for (old, new, line, text) in table {
        let report = report(old, new);
        assert!(report.contains(line) && report.contains(text), "`{new}`: {report}");
    }
}

#[test]
fn a_reply_that_comes_late_or_early_fails() {
    assert!(
        report(
            "A 198.51.100.1 ttl 60\n0s     b",
            "A 198.51.100.1 ttl 60\n0s     a answers in 80ms: A 198.51.100.1 ttl 60\n0s     b"
        )
        .contains("too late, at 80ms")
    );
    assert!(
        report("answers in 20ms: A 198.51.100.1", "answers in 10ms: A 198.51.100.1")
            .contains("too early, at 10ms")
    );
    assert!(report("20ms   alice", "21ms..30ms   alice").contains("too early"));
    assert!(
        report("0s     a is asked", "0s..19ms  bob asks x.example\n0s     a is asked")
            .contains("span of time")
    );
}

#[test]
fn a_server_that_is_asked_and_should_not_be_fails() {
    let report = report("a answers in 20ms: A 198.51.100.1 ttl 60", "a fails with closed-connection");
    assert!(report.contains("x:12: b was asked 1 times"), "{report}");
}

#[test]
fn what_no_line_awaits_fails() {
    let reply = report("20ms   alice gets NOERROR from a: A 198.51.100.1 ttl 60\n", "");
    assert!(reply.contains("x:7: alice gets NOERROR") && reply.contains("no line awaits it"), "{reply}");
    let nothing = report("0s     alice asks", "0s     bob asks");
    assert!(nothing.contains("x:9: alice gets nothing"), "{nothing}");
    let uncounted = GOOD
        .replace("0s     a is asked WWW.example A without do\n", "")
        .replace("end    a was asked once\n", "");
    assert!(play("x", &uncounted).unwrap().contains("no line says how often a was asked"));
    let idle = GOOD.replace("0s     a answers in 20ms: A 198.51.100.1 ttl 60\n", "");
    assert!(play("x", &idle).unwrap().contains("no line said what it does"));
}

#[test]
fn an_unknown_word_is_an_error_with_its_line() {
    let table = [
        ("servers a b", "server a b", "x:3:", "`servers …` comes first"),
        ("servers a b", "servers", "x:3:", "with names"),
        ("a answers in 20ms: A 198.51.100.1", "a answrs in 20ms: A 198.51.100.1", "x:5:", "records"),
        (
            "a answers in 20ms: A 198.51.100.1",
            "a answers in 20: A 198.51.100.1",
            "x:5:",
            "`20` is no duration",
        ),
        ("a answers in 20ms: A 198.51.100.1", "a answers in 20ms: A 198.51.100", "x:5:", "no IPv4 address"),
        ("ttl 60\n0s     b", "tll 60\n0s     b", "x:5:", "`tll` is not understood"),
        ("198.51.100.1 ttl 60\n0s     b", "198.51.100.1\n0s     b", "x:5:", "has no ttl"),
        (
            "a answers in 20ms: A 198.51.100.1 ttl 60",
            "a fails with magic",
            "x:5:",
            "`magic` is no way to fail",
        ),
        ("a answers in 20ms: A 198.51.100.1 ttl 60", "a is gone", "x:5:", "is not understood"),
        (
            "alice asks WWW.example",
            "alice asks WWW.example AAAAA",
            "x:7:",
            "`AAAAA` is nothing that a query has",
        ),
        ("alice asks WWW.example", "alice shouts WWW.example", "x:7:", "`shouts`"),
        ("gets NOERROR", "gets NOERRROR", "x:9:", "`NOERRROR` is no response code"),
        ("gets NOERROR from a", "gets NOERROR form a", "x:9:", "`form` is nothing that a reply has"),
        ("from a: A", "from a ecs 192.0.2.0/24: A", "x:9:", "has a scope"),
        ("1s     a", "1x     a", "x:10:", "`1x` is no time"),
        ("1s     a", "1ms    a", "x:10:", "times go forward"),
        ("once\nend", "once or so\nend", "x:11:", "`or` is not understood here"),
        ("once\nend", "sometimes\nend", "x:11:", "no count"),
        ("end    b", "end    b is asked\nend    b", "x:12:", "at the `end`"),
        ("# Says what it proves.", "", "x:1:", "begins with a comment"),
        ("servers a b", "servers a b\nconfig\n  colour = 1", "x:0:", "colour"),
        ("1s     a is up", "1s     gateway reloads\n  [cache]\n  size = 1", "x:10:", "size"),
        ("1s     a is up", "1s     a is up\n  x = 1", "x:10:", "indented"),
    ];
    for (old, new, line, text) in table {
        let report = report(old, new);
        assert!(report.contains(line) && report.contains(text), "`{new}`: {report}");
    }
}

#[test]
fn a_range_stands_for_as_many_lines() {
    let many = "# Many.\n\nservers a\n\n0s a answers in 5ms: A 198.51.100.1 ttl 60\n\
        0s every 10ms      guest{1..20} asks n{1..20}.example\n\
        5ms every 10ms  guest{1..20} gets NOERROR for n{1..20}.example from a\n\
        end a was asked 20 times\n";
    assert_eq!(play("x", many), None);
    assert!(play("x", &many.replace("gets NOERROR for n{1..20}", "gets NOERROR for n{2..21}")).is_some());
    assert!(
        play("x", &many.replace("n{1..20}.example\n5ms", "n{1..19}.example\n5ms")).unwrap().contains("x:6:")
    );
}

#[test]
fn a_folder_with_too_few_files_fails() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..LEAST {
        fs::write(folder.path().join(format!("{number:02}.scenario")), GOOD).unwrap();
    }
    assert_eq!(play_all(folder.path()), Vec::<String>::new());
    fs::remove_file(folder.path().join("07.scenario")).unwrap();
    let reports = play_all(folder.path());
    assert!(reports.len() == 1 && reports[0].contains("holds 39 scenarios"), "{reports:?}");
    fs::write(folder.path().join("07.scenario"), GOOD.replace("gets NOERROR", "gets NXDOMAIN")).unwrap();
    let reports = play_all(folder.path());
    assert!(reports.len() == 1 && reports[0].contains("07.scenario:9:"), "{reports:?}");
}
