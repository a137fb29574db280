"""The peers. Adding one = one entry here + one configuration template in peers/.

In a template $name is filled in, and a line that starts with '@dot ', '@doh ' or
'@tuned ' is kept only in that transport / only for a variant with tuned=True.
Variables: port (listen here, UDP and TCP, 127.0.0.1), dot_port, doh_port, udp_port (the
upstream; TLS name dns.test, also valid for 127.0.0.1), ca (PEM file), dir (scratch
folder), threads, doh_stamp, doh_url, conf (the filled-in template), extra.
"""
import os
import shutil
from dataclasses import dataclass, field


@dataclass
class Peer:
    name: str
    argv: list                      # {bin} and {conf} etc. are filled in
    bin: str = ''                   # looked up in PATH and in $PEERS_DIR; env BENCH_BIN_<NAME> wins
    template: str = ''              # file in peers/
    modes: tuple = ('dot', 'doh')   # upstream transports it can do
    cache: bool = True
    tuned: bool = False
    extra: str = ''
    env: dict = field(default_factory=dict)
    version: tuple = ('--version',)
    ours: bool = False              # this project's own program

    def path(self):
        """The program, or None when it is not installed."""
        named = os.environ.get('BENCH_BIN_' + self.name.upper().replace('-', '_'))
        if named:
            return os.path.abspath(named) if os.sep in named else named
        d = os.environ.get('PEERS_DIR', '')
        for c in (os.path.join(d, self.bin), os.path.join(d, os.path.basename(self.bin))) if d else ():
            if os.access(c, os.X_OK) and not os.path.isdir(c):
                return c
        if os.sep in self.bin and os.access(self.bin, os.X_OK):
            return os.path.abspath(self.bin)
        return shutil.which(self.bin, path=os.environ.get('PATH', '') + ':/usr/sbin:/usr/local/sbin')


UNBOUND = ['{bin}', '-d', '-c', '{conf}']
DNSDIST = ['{bin}', '--supervised', '--disable-syslog', '-C', '{conf}']
DNSCRYPT = ['{bin}', '-config', '{conf}']
HICKORY = ['{bin}', '-q', '-c', '{conf}', '-z', '{dir}']
SMARTDNS = ['{bin}', '-f', '-x', '-p', '-', '-c', '{conf}']
VEILDNS = ['{bin}', 'run', '--config', '{conf}']
CA_ENV = {'SSL_CERT_FILE': '{ca}', 'SSL_CERT_DIR': '{dir}'}

PEERS = {p.name: p for p in [
    Peer('veildns', VEILDNS, 'veildns', 'veildns.toml', ours=True),
    # another build of it, named by `run --against`
    Peer('veildns-before', VEILDNS, 'veildns-before', 'veildns.toml', ours=True),
    # floors: what the machine allows (built from tools/)
    Peer('floor-udp', ['{tools}/udpecho', '{port}', '{threads}', '64'], modes=('none',)),
    Peer('floor-dot', ['{tools}/dotfloor', '{port}', '{dot_port}', '{ca}', 'dns.test'], modes=('dot',), cache=False),
    Peer('floor-doh', ['{tools}/dohfloor', '{port}', '{doh_port}', '{ca}', 'dns.test'], modes=('doh',), cache=False),
    # Debian's packages
    Peer('dnsdist', DNSDIST, 'dnsdist', 'dnsdist.lua'),
    Peer('dnsdist-ooo', DNSDIST, 'dnsdist', 'dnsdist.lua', extra='maxInFlight=1000'),
    Peer('unbound', UNBOUND, 'unbound', 'unbound.conf', ('dot',), version=('-V',)),
    Peer('kresd', ['{bin}', '-n', '-q', '-c', '{conf}', '{dir}'], 'kresd', 'kresd.lua', ('dot',)),
    Peer('smartdns', SMARTDNS, 'smartdns', 'smartdns.conf', version=('-v',)),
    Peer('stubby', ['{bin}', '-C', '{conf}'], 'stubby', 'stubby.yml', ('dot',), cache=False, version=('-V',)),
    Peer('dnss', ['{bin}', '-enable_dns_to_https', '-dns_listen_addr', '127.0.0.1:{port}', '-https_upstream', '{doh_url}',
                  '-https_client_cafile', '{ca}', '-fallback_upstream', '127.0.0.1:{udp_port}'], 'dnss', '', ('doh',)),
    # built by hand, in $PEERS_DIR
    Peer('unbound-new', UNBOUND, 'unbound-new/sbin/unbound', 'unbound.conf', ('dot',), version=('-V',)),
    Peer('unbound-new-tuned', UNBOUND, 'unbound-new/sbin/unbound', 'unbound.conf', ('dot',), tuned=True, version=('-V',)),
    Peer('dnsdist-new', DNSDIST, 'dnsdist-new', 'dnsdist.lua'),
    Peer('dnsdist-new-ooo', DNSDIST, 'dnsdist-new', 'dnsdist.lua', extra='maxInFlight=1000'),
    Peer('smartdns-new', SMARTDNS, 'smartdns-new', 'smartdns.conf', version=('-v',)),
    Peer('smartdns-rs', ['{bin}', 'run', '-c', '{conf}'], 'smartdns-rs/bin/smartdns', 'smartdns.conf'),
    Peer('dnscrypt-proxy', DNSCRYPT, 'dnscrypt-proxy', 'dnscrypt-proxy.toml', ('doh',), env=CA_ENV, version=('-version',)),
    Peer('dnscrypt-proxy-tuned', DNSCRYPT, 'dnscrypt-proxy', 'dnscrypt-proxy.toml', ('doh',), tuned=True, env=CA_ENV, version=('-version',)),
    Peer('hickory', HICKORY, 'hickory/bin/hickory-dns', 'hickory.toml', env=CA_ENV, version=('-V',)),
    Peer('hickory-tuned', HICKORY, 'hickory/bin/hickory-dns', 'hickory.toml', tuned=True, env=CA_ENV, version=('-V',)),
    Peer('https-dns-proxy', ['{bin}', '-a', '127.0.0.1', '-p', '{port}', '-r', '{doh_url}', '-C', '{ca}', '-b', '127.0.0.1:{udp_port}', '-4'],
         'https_dns_proxy', '', ('doh',), cache=False, version=('-V',)),
]}
# The peers of the goals' table and of the chart: one of each, those that a package manager brings.
USUAL = ['veildns', 'floor-udp', 'floor-dot', 'floor-doh', 'dnsdist', 'dnsdist-ooo', 'unbound', 'kresd', 'smartdns', 'stubby']
