//! Whatever is done to a cache, what is found is what a simple model says.

use super::*;

/// Something done to a cache. Keys are numbers below 8: two names, DO, partition.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Store { key: u8, ttl: u32, age: u32 },
    Deny { key: u8, minimum: u32 },
    Fail { key: u8 },
    Look { key: u8 },
    Purge { name: u8 },
    Wait { secs: u64 },
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let secs = prop_oneof![Just(0), 1..20u32, 250..400u32, Just(u32::MAX)];
    let one = prop_oneof![
        3 => (0..8u8, secs.clone(), prop_oneof![Just(0), 0..300u32])
            .prop_map(|(key, ttl, age)| Deed::Store { key, ttl, age }),
        1 => (0..8u8, secs).prop_map(|(key, minimum)| Deed::Deny { key, minimum }),
        1 => (0..8u8).prop_map(|key| Deed::Fail { key }),
        6 => (0..8u8).prop_map(|key| Deed::Look { key }),
        1 => (0..2u8).prop_map(|name| Deed::Purge { name }),
        3 => prop_oneof![1..10u64, 100..400u64, 490..500u64, Just(1000)].prop_map(|secs| Deed::Wait { secs }),
    ];
    proptest::collection::vec(one, 1..120)
}

/// What the model knows of a key: when it was stored, for how long, and as what.
#[derive(Clone, Copy, Debug)]
struct Known {
    at: u64,
    secs: u64,
    serial: u32,
}

proptest! {
    #[test]
    fn what_is_found_is_what_was_stored_and_never_too_old(deeds in deeds()) {
        let settings = CacheSettings {
            max_ttl: Duration::from_secs(350),
            negative_max_ttl: Duration::from_secs(260),
            max_stale: Duration::from_secs(500),
            ..settings()
        };
        let bench = Bench::new(&settings);
        let names = ["a.example.", "b.example."].map(name);
        let key_of = |number: u8| {
            let base = key(&names[usize::from(number & 1)]);
            let partition = PartitionId(u32::from(number >> 2));
            KeyRef { variant: Variant { dnssec_ok: number & 2 != 0, partition, ..base.variant }, ..base }
        };
        let mut model: HashMap<u8, Known> = HashMap::new();
        let mut clock = 0;
        for (deed, serial_now) in deeds.into_iter().zip(1..) {
            let now = bench.now + Duration::from_secs(clock);
            match deed {
                Deed::Wait { secs } => clock += secs,
                Deed::Store { key, ttl, age } => {
                    let answer = address(&names[usize::from(key & 1)], ttl, serial_now);
                    let returned = bench.cache.store(&key_of(key), answer, Provenance { age_secs: age, ..Provenance::default() }, now);
                    let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
                    let secs = u64::from(ttl.saturating_sub(age).min(350));
                    prop_assert!(u64::from(returned.min_ttl().unwrap().0) == secs);
                    model.insert(key, Known { at: clock, secs, serial: serial_now });
                }
                Deed::Deny { key, minimum } => {
                    let name = names[usize::from(key & 1)].clone();
                    // The serial is the MINIMUM: the last four octets.
                    let denial = Message::about(name, RecordType::A).rcode(Rcode::NXDOMAIN).soa(300, minimum);
                    bench.cache.store(&key_of(key), denial.stored(), Provenance::default(), now);
                    let secs = if minimum > i32::MAX as u32 { 0 } else { u64::from(minimum.min(260)) };
                    model.insert(key, Known { at: clock, secs, serial: minimum });
                }
                Deed::Fail { key } => {
                    let reply = StoredAnswer::failure(&key_of(key).question, Rcode::SERVFAIL, None);
                    bench.cache.store_failure(&key_of(key), reply, now);
                }
                Deed::Purge { name } => {
                    bench.cache.purge(Some(names[usize::from(name)].view()));
                    model.retain(|key, _| key & 1 != name);
                }
                Deed::Look { key } => {
                    let known = model.get(&key).filter(|known| known.secs > 0);
                    let age = known.map_or(u64::MAX, |known| clock - known.at);
                    let (found, is_fresh) = match bench.cache.lookup(&key_of(key), bench.cache.moment(now)) {
                        Lookup::Fresh(found) | Lookup::FreshRefreshDue(found) => (found, true),
                        Lookup::Stale(found) => (found, false),
                        Lookup::Miss => {
                            prop_assert!(known.is_none_or(|known| age >= known.secs + 500));
                            continue;
                        }
                    };
                    if found.answer.rcode() == Rcode::SERVFAIL {
                        prop_assert!(found.failure && is_fresh && found.age_secs < 60);
                        prop_assert!(known.is_none_or(|known| age >= known.secs + 500));
                        continue;
                    }
                    let known = known.unwrap();
                    prop_assert!(!(is_fresh && found.failure), "a fresh answer is no failure");
                    prop_assert_eq!(serial(&found.answer), known.serial);
                    prop_assert_eq!(u64::from(found.age_secs), age);
                    prop_assert_eq!(is_fresh, age < known.secs);
                    prop_assert!(age < known.secs + 500);
                    let ttl = u64::from(found.answer.min_ttl().unwrap().0);
                    prop_assert!(ttl.saturating_sub(age) <= known.secs.saturating_sub(age), "TTL beyond its life");
                }
            }
        }
    }
}
