"""The stage: tools built from tools/, a throwaway CA, the test upstream, a peer with its config filled in.

Everything is on loopback and on free ports. Only processes started here are stopped, by their process id. What is
measured is in cases.py.
"""
import base64
import grp
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import string
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICK = os.sysconf('SC_CLK_TCK')
TOOLS = {
    'responder': ['-lssl', '-lcrypto', '-lnghttp2'],
    'relay': [],
    'udpecho': ['-lpthread'],
    'dotfloor': ['-lssl', '-lcrypto'],
    'dohfloor': ['-lssl', '-lcrypto', '-lnghttp2'],
    'burst': [],
}


def output(*argv, **more):
    """Runs a command to its end."""
    return subprocess.run(argv, capture_output=True, text=True, errors='replace', **more)


def require(*names):
    """Ends with advice when a program is missing."""
    missing = [n for n in names if not shutil.which(n)]
    if missing:
        sys.exit(f'missing: {", ".join(missing)}. bench/peers-install says what to install.')


def build_tools(out):
    for name, libraries in TOOLS.items():
        r = output('cc', '-O2', '-o', str(out / name), str(HERE / 'tools' / f'{name}.c'), *libraries)
        if r.returncode:
            sys.exit(f'cannot build tools/{name}.c (bench/peers-install says what to install):\n{r.stderr}')


def make_ca(d):
    """A throwaway CA and a P-256 leaf for dns.test and 127.0.0.1."""
    def ossl(*a):
        r = output('openssl', *a, cwd=d)
        if r.returncode:
            sys.exit(r.stderr)
    curve = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes')
    ossl('req', '-x509', *curve, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '30', '-subj', '/CN=bench CA')
    ossl('req', *curve, '-keyout', 'leaf.key', '-out', 'leaf.csr', '-subj', '/CN=dns.test')
    (d / 'ext').write_text('subjectAltName=DNS:dns.test,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n')
    ossl('x509', '-req', '-in', 'leaf.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'leaf.pem', '-days', '30', '-extfile', 'ext')
    (d / 'chain.pem').write_text((d / 'leaf.pem').read_text() + (d / 'ca.pem').read_text())


def free_port():
    """A port that is free for UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u, socket.socket() as t:
            u.bind(('127.0.0.1', 0))
            p = u.getsockname()[1]
            try:
                t.bind(('127.0.0.1', p))
                return p
            except OSError:
                pass


def doh_stamp(port):
    """The upstream as a DNS stamp, for peers that take nothing else."""
    def lp(b):
        return bytes([len(b)]) + b
    raw = b'\x02' + struct.pack('<Q', 7) + lp(b'127.0.0.1') + b'\x00' + lp(f'dns.test:{port}'.encode()) + lp(b'/dns-query')
    return 'sdns://' + base64.urlsafe_b64encode(raw).decode().rstrip('=')


# ---------------------------------------------------------------- processes
def stat_fields(path):
    """Fields of a /proc stat file, from the state on."""
    return open(path).read().rsplit(')', 1)[1].split()


def tree(pid):
    """pid and its descendants: some peers fork."""
    kids = {}
    for e in os.listdir('/proc'):
        if e.isdigit():
            try:
                kids.setdefault(int(stat_fields(f'/proc/{e}/stat')[1]), []).append(int(e))
            except OSError:
                pass
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return out


def cpu(pid):
    """User and system seconds of the process tree so far; all threads, ended ones too."""
    return sum(cpu_by_ticks(f'/proc/{p}/stat') or 0 for p in tree(pid))


def cpu_by_thread(pid):
    """Seconds that each thread has run, to the nanosecond where the kernel tells."""
    seconds = {}
    for p in tree(pid):
        for t in os.listdir(f'/proc/{p}/task'):
            try:
                seconds[t] = int(open(f'/proc/{p}/task/{t}/schedstat').read().split()[0]) / 1e9
            except FileNotFoundError:
                seconds[t] = cpu_by_ticks(f'/proc/{p}/task/{t}/stat')
            except OSError:
                pass
    return {t: s for t, s in seconds.items() if s is not None}


def cpu_by_ticks(path):
    """User and system seconds of a process or thread in /proc; None when it has ended."""
    try:
        f = stat_fields(path)
    except OSError:
        return None
    return (int(f[11]) + int(f[12])) / TICK


def spent(before, after):
    """Seconds that threads ran between two looks, the busiest first."""
    return sorted((s - before.get(t, 0) for t, s in after.items()), reverse=True)


def foreign_cpu():
    """CPU seconds used on this machine by processes that are not ours; call it when ours have ended."""
    f = [int(x) for x in open('/proc/stat').readline().split()[1:]]
    own = sum(sum(resource.getrusage(w)[:2]) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (sum(f[:3]) + f[5] + f[6]) / TICK - own


def rss_kib(pid):
    """Resident KiB of the process tree."""
    kib = 0
    for p in tree(pid):
        try:
            kib += next(int(l.split()[1]) for l in open(f'/proc/{p}/status') if l.startswith('VmRSS'))
        except (OSError, StopIteration):
            pass
    return kib


class Proc:
    """A process of ours, on chosen CPUs."""
    def __init__(self, argv, cpus=None, env=None, log=None, cwd=None):
        if cpus is not None:
            argv = ['taskset', '-c', cpus] + argv
        self.t0 = time.monotonic()
        self.p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if log is None else log,
                                  stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, cwd=cwd)
        self.pid = self.p.pid

    def stop(self):
        pids = tree(self.pid)
        self.p.terminate()
        try:
            self.p.wait(3)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
        for p in pids[1:]:
            try:
                os.kill(p, signal.SIGKILL)
            except OSError:
                pass


class Upstream:
    """The responder, and a relay in front of it when rtt_ms is set."""
    def __init__(self, work, cpus=None, rtt_ms=0):
        self.udp, self.ctl, dot, doh = free_port(), free_port(), free_port(), free_port()
        self.r = Proc([str(work / 'responder'), '--udp', str(self.udp), '--ctl', str(self.ctl), '--dot', str(dot), '--doh', str(doh),
                       '--cert', str(work / 'chain.pem'), '--key', str(work / 'leaf.key')], cpus)
        assert self.r.p.stdout.readline() == b'ready\n'
        self.relay = None
        self.dot, self.doh = dot, doh
        if rtt_ms:
            self.dot, self.doh = free_port(), free_port()
            self.relay = Proc([str(work / 'relay'), str(self.dot), str(dot), str(rtt_ms), str(self.doh), str(doh)], cpus)
            assert self.relay.p.stdout.readline() == b'ready\n'

    def _control(self, message):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(('127.0.0.1', self.ctl))
            s.settimeout(3)
            s.send(message)
            return json.loads(s.recv(4096))

    def stats(self):
        """The counters, with the sums over protocols that most cases want."""
        s = self._control(b'stats')
        return {**s, 'queries': s['dot_q'] + s['doh2_q'] + s['doh1_q'], 'conns': s['dot_conns'] + s['doh_conns'], 'open': s['dot_open'] + s['doh_open']}

    def reset(self):
        return self._control(b'reset')

    def stop(self):
        for p in (self.relay, self.r):
            if p:
                p.stop()


class Server:
    """A peer, started with its config filled in and answering."""
    def __init__(self, work, peer, up, mode, cpus=None, threads=2, wait=True, own_copy=False):
        self.dir = Path(tempfile.mkdtemp(prefix=peer.name + '-', dir=work))
        os.chmod(self.dir, 0o777)
        self.port, self.peer = free_port(), peer
        v = dict(port=self.port, dot_port=up.dot, doh_port=up.doh, udp_port=up.udp, ca=str(work / 'ca.pem'), dir=str(self.dir), threads=threads,
                 doh_stamp=doh_stamp(up.doh), doh_url=f'https://127.0.0.1:{up.doh}/dns-query', extra=peer.extra, tools=str(work), mode=mode,
                 user=pwd.getpwuid(os.getuid()).pw_name, group=grp.getgrgid(os.getgid()).gr_name)
        if peer.template:
            v['conf'] = self._configure(peer, mode, v)
        v['bin'] = peer.path() or ''
        if own_copy and v['bin']:
            v['bin'] = shutil.copy(v['bin'], self.dir / 'program')
        self.log = open(self.dir / 'log', 'wb')
        self.proc = Proc([a.format(**v) for a in peer.argv], cpus, {k: x.format(**v) for k, x in peer.env.items()}, self.log, cwd=self.dir)
        self.pid = self.proc.pid
        if wait:
            try:
                self._wait_ready(15)
            except BaseException:
                self.stop()
                raise

    def _configure(self, peer, mode, values):
        lines = []
        for l in (HERE / 'peers' / peer.template).read_text().splitlines():
            tag = next((t for t in ('dot', 'doh', 'tuned') if l.startswith(f'@{t} ')), None)
            if tag is None:
                lines.append(l)
            elif tag == mode or (tag == 'tuned' and peer.tuned):
                lines.append(l[len(tag) + 2:])
        conf = self.dir / ('conf' + os.path.splitext(peer.template)[1])
        conf.write_text(string.Template('\n'.join(lines) + '\n').safe_substitute(values))
        return str(conf)

    def _wait_ready(self, limit, step=0.05):
        i = 0
        while time.monotonic() - self.proc.t0 < limit and self.proc.p.poll() is None:
            i += 1
            if ask(self.port, f'ready{i}-{os.getpid()}-{time.monotonic_ns()}.perf.example.org', step * 4) is not None:
                return
            time.sleep(step)
        raise RuntimeError(f'{self.peer.name} did not answer: ' + (self.dir / 'log').read_bytes()[-400:].decode(errors='replace'))

    def stop(self):
        self.proc.stop()
        self.log.close()


# ---------------------------------------------------------------- load
def query(name):
    q = os.urandom(2) + struct.pack('>HHHHH', 0x0100, 1, 0, 0, 0)
    return q + b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\0\0\1\0\1'


def ask(port, name, timeout=1.0):
    """One UDP query; seconds to a NOERROR answer, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(('127.0.0.1', port))
        s.settimeout(timeout)
        t = time.monotonic()
        try:
            s.send(query(name))
            r = s.recv(4096)
            return time.monotonic() - t if r[3] & 15 == 0 else None
        except OSError:
            return None


def burst(work, s, rounds, clients, each, names, tag):
    """Bursts of queries, each when the server has done with the one before (tools/burst.c): answers, of these not NOERROR, lost."""
    return [int(x) for x in output(str(work / 'burst'), str(s.port), str(s.pid), str(rounds), str(clients), str(each), str(names), tag, timeout=120).stdout.split()]


def names_file(work, n, tag):
    """A file of n names for dnsperf."""
    p = work / f'names-{tag}'
    if not p.exists():
        with open(p, 'w') as f:
            f.writelines(f'{tag}-{i}.perf.example.org A\n' for i in range(n))
    return str(p)


def new_names(work, n, prefix='m'):
    """A file of n names that nobody has asked for."""
    return names_file(work, n, f'{prefix}{time.monotonic_ns():x}')


def forget_names(work):
    for f in work.glob('names-m*'):
        f.unlink()


def dnsperf(port, data, secs, clients=10, outstanding=100, rate=0, cpus=None, once=False, verbose=False, mode='udp', uri=None, limit=120):
    """Runs dnsperf and reads its summary; with verbose also every latency in seconds."""
    a = ['dnsperf', '-s', '127.0.0.1', '-p', str(port), '-d', data, '-c', str(clients), '-q', str(outstanding), '-T', '1', '-t', '3', '-m', mode, '-W']
    a += ['-n', '1'] if once else []
    a += ['-l', str(secs)] if secs else []
    a += ['-Q', str(rate)] if rate else []
    a += ['-v'] if verbose else []
    a += ['-O', f'doh-uri={uri}', '-O', 'doh-method=POST'] if uri else []
    if cpus is not None:
        a = ['taskset', '-c', cpus] + a
    r = {'latencies': [], 'rcodes': {}}
    for l in output(*a, timeout=limit).stdout.splitlines():
        s = l.strip()
        if l.startswith('> '):
            try:
                r['latencies'].append(float(l.split()[-1]))
            except ValueError:
                pass
        elif s.startswith('Queries completed:'):
            r['done'] = int(s.split()[2])
        elif s.startswith('Queries lost:'):
            r['lost'] = int(s.split()[2])
        elif s.startswith('Queries per second:'):
            r['qps'] = float(s.split()[3])
        elif s.startswith('Run time (s):'):
            r['run'] = float(s.split()[3])
        elif s.startswith('Response codes:'):
            r['rcodes'] = {x.split()[0]: int(x.split()[1]) for x in s.split(':', 1)[1].split(',') if x.strip()}
    r['ok'] = r['rcodes'].get('NOERROR', 0)
    return r
