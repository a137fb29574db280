//! The operator's file, turned into what the program runs on. `load` reads files, environment and flags into one
//! tree (`document`), finds unknown keys (`keys`), and gives every value its meaning (`resolve`). After a `Settings`
//! exists nothing validates again. What is *not* here: acting on any of it.

pub(crate) mod document;
pub(crate) mod endpoint;
pub mod error;
mod file;
mod groups;
pub mod keys;
mod limits;
pub mod otel;
pub mod overrides;
pub mod presets;
mod report;
mod resolve;
mod section;
mod servers;
pub mod settings;
pub mod summary;
pub(crate) mod units;
pub(crate) mod values;

use document::{Table, Text};
use error::{ConfigErrors, Fault, Faults};
use overrides::Overrides;
use settings::{Origin, Settings};
use std::io;
use std::path::{Path, PathBuf};

/// Where a configuration is looked for when none is named; the first that is there is used.
const USUAL_PLACES: [&str; 2] = ["./veildns.toml", "/etc/veildns/veildns.toml"];

/// The directory beside a file whose `*.toml` are merged after it.
const DROP_IN_DIR: &str = "veildns.d";

/// What to load: kept by the program, so that a reload reads the same places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// `--config`; without it the usual places are tried, then the built-in default is used.
    pub path: Option<PathBuf>,
    /// What wins over the files.
    pub overrides: Overrides,
}

/// Loads a configuration.
///
/// # Errors
/// Everything that is wrong with it, all files, variables and flags together.
pub fn load(source: &Source) -> Result<Settings, ConfigErrors> {
    // One that we may not look at counts as there: reading it then says so.
    let there = |path: &PathBuf| !matches!(path.try_exists(), Ok(false));
    let usual = || USUAL_PLACES.iter().map(PathBuf::from).find(there);
    let path = source.path.clone().or_else(usual);
    let mut loading = Loading::default();
    source.overrides.apply_defaults(&mut loading.root, &mut loading.texts);
    if let Some(path) = &path {
        loading.add_file(path);
        loading.add_drop_ins(&folder_of(path).join(DROP_IN_DIR));
    }
    loading.finish(path.map_or(Origin::BuiltIn, Origin::File), &source.overrides)
}

/// Reads a configuration from a text, as if it stood in a file in `folder`. For tests, fuzzing and tools.
///
/// # Errors
/// Everything that is wrong with it.
pub fn from_text(text: &str, folder: &Path) -> Result<Settings, ConfigErrors> {
    let mut loading = Loading::default();
    loading.add_text("configuration", text.to_owned(), folder.to_path_buf());
    loading.finish(Origin::BuiltIn, &Overrides::default())
}

/// Reads a configuration from environment variables alone. For fuzzing and tools.
///
/// # Errors
/// Everything that is wrong with it.
pub fn from_variables(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Settings, ConfigErrors> {
    Loading::default().finish(Origin::BuiltIn, &Overrides::default().with_environment(variables))
}

/// Returns the folder that a file's relative paths start at.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_path_buf(),
        None => PathBuf::from("."),
    }
}

/// What has been read so far.
#[derive(Default)]
struct Loading {
    /// Everything merged so far.
    root: Table,
    /// What it was read from.
    texts: Vec<Text>,
    /// Those of the texts that are files.
    files: Vec<PathBuf>,
    /// What is wrong with it.
    faults: Faults,
}

impl Loading {
    /// Merges a file; one that cannot be read is an error.
    fn add_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                self.add_text(&path.display().to_string(), text, folder_of(path));
                self.files.push(path.to_owned());
            }
            Err(error) => self.unreadable(path, &error),
        }
    }

    /// Merges the `*.toml` of a directory in the order of their names. A directory that is not there is empty.
    fn add_drop_ins(&mut self, folder: &Path) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.unreadable(folder, &error),
        };
        let mut files = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => files.push(entry.path()),
                Err(error) => self.unreadable(folder, &error),
            }
        }
        files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        for path in files {
            self.add_file(&path);
        }
    }

    /// Merges a text.
    fn add_text(&mut self, name: &str, text: String, folder: PathBuf) {
        let table = file::parse(self.texts.len(), &text, &mut self.faults);
        // Checked before the merge: a misspelt key in one file is not excused by the next.
        keys::check(&table, &mut self.faults);
        self.texts.push(Text { name: name.to_owned(), text, folder });
        document::merge(&mut self.root, table);
    }

    /// Reports what cannot be read.
    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.faults.push(Fault::without_place(format!("cannot read {}: {error}", path.display())));
    }

    /// Puts the overrides on top and makes settings of it all.
    fn finish(mut self, origin: Origin, overrides: &Overrides) -> Result<Settings, ConfigErrors> {
        overrides.apply(&mut self.root, &mut self.texts, &mut self.faults);
        let settings = resolve::resolve(&self.root, &self.texts, origin, &mut self.faults);
        let settings = Settings { files: self.files, ..settings };
        if self.faults.is_empty() { Ok(settings) } else { Err(ConfigErrors::new(self.faults, self.texts)) }
    }
}

#[cfg(test)]
mod tests;
