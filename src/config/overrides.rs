//! What stands outside the files: environment variables (`VEILDNS_CACHE__MAX_SIZE=256MiB`) and flags, turned into the
//! same tree as a file, so that one reader and one kind of error serve all three. What is *not* here: reading the
//! process's environment; it is handed in.

use super::document::{Entry, Node, Place, Table, Text, Value, merge};
use super::error::{Fault, Faults, nearest};
use super::keys::{self, Kind};
use std::path::Path;

/// What begins the name of every variable.
const PREFIX: &str = "VEILDNS_";

/// Settings from outside the files. Flags win over variables, variables over files, files over what a command brings along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Variables that begin with `VEILDNS_`, in order of their names.
    environment: Vec<(String, String)>,
    /// What flags say; of two for one key the later wins.
    flags: Vec<Assignment>,
    /// What a command means when nobody says anything else: under the files.
    defaults: Vec<Assignment>,
}

/// A key and its value, from a flag or built into a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// What an error shows in front of the value: `--listen`.
    shown: &'static str,
    /// The key, with dots.
    key: &'static str,
    /// What it is to be.
    value: Assigned,
}

/// What a key is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// A string, which may be wrong: the error then points at it.
    Text(String),
    /// Strings; an empty list sets nothing.
    List(Vec<String>),
    /// A whole number.
    Integer(i64),
}

impl Overrides {
    /// Takes the variables that are ours out of `variables` (such as `std::env::vars_os` made text).
    pub fn with_environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |(name, value): &(String, String)| {
            name.strip_prefix(PREFIX).is_some_and(|rest| !is_of_kubernetes(rest, value))
        };
        self.environment = variables.into_iter().filter(ours).collect();
        self.environment.sort();
        self
    }

    /// Sets a key by a flag; `shown` is how an error calls it.
    #[must_use]
    pub fn with_flag(mut self, shown: &'static str, key: &'static str, value: Assigned) -> Self {
        self.flags.push(Assignment { shown, key, value });
        self
    }

    /// Sets what a key is when neither file nor variable nor flag says anything.
    #[must_use]
    pub fn with_default(mut self, key: &'static str, value: Assigned) -> Self {
        self.defaults.push(Assignment { shown: key, key, value });
        self
    }

    /// Puts what the command brings along into `root`, before any file.
    pub(super) fn apply_defaults(&self, root: &mut Table, texts: &mut Vec<Text>) {
        for default in &self.defaults {
            default.apply("built in", root, texts);
        }
    }

    /// Puts the overrides over `root`, each with a text of its own for its errors.
    pub(super) fn apply(&self, root: &mut Table, texts: &mut Vec<Text>, faults: &mut Faults) {
        for (name, value) in &self.environment {
            apply_variable(name, value, root, texts, faults);
        }
        for flag in &self.flags {
            flag.apply("command line", root, texts);
        }
    }
}

impl Assignment {
    /// Sets the key; each item of a list has a text of its own, as each time a flag is given.
    fn apply(&self, source: &str, root: &mut Table, texts: &mut Vec<Text>) {
        let mut node = |shown: String, value| {
            let start = self.shown.len() + 1;
            Node { place: add_text(source, format!("{} {shown}", self.shown), start, texts), value }
        };
        let node = match &self.value {
            Assigned::Text(text) => node(text.clone(), Value::Text(text.clone())),
            Assigned::Integer(number) => node(number.to_string(), Value::Integer(*number)),
            Assigned::List(items) => {
                let nodes: Vec<Node> =
                    items.iter().map(|item| node(item.clone(), Value::Text(item.clone()))).collect();
                let Some(place) = nodes.first().map(|first| first.place.clone()) else { return };
                Node { place, value: Value::List(nodes) }
            }
        };
        let place = node.place.clone();
        let path: Vec<&str> = self.key.split('.').collect();
        set(root, &path, node, &place);
    }
}

/// True for a variable that Kubernetes sets in every container beside a service called "veildns". None of our keys begins so.
fn is_of_kubernetes(rest: &str, value: &str) -> bool {
    rest.starts_with("SERVICE_")
        || rest.starts_with("PORT_")
        || (rest == "PORT" && (value.starts_with("tcp://") || value.starts_with("udp://")))
}

/// Adds a text and returns the place of what stands in it from `start` on.
fn add_text(name: &str, text: String, start: usize, texts: &mut Vec<Text>) -> Place {
    let span = start..text.len();
    texts.push(Text { name: name.to_owned(), text, folder: Path::new("").to_path_buf() });
    Place { text: texts.len() - 1, span }
}

/// Puts one variable over `root`, or says why it cannot be.
fn apply_variable(name: &str, value: &str, root: &mut Table, texts: &mut Vec<Text>, faults: &mut Faults) {
    let place = add_text("environment", format!("{name}={value}"), name.len() + 1, texts);
    let key_place = Place { text: place.text, span: 0..name.len() };
    let path = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
    let segments: Vec<&str> = path.split("__").collect();
    let Some(key) = keys::find(&segments).filter(|_| segments.first() != Some(&"route")) else {
        faults.push(unknown_variable(name, &segments, &key_place));
        return;
    };
    let value = match key.kind {
        Kind::List => Value::List(items(value, &place)),
        Kind::Integer => value.trim().parse().map_or_else(|_| Value::Text(value.to_owned()), Value::Integer),
        Kind::Boolean => value.trim().parse().map_or_else(|_| Value::Text(value.to_owned()), Value::Boolean),
        Kind::Text => Value::Text(value.to_owned()),
    };
    set(root, &segments, Node { place, value }, &key_place);
}

/// Cuts a list at its commas; each item knows where it stands. An empty value is an empty list.
fn items(value: &str, place: &Place) -> Vec<Node> {
    if value.trim().is_empty() {
        return Vec::new();
    }
    let mut start = place.span.start;
    let mut nodes = Vec::new();
    for part in value.split(',') {
        let span = start..start + part.len();
        start = span.end + 1;
        nodes.push(Node {
            place: Place { text: place.text, span },
            value: Value::Text(part.trim().to_owned()),
        });
    }
    nodes
}

/// Sets one key, making the tables above it.
fn set(root: &mut Table, path: &[&str], node: Node, key: &Place) {
    let mut node = node;
    for segment in path.iter().skip(1).rev() {
        let place = node.place.clone();
        let entry = Entry { key: key.clone(), node };
        node = Node { place, value: Value::Table(Table::from([((*segment).to_owned(), entry)])) };
    }
    if let Some(first) = path.first() {
        merge(root, Table::from([((*first).to_owned(), Entry { key: key.clone(), node })]));
    }
}

/// Makes the error for a variable that is no key, with the nearest that is.
fn unknown_variable(name: &str, segments: &[&str], place: &Place) -> Fault {
    let fault = Fault::at(place, format!("unknown variable {name}"));
    if segments.first() == Some(&"route") {
        return fault.with_label("routes are written in a file");
    }
    let known: Vec<String> = keys::KEYS
        .iter()
        .filter(|key| !key.name.contains('*'))
        .map(|key| key.name.replace('.', "__"))
        .collect();
    match nearest(&segments.join("__"), known.iter().map(String::as_str)) {
        Some(near) => fault.with_label(format!("did you mean {PREFIX}{}?", near.to_uppercase())),
        None => fault.with_help("a key of the file in capitals, with two underscores for a dot"),
    }
}
