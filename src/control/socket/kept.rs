//! What the cache keeps of a name, as a value of JSON, and forgetting it. Walks through the cache step by step and lets the
//! rest of this thread go on in between; the workers wait for a single step at most.

use super::protocol::Flush;
use crate::app::core::Core;
use crate::cache::walk::{Chosen, Kept, Progress, Standing, Walk};
use crate::resolver::snapshot::Snapshot;
use crate::wire::name::Name;
use crate::wire::record::{MessageText, RecordText, message_text};
use crate::wire::response::ResponseRef;
use serde_json::{Value, json};

/// Entries of one name that are shown: more than there are types, times the ways to ask.
const MOST_ENTRIES: usize = 512;

/// No further entry is shown after so much text. The largest answer there can be, 64 KiB full of records with compressed
/// names, is 6 MB of it, and goes through alone (`LONGEST_ANSWER`).
const MOST_TEXT: usize = 1 << 20;

/// Says what the cache keeps of a name.
pub(super) async fn dump(core: &Core, name: &Name) -> Value {
    let (mut walk, mut found) = (Walk::default(), Vec::new());
    let names = Chosen::One(name.view());
    while core.cache().look_around(&mut walk, names, crate::clock::now(), &mut found) == Progress::More {
        if found.len() > MOST_ENTRIES {
            break;
        }
        tokio::task::yield_now().await;
    }
    found.sort_by_key(|kept| {
        let question = kept.answer.question();
        (question.rtype.0, question.class.0, kept.variant.dnssec_ok, kept.variant.checking_disabled)
    });
    let snapshot = core.resolver().snapshot();
    let mut shown = Vec::new();
    let mut octets = 0_usize;
    for kept in found.iter().take(MOST_ENTRIES) {
        if octets > MOST_TEXT {
            break;
        }
        let entry = entry(kept, &snapshot);
        octets = octets.saturating_add(entry.to_string().len());
        shown.push(entry);
    }
    json!({ "name": name.to_string(), "truncated": shown.len() < found.len(), "entries": shown })
}

/// Makes the cache forget; says how many answers that were.
pub(super) async fn flush(core: &Core, what: &Flush) -> Value {
    let names = match what {
        Flush::All => return json!({ "removed": core.cache().purge(None) }),
        Flush::Name(name) => Chosen::One(name.view()),
        Flush::Subtree(name) => Chosen::Within(name.view()),
    };
    let (mut walk, mut removed) = (Walk::default(), 0_usize);
    loop {
        let (progress, gone) = core.cache().forget_around(&mut walk, names);
        removed = removed.saturating_add(gone);
        if progress == Progress::Done {
            return json!({ "removed": removed });
        }
        tokio::task::yield_now().await;
    }
}

/// Describes one entry.
fn entry(kept: &Kept, snapshot: &Snapshot) -> Value {
    let question = kept.answer.question();
    let (standing, left_secs) = match kept.standing {
        Standing::Fresh { left_secs } => ("fresh", Some(left_secs)),
        Standing::Stale { left_secs } => ("stale", Some(left_secs)),
        Standing::Failure => ("failure", kept.failing_secs),
        Standing::Spent => ("spent", None),
    };
    let message = kept.answer.message();
    let MessageText { answer, authority, .. } = message_text(message).unwrap_or_default();
    let records = |section: &[RecordText]| -> Vec<Value> {
        section.iter().map(|record| record_json(record, kept)).collect()
    };
    json!({
        "type": question.rtype.to_string(),
        "class": question.class.to_string(),
        "dnssec_ok": kept.variant.dnssec_ok,
        "checking_disabled": kept.variant.checking_disabled,
        "group": snapshot.group_of(kept.variant.partition),
        "standing": standing,
        "seconds_left": left_secs,
        "age_seconds": kept.age_secs,
        "failing_seconds": kept.failing_secs,
        "rcode": kept.answer.rcode().to_string(),
        "authentic_data": ResponseRef::parse(message).is_ok_and(|response| response.header().authentic_data()),
        "ede": kept.answer.ede_code().map(|code| code.0),
        "octets": message.len(),
        "answer": records(&answer),
        "authority": records(&authority),
    })
}

/// Describes a record, with what is left of its TTL.
fn record_json(record: &RecordText, kept: &Kept) -> Value {
    let RecordText { owner, ttl, class, rtype, rdata } = record;
    let ttl = ttl.saturating_sub(kept.age_secs);
    json!({ "name": owner, "ttl": ttl, "class": class, "type": rtype, "data": rdata })
}
