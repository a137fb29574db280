//! One table of the configuration, read key by key: a wrong value becomes an error with the key's name, and reading
//! goes on. What is *not* here: what a value may be (`values`) and unknown keys (`keys`).

use super::document::{Node, Table, Value};
use super::error::{Fault, Faults};

/// A table with its name; a table that is not there has no keys.
#[derive(Clone, Debug)]
pub(crate) struct Section<'a> {
    /// With dots; empty for the top level.
    name: String,
    /// `None`: not written.
    table: Option<&'a Table>,
}

impl<'a> Section<'a> {
    /// Takes the top level.
    pub(crate) fn root(table: &'a Table) -> Self {
        Self { name: String::new(), table: Some(table) }
    }

    /// Takes a table by itself: one of `[[route]]`.
    pub(crate) fn named(name: &str, table: &'a Table) -> Self {
        Self { name: name.to_owned(), table: Some(table) }
    }

    /// Takes the table under `key`. A value that is no table counts as absent: `keys` reports it.
    pub(crate) fn child(&self, key: &str) -> Self {
        let table = match self.node(key).map(|node| &node.value) {
            Some(Value::Table(table)) => Some(table),
            Some(
                Value::Text(_) | Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Foreign(_),
            )
            | None => None,
        };
        Self { name: self.key_name(key), table }
    }

    /// Returns the keys and values of a table of tables, such as `[server.*]`.
    pub(crate) fn children(&self) -> impl Iterator<Item = (&'a str, Section<'a>, &'a Node)> + use<'a> {
        let parent = self.clone();
        let keys = parent.table.into_iter().flat_map(|table| table.iter());
        keys.map(move |(key, entry)| (key.as_str(), parent.child(key), &entry.node))
    }

    /// Returns the value of a key as it stands.
    pub(crate) fn node(&self, key: &str) -> Option<&'a Node> {
        self.table?.get(key).map(|entry| &entry.node)
    }

    /// Reads a key. `None`: absent, or wrong and reported.
    pub(crate) fn read<T>(
        &self,
        key: &str,
        faults: &mut Faults,
        parse: impl Fn(&Node) -> Result<T, Fault>,
    ) -> Option<T> {
        let node = self.node(key)?;
        faults.keep(parse(node).map_err(|fault| fault.of_key(&self.key_name(key))))
    }

    /// Reads a list; every wrong item is reported. `None`: absent, or no list and reported.
    pub(crate) fn read_list<T>(
        &self,
        key: &str,
        faults: &mut Faults,
        parse: impl Fn(&Node) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let name = self.key_name(key);
        let items = faults.keep(self.node(key)?.list().map_err(|fault| fault.of_key(&name)))?;
        let parsed = items.iter().map(|item| parse(item).map_err(|fault| fault.of_key(&name)));
        Some(parsed.filter_map(|result| faults.keep(result)).collect())
    }

    /// Returns a key's name with that of its table.
    pub(crate) fn key_name(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}
