//! From the text of a file to a `Script`. README.md beside this file says the same for people. A word that is not known
//! is an error with its line; nothing is skipped.

use super::script::{Action, Answer, Ask, Asked, Does, Fault, Reply, Rule, Script, Step, Tally, Way, When};
use super::words::{self, Words};
use std::time::Duration;

/// Reads a file.
pub fn read(text: &str) -> Result<Script, Vec<Fault>> {
    let mut reader = Reader::default();
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        let block = lines[at + 1..].iter().take_while(|line| line.starts_with(' ')).count();
        reader.line(at + 1, lines[at], &lines[at + 1..at + 1 + block]);
        at += 1 + block;
    }
    reader.finish()
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reader {
    /// The first comment.
    about: Vec<String>,
    /// The servers.
    servers: Option<Vec<String>>,
    /// The configuration as written.
    config: Option<String>,
    /// Lines with a time.
    steps: Vec<Step>,
    /// The time of the latest line.
    clock: Duration,
    /// A line of the end was read.
    ended: bool,
    /// What could not be read.
    faults: Vec<Fault>,
}

/// A time column.
#[derive(Clone, Copy)]
struct Column {
    /// The time of the line, or of its first repetition.
    when: When,
    /// Between repetitions.
    step: Duration,
}

impl Reader {
    /// Reads a line and what is indented below it.
    fn line(&mut self, number: usize, line: &str, block: &[&str]) {
        let bare = line.trim();
        if let Some(comment) = bare.strip_prefix('#') {
            if self.servers.is_none() {
                self.about.push(comment.trim().to_owned());
            }
        } else if !bare.is_empty()
            && let Err(text) = self.statement(number, line, block)
        {
            self.faults.push(Fault::new(number, text));
        } else if bare.is_empty() && !block.is_empty() {
            self.faults.push(Fault::new(number + 1, "indented lines follow only `config` and `reloads`"));
        }
    }

    /// Reads a line that says something.
    fn statement(&mut self, number: usize, line: &str, block: &[&str]) -> Result<(), String> {
        if line.starts_with(' ') {
            return Err("indented lines follow only `config` and `reloads`".to_owned());
        }
        let mut words = Words::of(line)?;
        if words.take("servers") {
            return self.servers(words);
        }
        if words.take("config") {
            words.end()?;
            let twice = self.config.replace(block.join("\n")).is_some();
            return if twice { Err("`config` stands there twice".to_owned()) } else { Ok(()) };
        }
        if self.servers.is_none() {
            return Err("the line `servers …` comes first".to_owned());
        }
        self.steps(number, line, block)
    }

    /// Reads the names of the servers.
    fn servers(&mut self, mut words: Words) -> Result<(), String> {
        let mut names = Vec::new();
        while words.peek().is_some() {
            names.push(words.next("server")?);
        }
        if names.is_empty() || self.servers.replace(names).is_some() {
            return Err("`servers` stands there once, with names".to_owned());
        }
        Ok(())
    }

    /// Reads a line with a time, which may stand for several.
    fn steps(&mut self, number: usize, line: &str, block: &[&str]) -> Result<(), String> {
        let lines = expanded(line)?;
        let mut first = None;
        for (index, line) in lines.iter().enumerate() {
            let mut words = Words::of(line)?;
            let column = self.column(&mut words)?;
            let shift = column.step * u32::try_from(index).unwrap();
            let when = match *first.get_or_insert(column.when) {
                When::At(at) => When::At(at + shift),
                When::Between(from, to) => When::Between(from + shift, to + shift),
                When::End => When::End,
            };
            let action = self.action(&mut words, block)?;
            words.end()?;
            check(when, &action)?;
            self.steps.push(Step { line: number, when, action });
        }
        if let Some(when @ (When::At(_) | When::Between(..))) = first {
            if when.from() < self.clock || self.ended {
                return Err("times go forward".to_owned());
            }
            self.clock = when.from();
        } else {
            self.ended = true;
        }
        Ok(())
    }

    /// Reads the time: `20ms`, `+20ms` after the line before, `1s..2s`, `end`; then perhaps `every 500ms`.
    fn column(&self, words: &mut Words) -> Result<Column, String> {
        let word = words.next("time")?;
        let wrong = || format!("`{word}` is no time");
        let when = if word == "end" {
            When::End
        } else if let Some(later) = word.strip_prefix('+') {
            When::At(self.clock + words::duration(later).ok_or_else(wrong)?)
        } else if let Some((from, to)) = word.split_once("..") {
            let (from, to) = (words::duration(from), words::duration(to));
            When::Between(from.ok_or_else(wrong)?, to.ok_or_else(wrong)?)
        } else {
            When::At(words::duration(&word).ok_or_else(wrong)?)
        };
        let step =
            if words.take("every") { words.read("duration", words::duration)? } else { Duration::ZERO };
        Ok(Column { when, step })
    }

    /// Reads who does what.
    fn action(&self, words: &mut Words, block: &[&str]) -> Result<Action, String> {
        let who = words.next("server or client")?;
        if !block.is_empty() && who != "gateway" {
            return Err("indented lines follow only `config` and `reloads`".to_owned());
        }
        let servers = self.servers.as_deref().unwrap_or_default();
        match who.as_str() {
            "gateway" => match words.next("`reloads` or `stops`")?.as_str() {
                "reloads" => Ok(Action::Reload { config: configuration(servers, &block.join("\n")) }),
                "stops" => Ok(Action::Stop),
                other => Err(format!("a gateway `reloads` or `stops`, not `{other}`")),
            },
            "network" if words.take("changes") => Ok(Action::Network),
            "counter" => {
                let series = words.next("name of a metric")?;
                if !words.take("is") {
                    return Err("`is` is missing".to_owned());
                }
                Ok(Action::Counter { series, value: words.read("number", words::range)? })
            }
            _ if servers.contains(&who) => server(who, words),
            _ => client(who, words),
        }
    }

    /// Ends the file.
    fn finish(mut self) -> Result<Script, Vec<Fault>> {
        if self.about.iter().all(String::is_empty) {
            self.faults.push(Fault::new(1, "the file begins with a comment that says what it proves"));
        }
        if self.steps.is_empty() && self.faults.is_empty() {
            self.faults.push(Fault::new(0, "nothing happens"));
        }
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        self.steps.sort_by_key(|step| step.when.from());
        let servers = self.servers.unwrap_or_default();
        let config = configuration(&servers, &self.config.unwrap_or_default());
        Ok(Script { about: self.about.join(" "), servers, config, steps: self.steps })
    }
}

/// Only what is awaited has room for its time, and only what is looked up can wait for the end.
fn check(when: When, action: &Action) -> Result<(), String> {
    let awaited = matches!(action, Action::Gets { .. } | Action::IsAsked { .. });
    let sampled = matches!(action, Action::Count { .. } | Action::State { .. } | Action::Counter { .. });
    match when {
        When::Between(..) if !awaited => Err("only `gets` and `is asked` have a span of time".to_owned()),
        When::End if !sampled => Err("at the `end` are only counts, states and counters".to_owned()),
        When::At(_) | When::Between(..) | When::End => Ok(()),
    }
}

/// Repeats a line for each value of its `{1..3}`; several of them in a line go in step.
fn expanded(line: &str) -> Result<Vec<String>, String> {
    let mut parts = vec![];
    let mut rest = line;
    let mut count = None;
    while let Some((before, tail)) = rest.split_once('{') {
        let Some((inside, after)) = tail.split_once('}') else { break };
        let bounds = inside.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let Some((first, last)) = bounds else {
            parts.push((format!("{before}{{{inside}}}"), None));
            rest = after;
            continue;
        };
        let many = (first..=last).count();
        if many == 0 || *count.get_or_insert(many) != many {
            return Err("the ranges of a line have the same length".to_owned());
        }
        parts.push((before.to_owned(), Some(first)));
        rest = after;
    }
    let write = |index: usize| {
        let numbered = parts.iter().map(|(before, first): &(String, Option<usize>)| {
            let number = first.map_or_else(String::new, |first| (first + index).to_string());
            format!("{before}{number}")
        });
        numbered.collect::<String>() + rest
    };
    Ok((0..count.unwrap_or(1)).map(write).collect())
}

/// Adds to a configuration what it leaves out: the servers, all in the default group, asked in their order.
fn configuration(servers: &[String], text: &str) -> String {
    let has = |key: &str| text.lines().any(|line| line.trim().starts_with(key));
    let mut whole = String::new();
    if !has("upstreams") {
        whole += &format!("upstreams = {servers:?}\n");
    }
    if !has("strategy") {
        whole += "strategy = \"failover\"\n";
    }
    whole += text;
    for (index, name) in servers.iter().enumerate().filter(|(_, name)| !has(&format!("[server.{name}]"))) {
        let address = index + 1;
        whole += &format!(
            "\n[server.{name}]\nurl = \"tls://{name}.example\"\naddresses = [\"192.0.2.{address}\"]\n"
        );
    }
    whole
}

/// Reads what a server does or what is said of it.
fn server(server: String, words: &mut Words) -> Result<Action, String> {
    let records = words.split_records();
    let verb = words.next("verb")?;
    if records.is_some() && verb != "answers" {
        return Err("only `answers` and `gets` have records".to_owned());
    }
    let behave = |rule| Ok(Action::Behave { server: server.clone(), rule });
    match verb.as_str() {
        "answers" => behave(answering(words, records)?),
        "fails" => behave(failing(words)?),
        "sends" if words.take("garbage") => behave(rule(Does::Garbage, words)?),
        "is" if words.take("silent") => behave(rule(Does::Silent, words)?),
        "is" if words.take("unreachable") => behave(rule(Does::Unreachable, words)?),
        "is" if words.take("up") => Ok(Action::State { server, up: true }),
        "is" if words.take("down") => Ok(Action::State { server, up: false }),
        "is" if words.take("asked") => Ok(Action::IsAsked { server, query: asked(words)? }),
        "was" => {
            let what = match words.next("`asked`, `probed`, `reset` or `drained`")?.as_str() {
                "asked" => Tally::Asked,
                "probed" => Tally::Probed,
                "reset" => Tally::Reset,
                "drained" => Tally::Drained,
                other => return Err(format!("a server was asked, probed, reset or drained, not `{other}`")),
            };
            Ok(Action::Count { server, what, times: words::times(words)? })
        }
        other => Err(format!("`{server} {other} …` is not understood")),
    }
}

/// Reads for which queries a server does something, and how long it takes.
fn rule(does: Does, words: &mut Words) -> Result<Rule, String> {
    let mut rule = Rule { name: None, rtype: None, delay: Duration::ZERO, does };
    while scope(&mut rule, words)? {}
    Ok(rule)
}

/// Reads `in 20ms` or `for slow.example AAAA`; false when the next word is neither.
fn scope(rule: &mut Rule, words: &mut Words) -> Result<bool, String> {
    if words.take("in") {
        rule.delay = words.read("duration", words::duration)?;
    } else if words.take("for") {
        rule.rtype = words.take_if(words::rtype);
        if rule.rtype.is_none() {
            rule.name = Some(words.next("name")?);
            rule.rtype = words.take_if(words::rtype);
        }
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Reads what a server answers.
fn answering(words: &mut Words, records: Option<Words>) -> Result<Rule, String> {
    let records = records.map(words::records).transpose()?.unwrap_or_default();
    if let Some(record) = records.iter().find(|record| record.ttl.is_none()) {
        return Err(format!("`{}` has no ttl", record.text));
    }
    let mut answer = Answer { records, ..Answer::default() };
    answer.rcode = words.take_if(words::rcode).unwrap_or(0);
    let mut rule = rule(Does::Silent, words)?;
    while let Some(word) = words.peek().map(str::to_owned) {
        words.next("word")?;
        match word.as_str() {
            "ede" => answer.ede = Some(words.read("number", |word| word.parse().ok())?),
            "ad" => answer.authentic = true,
            "tc" => answer.truncated = true,
            "question" => answer.question = Some(words.next("name")?),
            "scope" => answer.scope = Some(words.read("number", |word| word.parse().ok())?),
            "age" => answer.age = words.read("duration", words::duration)?,
            other => return Err(format!("`{other}` is nothing that an answer has")),
        }
        while scope(&mut rule, words)? {}
    }
    rule.does = Does::Answer(answer);
    Ok(rule)
}

/// Reads how a server fails.
fn failing(words: &mut Words) -> Result<Rule, String> {
    if !words.take("with") {
        return Err("`with` is missing".to_owned());
    }
    let way = match words.next("way to fail")?.as_str() {
        "refused-connection" => Way::Refused,
        "connect-timeout" => Way::ConnectTimeout,
        "no-address" => Way::NoAddress,
        "tls" => Way::Tls,
        "wrong-certificate" => Way::Certificate,
        "wrong-clock" => Way::Clock,
        "wrong-pin" => Way::Pin,
        "closed-connection" => Way::Closed,
        "content-type" => Way::ContentType,
        "mismatch" => Way::Mismatch,
        "overload" => Way::Overloaded,
        "http" => {
            let status = words.read("status", |word| word.parse().ok())?;
            let retry_after = words.take("retry-after").then(|| words.read("duration", words::duration));
            Way::Http { status, retry_after: retry_after.transpose()? }
        }
        other => return Err(format!("`{other}` is no way to fail")),
    };
    rule(Does::Fail(way), words)
}

/// Reads what a server is asked.
fn asked(words: &mut Words) -> Result<Asked, String> {
    let mut query = Asked::default();
    if words.peek().is_some_and(|word| !["with", "without"].contains(&word)) {
        query.name = Some(words.next("name")?);
        query.rtype = words.take_if(words::rtype);
    }
    loop {
        let with = words.take("with");
        if !with && !words.take("without") {
            return Ok(query);
        }
        match words.next("do, cd, padding or ecs")?.as_str() {
            "do" => query.dnssec = Some(with),
            "cd" => query.checking_disabled = Some(with),
            "padding" => query.padded = Some(with),
            "ecs" if with => query.subnet = Some(Some(words.read("network", words::subnet)?)),
            "ecs" => query.subnet = Some(None),
            other => return Err(format!("a query is with or without do, cd, padding or ecs, not `{other}`")),
        }
    }
}

/// Reads what a client does or gets.
fn client(client: String, words: &mut Words) -> Result<Action, String> {
    match words.next("verb")?.as_str() {
        "asks" => Ok(Action::Ask { client, ask: ask(words)? }),
        "gets" => Ok(Action::Gets { client, reply: reply(words)? }),
        other => Err(format!("`{other}`: no such server; clients ask (`asks`) and get (`gets`)")),
    }
}

/// Reads a query.
fn ask(words: &mut Words) -> Result<Ask, String> {
    let name = words.next("name")?;
    let rtype = words.take_if(words::rtype).unwrap_or(1);
    let mut ask = Ask {
        name,
        rtype,
        tcp: false,
        dnssec: false,
        checking_disabled: false,
        payload: Some(1232),
        subnet: None,
    };
    while let Some(word) = words.peek().map(str::to_owned) {
        words.next("word")?;
        match word.as_str() {
            "do" => ask.dnssec = true,
            "cd" => ask.checking_disabled = true,
            "over" if words.take("tcp") => ask.tcp = true,
            "without" if words.take("edns") => ask.payload = None,
            "payload" => ask.payload = Some(words.read("number", |word| word.parse().ok())?),
            "ecs" => ask.subnet = Some(words.read("network", words::subnet)?),
            other => return Err(format!("`{other}` is nothing that a query has")),
        }
    }
    Ok(ask)
}

/// Reads `192.0.2.0/24 scope 20` into the data of an ECS option.
fn subnet_with_scope(words: &mut Words) -> Result<Vec<u8>, String> {
    let mut subnet = words.read("network", words::subnet)?;
    if !words.take("scope") {
        return Err("the network of a reply has a scope".to_owned());
    }
    subnet[3] = words.read("number", |word| word.parse().ok())?;
    Ok(subnet)
}

/// Reads a reply that is awaited.
fn reply(words: &mut Words) -> Result<Reply, String> {
    let records = words.split_records().map(words::records).transpose()?;
    let rcode = words.read("response code", words::rcode)?;
    let mut reply = Reply { rcode, records, ..Reply::default() };
    while let Some(word) = words.peek().map(str::to_owned) {
        words.next("word")?;
        match word.as_str() {
            "for" => {
                reply.name = Some(words.next("name")?);
                reply.rtype = words.take_if(words::rtype);
            }
            "from" => reply.from = Some(words.next("source or server")?),
            "ede" => {
                let code = words.read("number", |word| word.parse().ok())?;
                reply.ede = Some((code, words.take_if(words::quoted)));
            }
            "ecs" => reply.subnet = Some(subnet_with_scope(words)?),
            "ad" => reply.authentic = true,
            "tc" => reply.truncated = true,
            "empty" if reply.records.is_none() => reply.records = Some(Vec::new()),
            other => return Err(format!("`{other}` is nothing that a reply has")),
        }
    }
    Ok(reply)
}
