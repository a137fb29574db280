//! How long answers live, and what is told apart.

use super::*;

#[test]
fn an_answer_is_fresh_then_stale_then_gone() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    assert_eq!(bench.look(&www), ("miss", 0));
    bench.store(&www, 300, 1);
    assert_eq!(bench.look(&www), ("fresh", 0));
    bench.advance(299);
    assert_eq!(bench.look(&www), ("fresh", 299));
    bench.advance(1);
    assert_eq!(bench.look(&www), ("stale", 300));
    bench.advance(86_399);
    assert_eq!(bench.look(&www), ("stale", 86_699));
    bench.advance(1);
    assert_eq!(bench.look(&www), ("miss", 0));
}

#[test]
fn without_max_stale_nothing_stale_is_served() {
    let mut bench = Bench::new(&CacheSettings { max_stale: Duration::ZERO, ..settings() });
    let www = name("www.example.");
    bench.store(&www, 300, 1);
    bench.advance(300);
    assert_eq!(bench.word(&www), "miss");
}

#[test]
fn letter_case_does_not_tell_names_apart() {
    let bench = Bench::new(&settings());
    // Longer than a word of the hash, case at every place; `Name` is lower-cased, so the wire form is written here.
    let shouted = b"\x0bWWW-ABCXYZ1\x07ExamplE\x03OrG\x00";
    let question =
        QuestionRef { name: NameRef::parse(shouted).unwrap(), rtype: RecordType::A, class: Class::IN };
    let whispered = name("www-abcxyz1.example.org.");
    bench.store(&whispered, 300, 7);
    let found = bench.cache.lookup(&KeyRef { question, ..key(&whispered) }, bench.cache.moment(bench.now));
    assert!(matches!(found, Lookup::Fresh(found) if serial(&found.answer) == 7));
}

#[test]
fn type_class_do_cd_and_partition_are_told_apart() {
    let bench = Bench::new(&settings());
    let www = name("www.example.");
    let base = key(&www);
    let variants = [
        Variant { dnssec_ok: true, ..base.variant },
        Variant { checking_disabled: true, ..base.variant },
        Variant { dnssec_ok: true, checking_disabled: true, ..base.variant },
        Variant { partition: PartitionId(1), ..base.variant },
        Variant { partition: PartitionId(u32::MAX), ..base.variant },
    ];
    let mut keys: Vec<KeyRef<'_>> = variants.map(|variant| KeyRef { variant, ..base }).to_vec();
    keys.push(KeyRef { question: QuestionRef { rtype: RecordType::AAAA, ..base.question }, ..base });
    keys.push(KeyRef { question: QuestionRef { class: Class::CH, ..base.question }, ..base });
    bench.store(&www, 300, 1);
    for key in &keys {
        assert!(matches!(bench.cache.lookup(key, bench.cache.moment(bench.now)), Lookup::Miss), "{key:?}");
    }
    for (key, serial) in keys.iter().take(variants.len()).zip(2..) {
        bench.cache.store(key, address(&www, 300, serial), Provenance::default(), bench.now);
    }
    for (key, expected) in keys.iter().take(variants.len()).zip(2..) {
        let found = bench.cache.lookup(key, bench.cache.moment(bench.now));
        assert!(matches!(found, Lookup::Fresh(found) if serial(&found.answer) == expected), "{key:?}");
    }
    assert_eq!(bench.serial(&www), Some(1));
}

#[test]
fn what_is_returned_has_its_ttls_within_bounds() {
    let bench = Bench::new(&CacheSettings {
        min_ttl: Duration::from_secs(60),
        max_ttl: Duration::from_secs(600),
        ..settings()
    });
    let www = name("www.example.");
    for (ttl, expected) in [(5, 60), (300, 300), (7200, 600)] {
        assert_eq!(bench.store(&www, ttl, 1).min_ttl(), Some(Ttl(expected)));
        let Lookup::Fresh(found) = bench.cache.lookup(&key(&www), bench.cache.moment(bench.now)) else {
            panic!()
        };
        assert_eq!(found.answer.min_ttl(), Some(Ttl(expected)));
    }
}

#[test]
fn http_age_shortens_the_life_and_the_ttl() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    let returned = bench.cache.store(
        &key(&www),
        address(&www, 300, 1),
        Provenance { age_secs: 200, ..Provenance::default() },
        bench.now,
    );
    assert_eq!(returned.min_ttl(), Some(Ttl(100)));
    bench.advance(99);
    assert_eq!(bench.word(&www), "fresh");
    bench.advance(1);
    assert_eq!(bench.word(&www), "stale");
}

#[test]
fn an_error_is_returned_but_neither_stored_nor_a_reason_to_forget() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    let refused = || Message::ask("www.example.", RecordType::A).rcode(Rcode::REFUSED).a(300).stored();
    let returned = bench.cache.store(&key(&www), refused(), Provenance::default(), bench.now);
    assert_eq!(returned.rcode(), Rcode::REFUSED);
    assert_eq!(bench.word(&www), "miss");
    bench.store(&www, 300, 1);
    bench.advance(400);
    bench.cache.store(&key(&www), refused(), Provenance::default(), bench.now);
    assert_eq!(bench.look(&www), ("stale", 400));
}

#[test]
fn a_fresh_denial_ends_a_stale_answer_even_when_it_may_not_be_kept() {
    for minimum in [300, 0] {
        let mut bench = Bench::new(&settings());
        let ghost = name("ghost.example.");
        bench.store(&ghost, 300, 1);
        bench.advance(301);
        assert_eq!(bench.word(&ghost), "stale");
        let denial = Message::ask("ghost.example.", RecordType::A).rcode(Rcode::NXDOMAIN).soa(900, minimum);
        bench.cache.store(&key(&ghost), denial.stored(), Provenance::default(), bench.now);
        match bench.cache.lookup(&key(&ghost), bench.cache.moment(bench.now)) {
            Lookup::Fresh(found) => assert_eq!((found.answer.rcode(), minimum), (Rcode::NXDOMAIN, 300)),
            Lookup::Miss => assert_eq!(minimum, 0),
            Lookup::FreshRefreshDue(_) | Lookup::Stale(_) => panic!("{minimum}"),
        }
    }
}

#[test]
fn use_does_not_lengthen_a_life() {
    let mut bench = Bench::new(&settings());
    let www = name("www.example.");
    bench.store(&www, 60, 1);
    for _ in 0..60 {
        assert_ne!(bench.word(&www), "stale");
        bench.advance(1);
    }
    assert_eq!(bench.word(&www), "stale");
}

#[test]
fn a_refresh_is_due_for_what_was_asked_twice_until_one_was_begun() {
    let mut bench = Bench::new(&settings());
    let [often, seldom] = ["often.example.", "seldom.example."].map(name);
    for life in 0..2 {
        bench.store(&often, 300, life);
        bench.store(&seldom, 300, life);
        assert_eq!([bench.word(&often), bench.word(&often), bench.word(&seldom)], ["fresh"; 3]);
        bench.advance(269);
        assert_eq!(bench.word(&often), "fresh", "not yet its last tenth");
        bench.advance(1);
        assert_eq!([bench.word(&often), bench.word(&often)], ["refresh"; 2]);
        bench.cache.refresh_begins(&key(&often));
        assert_eq!(bench.word(&often), "fresh", "one is enough");
        bench.cache.refresh_is_over(&key(&often));
        assert_eq!(bench.word(&often), "refresh", "it was left out");
        bench.cache.refresh_begins(&key(&often));
        assert_eq!(bench.word(&seldom), "fresh", "was asked for once only");
        bench.advance(10);
    }
}

#[test]
fn without_prefetch_no_refresh_is_due() {
    let mut bench = Bench::new(&CacheSettings { prefetch: false, ..settings() });
    let www = name("www.example.");
    bench.store(&www, 300, 1);
    assert_eq!([bench.word(&www), bench.word(&www)], ["fresh"; 2]);
    bench.advance(290);
    assert_eq!(bench.word(&www), "fresh");
}
