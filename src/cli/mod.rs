//! The command line: what may be written, and nothing of what is then done.

pub mod migration;

#[cfg(feature = "tools")]
use self::migration::ImportArgs;
use self::migration::ProxyDnsArgs;
use crate::config::settings::LogLevel;
use clap::{Args, Parser, Subcommand, ValueEnum};
#[cfg(feature = "tools")]
use clap_complete::Shell;
use std::path::PathBuf;

/// Exit codes of the interface; 0 is success.
pub mod exit {
    /// A `query` or `upstreams` that got no answer; a `doctor` that found something wrong; a `status`, `cache` or `log-level`
    /// that no gateway answered; a gateway that is not ready for `health`; an `install` that was declined; and whatever of
    /// the system fails that has no code of its own.
    pub const FAILED: u8 = 1;
    /// The command line is wrong (EX_USAGE).
    pub const USAGE: u8 = 64;
    /// An address is taken, or this host lacks it (EX_UNAVAILABLE). No mistake of the configuration for a service manager: the
    /// interface may come up yet, and starting again helps.
    pub const ADDRESS_TAKEN: u8 = 69;
    /// A permission is missing (EX_NOPERM).
    pub const PERMISSION: u8 = 77;
    /// The configuration is wrong (EX_CONFIG).
    pub const CONFIG: u8 = 78;
}

/// A local privacy gateway for DNS: plain DNS in, DNS over HTTPS and DNS over TLS out.
#[derive(Debug, Parser)]
#[command(name = "veildns", version, long_version = LONG_VERSION, disable_version_flag = false, arg_required_else_help = false)]
// A flag in front of a command would be one of `run`, and do nothing.
#[command(args_conflicts_with_subcommands = true, max_term_width = 80)]
#[command(
    after_help = "Without a command the gateway runs. Without a file it listens on 127.0.0.1:5053 and asks Quad9 and Cloudflare:\n\
  \n  veildns                                  run with the built-in configuration\
  \n  dig @127.0.0.1 -p 5053 example.com       ask it\
  \n  veildns check --config veildns.toml      find every mistake in a file\
  \n  veildns query example.com MX             ask once, and see who answered"
)]
pub struct Cli {
    /// What to do; `run` when absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `run` without the word.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Version, commit and crypto provider, for `--version`.
const LONG_VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ", TLS by ", env!("BUILD_CRYPTO"), ")");

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    #[command(
        after_help = "Examples:\n  veildns run --config /etc/veildns/veildns.toml\n  veildns run --listen 127.0.0.1:1053 --upstream quad9\n  veildns run --upstream tls://dns.example --log-level debug"
    )]
    Run(RunArgs),
    /// Run the gateway with the flags and variables of cloudflared's `proxy-dns`, which was withdrawn in 2026.
    ///
    /// Names of upstreams are looked up at the bootstrap servers, encrypted: never by plain DNS. A configuration file, if
    /// there is one, counts where neither flag nor variable says anything. docs/migrating.md leads over step by step.
    #[command(
        after_help = "Examples:\n  veildns proxy-dns --port 5053\n  veildns proxy-dns --port 5053 --upstream https://dns.quad9.net/dns-query\n  TUNNEL_DNS_PORT=5053 veildns proxy-dns"
    )]
    ProxyDns(ProxyDnsArgs),
    /// Read the configuration, print every error in it, or `ok` and what would run.
    #[command(after_help = "Example:\n  veildns check --config /etc/veildns/veildns.toml")]
    Check(ConfigArgs),
    /// Ask once, through the same pipeline, and print the answer and where it came from.
    #[command(
        after_help = "Examples:\n  veildns query example.com\n  veildns query example.com MX --upstream tls://dns.quad9.net\n  veildns query example.com AAAA --json"
    )]
    Query(QueryArgs),
    #[cfg(feature = "tools")]
    /// Probe each server: connect, handshake and query times, TLS version, certificate, padding, ECS, DNSSEC.
    #[command(
        after_help = "Examples:\n  veildns upstreams\n  veildns upstreams --all\n  veildns upstreams --json"
    )]
    Upstreams(UpstreamsArgs),
    #[cfg(feature = "tools")]
    /// Look at this machine and its network, and say what is wrong and what to do.
    #[command(
        after_help = "Examples:\n  veildns doctor --plan    what would be sent, and to whom\n  veildns doctor\n  veildns doctor --json"
    )]
    Doctor(DoctorArgs),
    /// Ask the running gateway whether it serves clients: for the health checks of containers.
    #[command(
        after_help = "Needs `[metrics] listen` in the configuration. Example:\n  veildns health --config /etc/veildns/veildns.toml"
    )]
    Health(ConfigArgs),
    #[cfg(feature = "tools")]
    /// Make this program a service of this machine, and point the machine's programs at it.
    #[command(
        after_help = "Examples:\n  sudo veildns install --dry-run    what would be done\n  sudo veildns install\n  sudo veildns install --config my.toml --yes"
    )]
    Install(InstallArgs),
    #[cfg(feature = "tools")]
    /// Undo what `install` did.
    #[command(after_help = "Examples:\n  sudo veildns uninstall --dry-run\n  sudo veildns uninstall")]
    Uninstall(ChangeArgs),
    #[cfg(feature = "tools")]
    /// Make a configuration file of that of stubby or https_dns_proxy.
    ///
    /// What is not carried over stands in the file as a comment, with the reason. The other program's files are left as they
    /// are.
    #[command(
        after_help = "Examples:\n  veildns import /etc/stubby/stubby.yml --output veildns.toml\n  veildns import /etc/config/https-dns-proxy\n  veildns import -- https_dns_proxy -p 5053 -r https://dns.google/dns-query"
    )]
    Import(ImportArgs),
    /// Show how the running gateway is: queries, cache, servers, warnings.
    #[command(
        after_help = "Examples:\n  veildns status\n  veildns status --watch        again every second, until Ctrl-C\n  veildns status --watch 10 --json\n  sudo veildns status           when the gateway runs as another user"
    )]
    Status(StatusArgs),
    /// Look into the running gateway's cache, or make it forget.
    #[command(
        subcommand,
        after_help = "Examples:\n  veildns cache dump www.example.com\n  veildns cache flush www.example.com\n  veildns cache flush --subtree example.com\n  veildns cache flush"
    )]
    Cache(CacheCommand),
    /// Change how much the running gateway logs, until a reload, a restart or `reset`.
    #[command(
        after_help = "Examples:\n  veildns log-level debug    everything about single queries, with their names\n  veildns log-level reset    what the configuration says"
    )]
    LogLevel(LogLevelArgs),
    #[cfg(feature = "tools")]
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  veildns completions bash > /etc/bash_completion.d/veildns")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    #[cfg(feature = "tools")]
    /// Print the man page.
    #[command(after_help = "Example:\n  veildns man > /usr/local/share/man/man1/veildns.1")]
    Man,
    /// Print version, commit and crypto provider.
    #[command(after_help = "Example:\n  veildns version")]
    Version,
}

/// Where the configuration is.
#[derive(Debug, Default, Clone, Args)]
pub struct ConfigArgs {
    /// Configuration file [default: ./veildns.toml, /etc/veildns/veildns.toml, else built in].
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Options of `run`.
#[derive(Debug, Default, Clone, Args)]
pub struct RunArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Listen here instead (UDP and TCP); may be repeated.
    #[arg(short, long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<String>,
    /// Ask this server instead: a preset, a [server.*] name or a URL; may be repeated.
    #[arg(short, long, value_name = "SERVER")]
    pub upstream: Vec<String>,
    /// Start beside a running gateway of the same user on the same addresses, which is to be stopped once this one is ready.
    #[arg(long)]
    pub take_over: bool,
    /// How much is logged.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<Level>,
}

/// Options of `query`.
#[derive(Debug, Clone, Args)]
pub struct QueryArgs {
    /// The name to ask for.
    pub name: String,
    /// The record type, such as A, MX or TYPE65.
    #[arg(default_value = "A")]
    pub rtype: String,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Ask this server only: a preset, a [server.*] name or a URL.
    #[arg(short, long, value_name = "SERVER")]
    pub upstream: Option<String>,
    /// Ask for DNSSEC records too.
    #[arg(long)]
    pub dnssec: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[cfg(feature = "tools")]
/// Options of `upstreams`.
#[derive(Debug, Clone, Args)]
pub struct UpstreamsArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Probe every preset, not only the configured servers.
    #[arg(short, long)]
    pub all: bool,
    /// Print a JSON array.
    #[arg(long)]
    pub json: bool,
}

#[cfg(feature = "tools")]
/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Only say what would be sent, and to whom.
    #[arg(long)]
    pub plan: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[cfg(feature = "tools")]
/// Options of `install`.
#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    /// Configuration to install [default: the one that is there, else port 53 of this machine and two resolvers].
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to go about it.
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[cfg(feature = "tools")]
/// Options of `install` and `uninstall`.
#[derive(Debug, Clone, Args)]
pub struct ChangeArgs {
    /// Work on a tree of files instead of this machine; nothing is started or stopped.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
}

/// Where the running gateway is reached.
#[derive(Debug, Default, Clone, Args)]
pub struct SocketArgs {
    /// The gateway's control socket [default: control.socket of the configuration, else the usual places].
    #[arg(short, long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Options of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Where the gateway is reached.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Show it again and again, every so many seconds [default: 1].
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub watch: Option<u16>,
    /// Print one JSON object; with --watch one each time, a line each.
    #[arg(long)]
    pub json: bool,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Forget a name, every type of it; without a name everything.
    #[command(
        after_help = "Without --subtree the names below stay. A query that is under way is still stored when its answer comes.\n\nExamples:\n  veildns cache flush www.example.com\n  veildns cache flush --subtree example.com    and all below it\n  veildns cache flush                          everything"
    )]
    Flush(FlushArgs),
    /// Show what is kept of a name: every type and variant, how long it lives on, rcode, records.
    #[command(
        after_help = "Examples:\n  veildns cache dump www.example.com\n  veildns cache dump www.example.com --json"
    )]
    Dump(DumpArgs),
}

/// Options of `cache flush`.
#[derive(Debug, Clone, Args)]
pub struct FlushArgs {
    /// The name; everything when absent.
    pub name: Option<String>,
    /// Forget all names below it too.
    #[arg(long, requires = "name")]
    pub subtree: bool,
    /// Where the gateway is reached.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `cache dump`.
#[derive(Debug, Clone, Args)]
pub struct DumpArgs {
    /// The name.
    pub name: String,
    /// Where the gateway is reached.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `log-level`.
#[derive(Debug, Clone, Args)]
pub struct LogLevelArgs {
    /// How much is logged from now on; `reset` is what the configuration (or RUST_LOG) says.
    pub level: WantedLevel,
    /// Where the gateway is reached.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Log levels that a running gateway can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WantedLevel {
    /// Only what stops the gateway.
    Error,
    /// And what needs the operator.
    Warn,
    /// And changes of state.
    Info,
    /// And each query that was not in the cache, with its name.
    Debug,
    /// And everything else.
    Trace,
    /// What the configuration says.
    Reset,
}

/// Log levels as the command line spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Only what stops the gateway.
    #[value(alias = "fatal")]
    Error,
    /// And what needs the operator.
    Warn,
    /// And changes of state.
    Info,
    /// And each query that was not in the cache.
    Debug,
    /// And everything else.
    Trace,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

/// Commands of the feature `tools`, which the small form is built without.
#[cfg(any(test, not(feature = "tools")))]
const TOOLS: [&str; 7] = ["upstreams", "doctor", "install", "uninstall", "import", "completions", "man"];

/// Says what to do when a command line is wrong only because this build lacks the command.
#[cfg(not(feature = "tools"))]
pub fn left_out(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    TOOLS.contains(&word.as_str()).then(|| {
        format!(
            "this build has no `{word}`: it is the small form for routers, made without the feature `tools`\n  run it on \
             another machine, or build with `--features tools`"
        )
    })
}

impl Cli {
    /// Returns the command that was meant: `run` when none was written.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_small_form_is_without_is_what_others_have() {
        let cli = Cli::command();
        let missing =
            TOOLS.into_iter().filter(|word| cli.find_subcommand(word).is_some() != cfg!(feature = "tools"));
        assert_eq!(missing.collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn no_command_means_run_with_its_flags() {
        let cli = Cli::try_parse_from([
            "veildns",
            "--listen",
            "127.0.0.1:1",
            "--upstream",
            "quad9",
            "--upstream",
            "cloudflare",
        ])
        .unwrap();
        let Command::Run(run) = cli.into_command() else { panic!("not run") };
        assert_eq!(run.listen, ["127.0.0.1:1"]);
        assert_eq!(run.upstream, ["quad9", "cloudflare"]);
    }

    #[test]
    fn query_takes_a_name_and_asks_for_addresses_by_default() {
        let cli = Cli::try_parse_from(["veildns", "query", "example.com"]).unwrap();
        let Command::Query(query) = cli.into_command() else { panic!("not query") };
        assert_eq!((query.name.as_str(), query.rtype.as_str()), ("example.com", "A"));
    }
}
