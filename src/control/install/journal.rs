//! Does what a plan says, all of it or nothing; and undoes what a manifest says was done. Every change is one rename, so
//! that at no moment a file is missing or half written.

use super::InstallError;
use super::host::{Host, State};
use super::manifest::{self, Entry, Manifest};
use super::plan::{Action, Content, Plan, Step};
use super::services::Services;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What was done, the last thing last.
struct Journal<'a> {
    /// The machine.
    host: &'a Host,
    /// How each is undone.
    done: Vec<Done>,
}

/// One change, with what undoes it.
enum Done {
    /// A directory was made.
    Directory(PathBuf),
    /// A file or link was made where nothing was.
    Created(PathBuf),
    /// What was at the first path is at the second.
    Moved(PathBuf, PathBuf),
    /// What was there was ours.
    Updated(PathBuf, Content),
}

/// Does what the plan says. On failure everything is as it was.
///
/// # Errors
/// What failed.
pub(super) fn apply(host: &Host, plan: &Plan, services: &mut dyn Services) -> Result<(), InstallError> {
    let mut journal = Journal { host, done: Vec::new() };
    let result = journal.apply(plan, services);
    result.map_err(|error| {
        let left = journal.roll_back();
        // A service that runs is stopped or put back; that it does not answer is what we report already.
        let _ = match plan.earlier {
            Some(_) => services.start(),
            None => services.stop(),
        };
        let _ = services.follow(plan.manifest.decider);
        if left.is_empty() { error } else { InstallError::NotPutBack { left, source: Box::new(error) } }
    })
}

impl Journal<'_> {
    /// Does everything in order: directories and manifest, the service, then what programs ask.
    fn apply(&mut self, plan: &Plan, services: &mut dyn Services) -> Result<(), InstallError> {
        for directory in &plan.manifest.directories {
            self.directory(directory)?;
        }
        let path = Path::new(manifest::PATH);
        let manifest = Content::File(plan.manifest.text().into_bytes(), 0o644);
        let action = if plan.earlier.is_some() { Action::Update } else { Action::Create };
        self.put(path, &manifest, action).map_err(at(path))?;
        self.steps(&plan.service)?;
        services.start()?;
        self.steps(&plan.resolver)?;
        services.follow(plan.manifest.decider)
    }

    /// Makes a directory, unless it is there.
    fn directory(&mut self, path: &Path) -> Result<(), InstallError> {
        match fs::create_dir(self.host.at(path)) {
            Ok(()) => {
                // Whatever the umask of the operator is: others have to get through.
                let open = fs::Permissions::from_mode(0o755);
                self.done.push(Done::Directory(path.to_owned()));
                fs::set_permissions(self.host.at(path), open).map_err(at(path))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.host.at(path).is_dir() => {
                Ok(())
            }
            Err(error) => Err(at(path)(error)),
        }
    }

    /// Does some steps.
    fn steps(&mut self, steps: &[Step]) -> Result<(), InstallError> {
        steps
            .iter()
            .filter(|step| step.changes())
            .try_for_each(|step| self.put(&step.path, &step.content, step.action).map_err(at(&step.path)))
    }

    /// Puts content at a path.
    fn put(&mut self, path: &Path, content: &Content, action: Action) -> io::Result<()> {
        let place = self.host.at(path);
        match action {
            Action::Create => {
                replace(&place, content)?;
                self.done.push(Done::Created(path.to_owned()));
            }
            Action::Replace => {
                let backup = manifest::backup(path);
                // A second name for what is there: the first is then taken over in one step.
                fs::hard_link(&place, self.host.at(&backup))?;
                self.done.push(Done::Moved(path.to_owned(), backup));
                replace(&place, content)?;
            }
            Action::Update => {
                let earlier = read(&place)?;
                replace(&place, content)?;
                self.done.push(Done::Updated(path.to_owned(), earlier));
            }
            Action::Leave | Action::Keep => {}
        }
        Ok(())
    }

    /// Undoes everything that was done; returns what could not be undone.
    fn roll_back(&mut self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        while let Some(done) = self.done.pop() {
            let undone = match &done {
                Done::Directory(path) => fs::remove_dir(self.host.at(path)),
                Done::Created(path) => fs::remove_file(self.host.at(path)),
                Done::Moved(path, backup) => restore(&self.host.at(backup), &self.host.at(path)),
                Done::Updated(path, content) => replace(&self.host.at(path), content),
            };
            let (Done::Directory(path) | Done::Created(path) | Done::Moved(path, _) | Done::Updated(path, _)) =
                done;
            if undone.is_err() {
                left.push(path);
            }
        }
        left
    }
}

/// What becomes of an entry of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes.
    Remove,
    /// What was there before comes back.
    Restore,
    /// It is as it was before.
    Nothing,
    /// Somebody changed it: it stays, and so does what was there before.
    Keep,
}

/// Says what becomes of each entry.
///
/// # Errors
/// A path that cannot be read.
pub(super) fn fates<'a>(host: &Host, manifest: &'a Manifest) -> Result<Vec<(&'a Entry, Fate)>, InstallError> {
    let fate = |entry: &'a Entry| {
        let now = host.state(&entry.path).map_err(at(&entry.path))?;
        let saved = entry.backup().map(|backup| host.state(&backup)).transpose().map_err(at(&entry.path))?;
        let is_saved = saved.is_some_and(|saved| saved != State::Absent);
        Ok((entry, fate(entry, &now, is_saved)))
    };
    manifest.entries.iter().rev().map(fate).collect()
}

/// Says what becomes of an entry that is `now` so.
fn fate(entry: &Entry, now: &State, is_saved: bool) -> Fate {
    let is_ours = *now == entry.after;
    match (&entry.before, now) {
        (State::Absent, State::Absent) => Fate::Nothing,
        (State::Absent, _) if is_ours => Fate::Remove,
        (State::Absent, _) => Fate::Keep,
        (_, State::Absent) if is_saved => Fate::Restore,
        (_, _) if is_ours && is_saved => Fate::Restore,
        // An installation that was cut short had come no further.
        (before, now) if before == now && !is_saved => Fate::Nothing,
        (before, now) if before == now => Fate::Restore,
        (_, _) => Fate::Keep,
    }
}

/// Undoes what the manifest says, in the order of the fates; then the manifest and the directories go.
///
/// # Errors
/// What failed; what is undone stays undone, and the manifest stays for another try.
pub(super) fn undo(
    host: &Host,
    manifest: &Manifest,
    fates: &[(&Entry, Fate)],
    services: &mut dyn Services,
) -> Result<(), InstallError> {
    let (resolver, service): (Vec<_>, Vec<_>) =
        fates.iter().partition(|(entry, _)| belongs_to_resolver(&entry.path));
    undo_all(host, &resolver)?;
    services.follow(manifest.decider)?;
    // The service of a package is the package's.
    let is_ours = manifest.entry(Path::new(super::plan::UNIT)).is_some();
    if is_ours {
        services.stop()?;
    }
    undo_all(host, &service)?;
    if is_ours {
        services.forget()?;
    }
    let path = Path::new(manifest::PATH);
    fs::remove_file(host.at(path)).map_err(at(path))?;
    for directory in manifest.directories.iter().rev() {
        // One that is in use by now stays.
        let _ = fs::remove_dir(host.at(directory));
    }
    Ok(())
}

/// Returns true for what points programs at the gateway: it has to go before the gateway does.
fn belongs_to_resolver(path: &Path) -> bool {
    ["resolv.conf", "resolved.conf.d", "NetworkManager", "dhcp"]
        .iter()
        .any(|part| path.iter().any(|component| component == *part))
}

/// Undoes some entries.
fn undo_all(host: &Host, fates: &[&(&Entry, Fate)]) -> Result<(), InstallError> {
    for (entry, fate) in fates {
        let place = host.at(&entry.path);
        let undone = match (fate, entry.backup()) {
            (Fate::Restore, Some(backup)) => restore(&host.at(&backup), &place),
            (Fate::Remove, _) => fs::remove_file(place),
            (Fate::Restore | Fate::Nothing | Fate::Keep, _) => Ok(()),
        };
        undone.map_err(at(&entry.path))?;
    }
    Ok(())
}

/// Brings a backup back. Two names of one file stay both after a rename (rename(2)): then the backup's goes.
fn restore(backup: &Path, place: &Path) -> io::Result<()> {
    fs::rename(backup, place)?;
    match fs::remove_file(backup) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns what is at a place.
fn read(place: &Path) -> io::Result<Content> {
    let metadata = fs::symlink_metadata(place)?;
    if metadata.file_type().is_symlink() {
        return fs::read_link(place).map(Content::Link);
    }
    Ok(Content::File(fs::read(place)?, metadata.permissions().mode() & 0o7777))
}

/// Puts content at a place in one step, whatever was there.
fn replace(place: &Path, content: &Content) -> io::Result<()> {
    let mut name = place.as_os_str().to_owned();
    name.push(".veildns-new");
    let new = PathBuf::from(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = match content {
        Content::Link(target) => symlink(target, &new),
        Content::File(octets, mode) => write(&new, octets, *mode),
    };
    let placed = written.and_then(|()| fs::rename(&new, place));
    if placed.is_err() {
        let _ = fs::remove_file(&new);
    }
    placed
}

/// Writes a new file, on the disk before it gets its name.
fn write(new: &Path, octets: &[u8], mode: u32) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(new)?;
    file.write_all(octets)?;
    // Whatever the umask says.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Makes the error of a path.
fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError + use<> {
    let path = path.to_owned();
    |source| InstallError::Path { path, source }
}
