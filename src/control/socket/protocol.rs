//! What is said over the control socket: one object of JSON a line each way, with the version of this protocol in it, and
//! bounded. Pure. Who may say it is the file's mode's to decide, and what is done about it `serve`'s.

use crate::cli::Level;
use crate::wire::name::Name;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::fmt;
use thiserror::Error;

/// The version of this protocol: another one is refused, whatever it asks.
pub(in crate::control) const VERSION: u64 = 1;

/// A request is no longer: the longest name takes about a thousand octets, escapes and all.
pub const LONGEST_REQUEST: usize = 4096;

/// An answer is no longer.
pub(super) const LONGEST_ANSWER: usize = 8 << 20;

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To know how things are.
    Status,
    /// That the cache forget.
    Flush(Flush),
    /// To know what the cache keeps of a name.
    Dump(Name),
    /// Another log level.
    LogLevel(LevelChange),
}

/// What the cache is to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Everything.
    All,
    /// A name.
    Name(Name),
    /// A name and all below it.
    Subtree(Name),
}

/// Which log level is to be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelChange {
    /// This one.
    To(Level),
    /// The configured one.
    Reset,
}

impl fmt::Display for LevelChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(level) => {
                f.write_str(level.to_possible_value().as_ref().map_or("", |value| value.get_name()))
            }
            Self::Reset => f.write_str("reset"),
        }
    }
}

/// Why a request is not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Misunderstanding {
    /// It is of another version of the protocol.
    #[error("this gateway speaks version {VERSION} of the control protocol")]
    Version,
    /// It is not what it should be.
    #[error("{0}")]
    Form(&'static str),
}

impl Misunderstanding {
    /// Returns the word for programs.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Form(_) => "request",
        }
    }
}

impl Request {
    /// Writes it, without the end of the line.
    pub fn encode(&self) -> String {
        let mut value = match self {
            Self::Status => json!({ "do": "status" }),
            Self::Flush(Flush::All) => json!({ "do": "cache-flush" }),
            Self::Flush(Flush::Name(name)) => json!({ "do": "cache-flush", "name": name.to_string() }),
            Self::Flush(Flush::Subtree(name)) => {
                json!({ "do": "cache-flush", "name": name.to_string(), "subtree": true })
            }
            Self::Dump(name) => json!({ "do": "cache-dump", "name": name.to_string() }),
            Self::LogLevel(change) => json!({ "do": "log-level", "level": change.to_string() }),
        };
        if let Some(object) = value.as_object_mut() {
            object.insert("veildns".to_owned(), VERSION.into());
        }
        value.to_string()
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is no request, or one of another version.
    pub fn decode(line: &[u8]) -> Result<Self, Misunderstanding> {
        let value: Value = serde_json::from_slice(line)
            .map_err(|_| Misunderstanding::Form("a request is one object of JSON"))?;
        if value.get("veildns").and_then(Value::as_u64) != Some(VERSION) {
            return Err(Misunderstanding::Version);
        }
        let name = || match value.get("name") {
            None | Some(Value::Null) => Ok(None),
            Some(name) => {
                let name = name.as_str().and_then(|text| text.parse::<Name>().ok());
                name.map(Some).ok_or(Misunderstanding::Form("name is no domain name"))
            }
        };
        match value.get("do").and_then(Value::as_str) {
            Some("status") => Ok(Self::Status),
            Some("cache-flush") => {
                let subtree = value.get("subtree").and_then(Value::as_bool) == Some(true);
                Ok(Self::Flush(match name()? {
                    None => Flush::All,
                    Some(name) if subtree => Flush::Subtree(name),
                    Some(name) => Flush::Name(name),
                }))
            }
            Some("cache-dump") => {
                name()?.map(Self::Dump).ok_or(Misunderstanding::Form("cache-dump needs a name"))
            }
            Some("log-level") => {
                let level = value.get("level").and_then(Value::as_str).and_then(level_change);
                level.map(Self::LogLevel).ok_or(Misunderstanding::Form("level is not known"))
            }
            Some(_) | None => Err(Misunderstanding::Form("what to do is not known")),
        }
    }
}

/// Reads a level or the wish for the configured one.
fn level_change(word: &str) -> Option<LevelChange> {
    match word {
        "reset" => Some(LevelChange::Reset),
        _ => Level::from_str(word, false).ok().map(LevelChange::To),
    }
}

/// Writes an answer, with the end of the line.
pub(super) fn encode_answer(result: Result<Value, Misunderstanding>) -> String {
    let answer = match result {
        Ok(value) => json!({ "veildns": VERSION, "version": env!("CARGO_PKG_VERSION"), "result": value }),
        Err(error) => {
            let (code, text) = (error.code(), error.to_string());
            let error = json!({ "code": code, "text": text });
            json!({ "veildns": VERSION, "version": env!("CARGO_PKG_VERSION"), "error": error })
        }
    };
    format!("{answer}\n")
}

/// Why an answer is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// It is not of this protocol.
    #[error("what answers there is not veildns")]
    Foreign,
    /// It is of another version of the protocol.
    #[error(
        "veildns {version} runs there and speaks version {theirs} of the control protocol, this program speaks version \
         {VERSION}: restart the gateway after an upgrade, or use the program that it was started from"
    )]
    OtherVersion {
        /// The gateway's version.
        version: String,
        /// Its version of the protocol.
        theirs: u64,
    },
    /// The gateway did not take the request.
    #[error("the gateway refused: {0}")]
    Refused(String),
}

/// Reads an answer.
pub fn decode_answer(line: &[u8]) -> Result<Value, AnswerError> {
    let mut value: Value = serde_json::from_slice(line).map_err(|_| AnswerError::Foreign)?;
    let theirs = value.get("veildns").and_then(Value::as_u64).ok_or(AnswerError::Foreign)?;
    if theirs != VERSION {
        let version = value.get("version").and_then(Value::as_str).unwrap_or("of another version").to_owned();
        return Err(AnswerError::OtherVersion { version, theirs });
    }
    if let Some(result) = value.get_mut("result") {
        return Ok(result.take());
    }
    let text = value.get("error").and_then(|error| error.get("text")).and_then(Value::as_str);
    Err(AnswerError::Refused(text.unwrap_or("it does not say why").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_meant() {
        let name: Name = "Www.Exa\\032ple.".parse().unwrap();
        for request in [
            Request::Status,
            Request::Flush(Flush::All),
            Request::Flush(Flush::Name(name.clone())),
            Request::Flush(Flush::Subtree(name.clone())),
            Request::Dump(name),
            Request::LogLevel(LevelChange::To(Level::Debug)),
            Request::LogLevel(LevelChange::Reset),
        ] {
            let line = request.encode();
            assert!(!line.contains('\n') && line.len() < LONGEST_REQUEST);
            assert_eq!(Request::decode(line.as_bytes()), Ok(request), "{line}");
        }
    }

    #[test]
    fn the_longest_name_fits_a_request() {
        let label = "\\255".repeat(63);
        let name: Name = format!("{label}.{label}.{label}.{}", "\\255".repeat(61)).parse().unwrap();
        let line = Request::Flush(Flush::Subtree(name)).encode();
        assert!(line.len() < LONGEST_REQUEST, "{}", line.len());
    }

    #[test]
    fn nonsense_and_other_versions_are_told_apart() {
        for (line, code) in [
            ("", "request"),
            ("{", "request"),
            ("[]", "version"),
            ("{}", "version"),
            (r#"{"do":"status"}"#, "version"),
            (r#"{"veildns":2,"do":"status"}"#, "version"),
            (r#"{"veildns":1}"#, "request"),
            (r#"{"veildns":1,"do":"explode"}"#, "request"),
            (r#"{"veildns":1,"do":"cache-dump"}"#, "request"),
            (r#"{"veildns":1,"do":"cache-flush","name":"a..b"}"#, "request"),
            (r#"{"veildns":1,"do":"cache-flush","name":7}"#, "request"),
            (r#"{"veildns":1,"do":"log-level","level":"loud"}"#, "request"),
        ] {
            assert_eq!(Request::decode(line.as_bytes()).unwrap_err().code(), code, "{line}");
        }
    }

    #[test]
    fn an_answer_is_a_result_a_refusal_or_of_another_version() {
        let good = encode_answer(Ok(json!({ "a": 1 })));
        assert!(good.ends_with('\n') && good.matches('\n').count() == 1);
        assert_eq!(decode_answer(good.as_bytes()), Ok(json!({ "a": 1 })));
        let refused = encode_answer(Err(Misunderstanding::Form("no")));
        assert_eq!(decode_answer(refused.as_bytes()), Err(AnswerError::Refused("no".to_owned())));
        let other = br#"{"veildns":9,"version":"3.0.0","result":{}}"#;
        let Err(AnswerError::OtherVersion { version, theirs }) = decode_answer(other) else {
            panic!("taken")
        };
        assert_eq!((version.as_str(), theirs), ("3.0.0", 9));
        assert_eq!(decode_answer(b"SSH-2.0\r\n"), Err(AnswerError::Foreign));
        assert_eq!(decode_answer(b"{}"), Err(AnswerError::Foreign));
    }
}
