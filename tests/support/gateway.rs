//! The real gateway, in this process, from a configuration text.

use super::authority;
use super::client::Client;
use super::runtime;
use super::server::Server;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use veildns::app;
use veildns::config;
use veildns::telemetry::counters::Telemetry;

/// A configuration in the making. Servers are named in the order of the operator: the first is asked first.
#[derive(Clone, Debug)]
pub struct Setup {
    listen: String,
    top: String,
    names: Vec<String>,
    tables: String,
}

/// Begins a configuration: failover, short times, one worker, a port of the kernel's choice.
pub fn setup() -> Setup {
    Setup {
        listen: "[\"127.0.0.1:0\"]".to_owned(),
        top: "workers = 1\nstrategy = \"failover\"\n".to_owned(),
        names: Vec::new(),
        tables: String::new(),
    }
}

impl Setup {
    /// Adds a server to the default group.
    #[must_use]
    pub fn server(self, name: &str, server: &Server) -> Self {
        self.server_with(name, server, "")
    }

    /// Adds a server to the default group with further keys.
    #[must_use]
    pub fn server_with(mut self, name: &str, server: &Server, keys: &str) -> Self {
        self.names.push(name.to_owned());
        self.spare(name, server, keys)
    }

    /// Adds a server that nobody started to the default group.
    #[must_use]
    pub fn server_at(mut self, name: &str, url: &str) -> Self {
        self.names.push(name.to_owned());
        self.tables.push_str(&server_table(name, url, ""));
        self
    }

    /// Describes a server that is not in the default group.
    #[must_use]
    pub fn spare(mut self, name: &str, server: &Server, keys: &str) -> Self {
        self.tables.push_str(&server_table(name, &server.url(), keys));
        self
    }

    /// Puts other addresses to listen on, as TOML.
    #[must_use]
    pub fn listen(mut self, addresses: &str) -> Self {
        addresses.clone_into(&mut self.listen);
        self
    }

    /// Replaces or adds a key at the top level.
    #[must_use]
    pub fn top(mut self, key: &str, value: &str) -> Self {
        self.top = self.top.lines().filter(|line| !line.starts_with(&format!("{key} ="))).fold(
            String::new(),
            |mut text, line| {
                text.push_str(line);
                text.push('\n');
                text
            },
        );
        writeln!(self.top, "{key} = {value}").unwrap();
        self
    }

    /// Adds whole tables.
    #[must_use]
    pub fn table(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self.tables.push('\n');
        self
    }

    /// Writes it.
    pub fn text(&self) -> String {
        let names: Vec<String> = self.names.iter().map(|name| format!("\"{name}\"")).collect();
        let upstreams =
            if names.is_empty() { String::new() } else { format!("upstreams = [{}]\n", names.join(", ")) };
        format!("listen = {}\n{upstreams}{}{}", self.listen, self.top, self.tables)
    }

    /// Writes it to a file.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.text()).unwrap();
    }

    /// Reads it as the program does.
    pub fn settings(&self) -> config::settings::Settings {
        settings(&self.text())
    }

    /// Starts the gateway.
    pub fn start(&self) -> Gateway {
        start_text(&self.text())
    }
}

/// Reads a configuration as the program does.
///
/// # Panics
/// When the program finds fault with it.
pub fn settings(text: &str) -> config::settings::Settings {
    match config::from_text(text, authority::trusted().directory()) {
        Ok(settings) => settings,
        Err(errors) => panic!("{text}\n{}", errors.render(config::error::Appearance::Plain)),
    }
}

/// Starts a gateway from a configuration text.
pub fn start_text(text: &str) -> Gateway {
    let gateway = app::Gateway::start(settings(text), Telemetry::new(), &runtime()).unwrap();
    Gateway { inner: Some(gateway) }
}

/// Writes the table of a server on loopback that the test authority vouches for.
pub fn server_table(name: &str, url: &str, keys: &str) -> String {
    let ca_file = authority::trusted().ca_file();
    format!(
        "[server.{name}]\nurl = \"{url}\"\naddresses = [\"127.0.0.1\"]\nca_file = \"{}\"\n{keys}\n",
        ca_file.display()
    )
}

/// A running gateway. Stops when dropped.
pub struct Gateway {
    inner: Option<app::Gateway>,
}

impl Gateway {
    /// Where it listens first.
    pub fn address(&self) -> SocketAddr {
        self.gateway().addresses()[0]
    }

    /// The gateway itself.
    pub fn gateway(&self) -> &app::Gateway {
        self.inner.as_ref().unwrap()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Puts another configuration in force.
    pub fn reload(&mut self, setup: &Setup) -> app::ReloadReport {
        self.reload_text(&setup.text())
    }

    /// Puts another configuration text in force.
    pub fn reload_text(&mut self, text: &str) -> app::ReloadReport {
        self.inner.as_mut().unwrap().reload(settings(text), &runtime()).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(gateway) = self.inner.take() {
            gateway.stop(Duration::from_secs(1));
        }
    }
}
