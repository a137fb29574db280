//! What an installation will do, worked out before anything is done: which file goes where, what is in its way, what stays
//! as it is. Reads the machine; changes nothing.

use super::InstallError;
use super::contents;
use super::host::{DHCLIENT_HOOKS, Decider, Host, RESOLV_CONF, State, sha256};
use super::manifest::{self, Entry, Manifest};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The program's place.
pub(super) const PROGRAM: &str = "/usr/local/bin/veildns";
/// The unit's place.
pub(super) const UNIT: &str = "/etc/systemd/system/veildns.service";
/// What makes the unit start with the system, as `systemctl enable` would.
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants/veildns.service";
/// The configuration's place.
pub(super) const CONFIG: &str = "/etc/veildns/veildns.toml";
/// The drop-in of systemd-resolved.
const RESOLVED: &str = "/etc/systemd/resolved.conf.d/50-veildns.conf";
/// The drop-in of NetworkManager.
const NETWORK_MANAGER: &str = "/etc/NetworkManager/conf.d/90-veildns.conf";
/// Where resolv.conf leads when programs ask systemd-resolved and nobody else.
const STUB: &str = "../run/systemd/resolve/stub-resolv.conf";

/// What is to be at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A file with these octets and permissions.
    File(Vec<u8>, u32),
    /// A symbolic link to there.
    Link(PathBuf),
}

impl Content {
    /// Returns the state that it makes.
    fn state(&self) -> State {
        match self {
            Self::File(octets, _) => State::File(sha256(octets)),
            Self::Link(target) => State::Link(target.clone()),
        }
    }
}

/// What is done about what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing is there.
    Create,
    /// What is there is kept beside it.
    Replace,
    /// What is there is ours, from an earlier installation.
    Update,
    /// It is there already.
    Leave,
    /// What is there is somebody else's, and stays.
    Keep,
}

/// One path.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// On the machine.
    pub(super) path: PathBuf,
    /// What is to be there.
    pub(super) content: Content,
    /// What is done.
    pub(super) action: Action,
    /// For the operator.
    pub(super) purpose: &'static str,
}

impl Step {
    /// Returns true when something is done.
    pub(super) fn changes(&self) -> bool {
        match self.action {
            Action::Create | Action::Replace | Action::Update => true,
            Action::Leave | Action::Keep => false,
        }
    }
}

/// All of it, in order.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Puts the service in place.
    pub(super) service: Vec<Step>,
    /// Points programs at it, once it answers.
    pub(super) resolver: Vec<Step>,
    /// What will have been done.
    pub(super) manifest: Manifest,
    /// What is told of what was done so far; None before the first installation.
    pub(super) earlier: Option<Manifest>,
}

/// What the operator and the program itself bring along.
#[derive(Clone, Debug)]
pub(super) struct Goods {
    /// The program; None when a package has put it and its unit in place.
    pub(super) program: Option<Vec<u8>>,
    /// The configuration.
    pub(super) configuration: Vec<u8>,
    /// Whether another one that is there has to give way.
    pub(super) choice: Choice,
    /// Where programs will ask.
    pub(super) nameserver: SocketAddr,
}

/// Whose choice a configuration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Ours, for a machine that has none.
    Default,
    /// The operator's.
    Explicit,
}

/// Somebody else's file in our way.
enum Foreign {
    /// Is kept beside ours.
    GivesWay,
    /// Stays.
    Stays,
}

impl Plan {
    /// Works it out.
    ///
    /// # Errors
    /// A path that cannot be read, a directory in the way, resolvers that ask port 53 only.
    pub(super) fn new(host: &Host, goods: Goods) -> Result<Self, InstallError> {
        let earlier = load(host)?;
        let decider = earlier.as_ref().map_or_else(|| host.decider(), |earlier| earlier.decider);
        let mut planner = Planner {
            host,
            manifest: earlier.clone().unwrap_or_else(|| Manifest::new(decider)),
            earlier: earlier.as_ref(),
        };
        planner.directories(Path::new(manifest::PATH))?;
        let service = planner.service(&goods)?;
        let resolver = planner.resolver(decider, goods.nameserver)?;
        let manifest = planner.manifest;
        Ok(Self { service, resolver, manifest, earlier })
    }

    /// Returns true when everything is in place already.
    pub(super) fn is_done(&self) -> bool {
        !self.steps().any(Step::changes)
    }

    /// Iterates over all steps.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.service.iter().chain(&self.resolver)
    }

    /// Returns it for the operator: a line for each path.
    pub(super) fn show(&self) -> String {
        self.steps().map(line).collect()
    }
}

/// Returns a step's lines.
fn line(step: &Step) -> String {
    let (word, note) = match step.action {
        Action::Create => ("write", None),
        Action::Replace => {
            let backup = manifest::backup(&step.path);
            ("replace", Some(format!("the present one becomes {}", backup.display())))
        }
        Action::Update => ("update", None),
        Action::Leave => ("as is", Some("it is there already".to_owned())),
        Action::Keep => ("keep", Some("the present one is yours, and stays".to_owned())),
    };
    let mut text = format!("  {word:<8} {}\n           {}\n", step.path.display(), step.purpose);
    if let Some(note) = note {
        text.push_str(&format!("           {note}\n"));
    }
    text
}

/// Reads the manifest.
pub(super) fn load(host: &Host) -> Result<Option<Manifest>, InstallError> {
    Manifest::load(host).map_err(|source| InstallError::Path { path: manifest::PATH.into(), source })
}

/// Adds steps to a manifest.
struct Planner<'a> {
    /// The machine.
    host: &'a Host,
    /// What will have been done.
    manifest: Manifest,
    /// What was done by an earlier installation.
    earlier: Option<&'a Manifest>,
}

impl Planner<'_> {
    /// Returns the steps that put the service in place.
    fn service(&mut self, goods: &Goods) -> Result<Vec<Step>, InstallError> {
        let mut steps = vec![self.configuration(goods)?];
        let Some(octets) = &goods.program else { return Ok(steps) };
        let program = Content::File(octets.clone(), 0o755);
        steps.push(self.step(PROGRAM, program, Foreign::GivesWay, "the program")?);
        let unit = Content::File(contents::UNIT.as_bytes().to_vec(), 0o644);
        steps.push(self.step(UNIT, unit, Foreign::Stays, "the service")?);
        let link = Content::Link(UNIT.into());
        steps.push(self.step(WANTS, link, Foreign::Stays, "starts the service with the system")?);
        Ok(steps)
    }

    /// Returns the step that puts the configuration in place.
    fn configuration(&mut self, goods: &Goods) -> Result<Step, InstallError> {
        let foreign = match goods.choice {
            Choice::Default => Foreign::Stays,
            Choice::Explicit => Foreign::GivesWay,
        };
        let content = Content::File(goods.configuration.clone(), 0o644);
        let step = self.step(CONFIG, content, foreign, "the configuration")?;
        if step.action == Action::Keep && goods.choice == Choice::Explicit {
            return Err(InstallError::InTheWay { path: step.path });
        }
        Ok(step)
    }

    /// Returns the steps that point programs at the gateway.
    fn resolver(&mut self, decider: Decider, nameserver: SocketAddr) -> Result<Vec<Step>, InstallError> {
        let file = |text: String| Content::File(text.into_bytes(), 0o644);
        if decider != Decider::Resolved && nameserver.port() != 53 {
            return Err(InstallError::NoPort53 { nameserver });
        }
        let give = Foreign::GivesWay;
        let mut steps = Vec::new();
        match decider {
            Decider::Resolved => {
                let drop_in = file(contents::resolved(nameserver));
                steps.push(self.step(
                    RESOLVED,
                    drop_in,
                    give,
                    "systemd-resolved asks veildns for all names",
                )?);
                if self.shows_every_server() {
                    let link = Content::Link(STUB.into());
                    let purpose = "programs ask systemd-resolved only, not the network's servers besides";
                    steps.push(self.step(RESOLV_CONF, link, Foreign::GivesWay, purpose)?);
                }
            }
            Decider::NetworkManager => {
                let drop_in = file(contents::network_manager(nameserver));
                let purpose = "NetworkManager names veildns as the only server";
                steps.push(self.step(NETWORK_MANAGER, drop_in, give, purpose)?);
            }
            Decider::File => {
                let before = self.original(Path::new(RESOLV_CONF));
                let text = file(contents::resolv_conf(&before, nameserver));
                steps.push(self.step(RESOLV_CONF, text, give, "programs ask veildns, and nobody else")?);
                if self.host.at(Path::new(DHCLIENT_HOOKS)).is_dir() {
                    let hook = file(contents::DHCLIENT_HOOK.to_owned());
                    let path = format!("{DHCLIENT_HOOKS}/veildns");
                    let purpose = "dhclient leaves resolv.conf as it is";
                    steps.push(self.step(&path, hook, Foreign::GivesWay, purpose)?);
                }
            }
        }
        Ok(steps)
    }

    /// Returns true when resolv.conf leads to the list of all servers that systemd-resolved knows, the network's among them.
    fn shows_every_server(&self) -> bool {
        let path = Path::new(RESOLV_CONF);
        let is_ours = self.earlier.is_some_and(|earlier| earlier.entry(path).is_some());
        let leads = match self.host.state(path) {
            Ok(State::Link(target)) => target.ends_with("systemd/resolve/resolv.conf"),
            Ok(State::Absent | State::File(_) | State::Directory | State::Other) | Err(_) => false,
        };
        is_ours || leads
    }

    /// Returns the text that was at a path before the first installation.
    fn original(&self, path: &Path) -> String {
        let replaced = self.earlier.and_then(|earlier| earlier.entry(path)?.backup());
        self.host.text(&replaced.unwrap_or_else(|| path.to_owned()))
    }

    /// Plans one path.
    fn step(
        &mut self,
        path: &str,
        content: Content,
        foreign: Foreign,
        purpose: &'static str,
    ) -> Result<Step, InstallError> {
        let path = PathBuf::from(path);
        let now =
            self.host.state(&path).map_err(|source| InstallError::Path { path: path.clone(), source })?;
        let after = content.state();
        let known = self.earlier.and_then(|earlier| earlier.entry(&path));
        let action = match (&now, known) {
            (State::Directory | State::Other, _) => return Err(InstallError::InTheWay { path }),
            (now, _) if *now == after => Action::Leave,
            (State::Absent, _) => Action::Create,
            (now, Some(known)) if *now == known.after || path == Path::new(PROGRAM) => Action::Update,
            (State::File(_) | State::Link(_), Some(_)) => Action::Keep,
            (State::File(_) | State::Link(_), None) => match foreign {
                Foreign::GivesWay => Action::Replace,
                Foreign::Stays => Action::Keep,
            },
        };
        let step = Step { path, content, action, purpose };
        if step.changes() {
            self.directories(&step.path)?;
            self.record(&step, now, after)?;
        }
        Ok(step)
    }

    /// Puts the directories above a path into the manifest, as far as they have to be made.
    fn directories(&mut self, path: &Path) -> Result<(), InstallError> {
        if let Some(path) = self.host.way_out(path) {
            return Err(InstallError::OutOfTree { path });
        }
        for directory in self.host.missing_parents(path) {
            if !self.manifest.directories.contains(&directory) {
                self.manifest.directories.push(directory);
            }
        }
        Ok(())
    }

    /// Puts a step into the manifest: what was there before the first installation stays what it was.
    fn record(&mut self, step: &Step, now: State, after: State) -> Result<(), InstallError> {
        if let Some(entry) = self.manifest.entries.iter_mut().find(|entry| entry.path == step.path) {
            entry.after = after;
            return Ok(());
        }
        let entry = Entry { path: step.path.clone(), before: now, after };
        if let Some(backup) = entry.backup()
            && self.host.at(&backup).symlink_metadata().is_ok()
        {
            return Err(InstallError::InTheWay { path: backup });
        }
        self.manifest.entries.push(entry);
        Ok(())
    }
}
