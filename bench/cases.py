"""The cases. Each starts a peer and an upstream of its own, drives them for a bounded time and returns a dict of figures.

CPU is the peer's user and system time divided by its answers: unlike throughput, it hardly depends on what else the
machine does, and not at all on how fast the load generator is.
"""
import os
import random
import signal
import socket
import statistics
import subprocess
import time
from contextlib import ExitStack, contextmanager

from peers import PEERS
from rig import Server, Upstream, ask, burst, cpu, cpu_by_thread, dnsperf, forget_names, names_file, new_names, query, rss_kib, spent, tree

CASES = ['hit', 'miss-dot', 'miss-doh', 'latency-dot', 'latency-doh', 'hol-dot', 'hol-doh', 'cold-dot', 'cold-doh', 'memory',
         'syscalls-hit', 'syscalls-dot', 'syscalls-doh', 'scaling-hit', 'scaling-dot', 'scaling-doh', 'idle-dot', 'idle-doh', 'growth']
MANY = 1_000_000
WORKERS = (1, 2)


@contextmanager
def upstream(work, cpus=None, rtt=0):
    up = Upstream(work, cpus, rtt)
    try:
        yield up
    finally:
        up.stop()


@contextmanager
def running(work, peer, mode, *, pinned=False, threads=2, rtt=0):
    """A peer and its upstream. Pinned: the peer with one thread on CPU 0, everything else on CPU 1."""
    with upstream(work, '1' if pinned else None, rtt) as up:
        with closing(work, Server(work, peer, up, mode, '0' if pinned else None, 1 if pinned else threads)) as s:
            yield up, s


@contextmanager
def closing(work, s):
    """A peer, until it is stopped."""
    try:
        yield s
    finally:
        s.stop()
        forget_names(work)


def percentiles(r):
    v = sorted(r['latencies'])
    at = {f'p{p}_ms': v[min(len(v) - 1, int(len(v) * p / 100))] * 1e3 if v else None for p in (50, 90, 99)}
    return {**at, 'lost': r.get('lost'), 'bad': sum(n for code, n in r['rcodes'].items() if code != 'NOERROR')}


def warm(s, data, cpus=None):
    for _ in range(2):
        dnsperf(s.port, data, 5, 2, 20, once=True, cpus=cpus)


def case_hit(work, peer, o):
    """Warmed names: pinned and saturated, then unpinned at 5,000 queries a second."""
    out, data = {}, names_file(work, 1000, 'hot')
    with running(work, peer, peer.modes[0], pinned=True) as (up, s):
        warm(s, data, '1')
        up.reset()
        c = cpu(s.pid)
        r = dnsperf(s.port, data, o.secs, 10, 100, cpus='1')
        c = cpu(s.pid) - c
        out.update(us=c / max(1, r['done']) * 1e6, qps=r['qps'], lost=r['lost'], busy=c / r['run'], upstream_q=up.stats()['queries'])
    with running(work, peer, peer.modes[0]) as (up, s):
        warm(s, data)
        before = cpu_by_thread(s.pid)
        r = dnsperf(s.port, data, o.secs, 10, 100, rate=5000, verbose=True)
        out['us_at_5k'] = sum(spent(before, cpu_by_thread(s.pid))) / max(1, r['done']) * 1e6
        out.update({k + '_at_5k': v for k, v in percentiles(r).items()})
    return out


def case_miss(work, peer, o, mode):
    """New names only, 100 and 1,000 outstanding; they start as one burst."""
    out = {}
    for kind, q in (('q100', 100), ('q1000', 1000)):
        with running(work, peer, mode, pinned=True) as (up, s):
            dnsperf(s.port, new_names(work, 200), 5, 2, 10, once=True)
            up.reset()
            c = cpu(s.pid)
            r = dnsperf(s.port, new_names(work, 150_000 * o.secs), o.secs, 10, q, cpus='1', once=True)
            c, u, ok = cpu(s.pid) - c, up.stats(), r['ok']
            out.update({f'{kind}_us': c / max(1, ok) * 1e6, f'{kind}_qps': ok / r['run'], f'{kind}_lost': r['lost'], f'{kind}_bad': r['done'] - ok,
                        f'{kind}_conns': max(u['dot_open_max'], u['doh_open_max'], u['open']), f'{kind}_new_conns': u['conns'],
                        f'{kind}_per_q': u['queries'] / max(1, ok), f'{kind}_busy': c / r['run'], f'{kind}_padded': u['padded'] / max(1, u['queries'])})
    return out


def case_latency(work, peer, o, mode):
    """Misses at 200 queries a second over the RTT."""
    with running(work, peer, mode, rtt=o.rtt) as (up, s):
        dnsperf(s.port, new_names(work, 200), 3, 1, 20, rate=100)
        up.reset()
        r = dnsperf(s.port, new_names(work, 400 * o.secs), o.secs * 2, 4, 100, rate=200, verbose=True, once=True)
        return {**percentiles(r), 'conns': up.stats()['conns']}


def case_hol(work, peer, o, mode):
    """The same while 20 queries a second are answered 500 ms late: do the prompt ones wait?"""
    with running(work, peer, mode, rtt=o.rtt) as (up, s):
        dnsperf(s.port, new_names(work, 200), 3, 1, 20, rate=100)
        up.reset()
        before = up.stats()['open']
        slow = subprocess.Popen(['dnsperf', '-s', '127.0.0.1', '-p', str(s.port), '-d', new_names(work, 500, 'd500-m'), '-c', '1', '-q', '50', '-Q', '20', '-l', str(o.secs + 1)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            r = dnsperf(s.port, new_names(work, 200 * o.secs), o.secs, 4, 100, rate=200, verbose=True, once=True)
            slow.wait(30)
        finally:
            slow.kill()
        after = up.stats()
        return {**percentiles(r), 'conns': after['conns'], 'closed': before + after['conns'] - after['open']}


def case_idle(work, peer, o, mode):
    """First query after 12 s and after 60 s of quiet: was the connection kept, or paid for again? Of three programs the median,
    each with a copy of the peer's file of its own, so that none finds what another has read. What stands around is warmed by a
    bare program just before, and what that needed then is the round trip."""
    out = {}
    with ExitStack() as stack:
        up = stack.enter_context(upstream(work, None, o.rtt))
        started = [stack.enter_context(closing(work, Server(work, peer, up, mode, own_copy=True))) for _ in range(3)]
        bare = stack.enter_context(closing(work, Server(work, PEERS['floor-' + mode], up, mode)))
        for quiet in (12, 60):
            for s in (*started, bare):
                dnsperf(s.port, new_names(work, 200), 2, 1, 20, rate=100)
            time.sleep(quiet)
            before, firsts, overs = up.stats()['conns'], [], []
            for s in started:
                trips = [ask(bare.port, f'bare{time.monotonic_ns()}.perf.example.org', 3) for _ in range(5)]
                first = ask(s.port, f'idle{time.monotonic_ns()}.perf.example.org', 3)
                firsts.append(first)
                overs.append(None if first is None or None in trips else first - statistics.median(trips))
            out.update({f'first_{quiet}s_ms': middle_ms(firsts), f'over_{quiet}s_ms': middle_ms(overs),
                        f'new_conns_{quiet}s': up.stats()['conns'] - before})
    return out


def middle_ms(seconds):
    """The median in milliseconds; None when one is missing."""
    return None if None in seconds else statistics.median(seconds) * 1e3


def case_cold(work, peer, o, mode):
    """From exec to the first answered query, asked every few ms, over the RTT."""
    with upstream(work, None, o.rtt) as up:
        s = Server(work, peer, up, mode, wait=False)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:
                u.connect(('127.0.0.1', s.port))
                u.settimeout(0.004)
                n = 0
                while time.monotonic() - s.proc.t0 < 15:
                    n += 1
                    try:
                        if n < 20 or n % 5 == 0:
                            u.send(query(f'cold{n}-{time.monotonic_ns()}.perf.example.org'))
                        if u.recv(4096)[3] & 15 == 0:
                            return {'first_answer_ms': (time.monotonic() - s.proc.t0) * 1e3}
                    except OSError:
                        time.sleep(0.001)
            return {'first_answer_ms': None}
        finally:
            s.stop()


def case_memory(work, peer, o):
    """Resident memory: idle, after 2,000 and after 102,000 distinct names; then which of them are still cached."""
    with running(work, peer, peer.modes[0]) as (up, s):
        time.sleep(1)
        out = {'idle_mib': rss_kib(s.pid) / 1024}
        dnsperf(s.port, new_names(work, 2000), 20, 10, 50, once=True)
        base = rss_kib(s.pid)
        data = new_names(work, 100_000)
        ok = dnsperf(s.port, data, 60, 10, 50, rate=20000, once=True)['ok']
        time.sleep(0.5)
        full = rss_kib(s.pid)
        out.update(warm_mib=base / 1024, full_mib=full / 1024, answered=ok, octets_per_entry=(full - base) * 1024 / max(1, ok) if peer.cache else None)
        if peer.cache:
            up.reset()
            dnsperf(s.port, data, 60, 10, 50, rate=20000, once=True)
            out['refetched'] = up.stats()['queries']
        return out


def case_growth(work, peer, o):
    """What a hit costs with 1,000 and with 1,000,000 cached names, asked in random order."""
    few = case_growth_with(work, peer, o, 1000)
    many = case_growth_with(work, peer, o, MANY)
    return {'us_1k': few['us'], 'us_1m': many['us'], 'ratio': many['us'] / few['us'], 'mib_1m': many['mib'], 'refetched': many['refetched']}


def case_growth_with(work, peer, o, names):
    with running(work, peer, peer.modes[0], pinned=True) as (up, s):
        path = new_names(work, names)
        dnsperf(s.port, path, 0, 10, 200, once=True, cpus='1', limit=180)
        lines = open(path).readlines()
        random.Random(1).shuffle(lines)
        open(path, 'w').writelines(lines)
        up.reset()
        c = cpu(s.pid)
        r = dnsperf(s.port, path, max(5, o.secs), 10, 100, cpus='1')
        return {'us': (cpu(s.pid) - c) / max(1, r['done']) * 1e6, 'mib': rss_kib(s.pid) / 1024, 'refetched': up.stats()['queries']}


def case_syscalls(work, peer, o, kind):
    """System calls an answer at 100 outstanding (strace -c slows the peer, so no times)."""
    with running(work, peer, peer.modes[0] if kind == 'hit' else kind) as (up, s):
        data, log = names_file(work, 1000, 'hot'), s.dir / 'strace'
        warm(s, data)
        tracer = subprocess.Popen(['strace', '-f', '-c', '-o', str(log)] + [x for p in tree(s.pid) for x in ('-p', str(p))], stderr=subprocess.DEVNULL)
        time.sleep(0.7)
        r = dnsperf(s.port, data if kind == 'hit' else new_names(work, 200_000), 2, 10, 100, once=kind != 'hit')
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
        calls = {}
        for l in log.read_text().splitlines():
            f = l.split()
            if len(f) >= 5 and f[0][0].isdigit() and f[-1] != 'total':
                calls[f[-1]] = int(f[3])
        ok = max(1, r['ok'])
        top = sorted(calls.items(), key=lambda x: -x[1])[:8]
        return {'total': sum(calls.values()) / ok, **{f'n_{k}': v / ok for k, v in top}}


def case_scaling(work, peer, o, kind):
    """From one worker to two, with the load apart. Load and server would need more processors than two, so they take turns: the
    load stops the server, puts a burst into its sockets, lets it go on and sleeps (tools/burst.c). The upstream runs when workers
    leave it a processor. The servers of one and of two workers take turns, too. With a processor for each worker, throughput is
    one over the time that an answer takes of the busiest thread."""
    clients, each, rounds, turns = 250, 4, 20, 3 * o.secs
    with ExitStack() as stack:
        servers = {}
        for n in WORKERS:
            up, servers[n] = stack.enter_context(running(work, peer, peer.modes[0] if kind == 'hit' else kind, threads=n))
            os.sched_setscheduler(up.r.pid, os.SCHED_IDLE, os.sched_param(0))
        names = 1000 if kind == 'hit' else 0
        for n in servers:
            burst(work, servers[n], 6, 100, each, names, 'warm')
        ran, answers, bad = {n: {} for n in servers}, dict.fromkeys(servers, 0), 0
        for turn in range(turns):
            for n, s in servers.items():
                before = cpu_by_thread(s.pid)
                got, not_ok, lost = burst(work, s, rounds, clients * n, each, names, 'warm' if names else f'turn{turn}x')
                for t, seconds in cpu_by_thread(s.pid).items():
                    ran[n][t] = ran[n].get(t, 0) + seconds - before.get(t, 0)
                answers[n] += got
                bad += not_ok + lost
    out = {'bad': bad}
    for n in servers:
        threads = sorted(ran[n].values(), reverse=True)
        out[f'us_{n}'] = sum(threads) / max(1, answers[n]) * 1e6
        out[f'busiest_us_{n}'] = max(threads[0], sum(threads) / n) / max(1, answers[n]) * 1e6
    return {**out, 'speedup': out['busiest_us_1'] / max(1e-9, out['busiest_us_2'])}


def run_case(work, peer, case, o):
    """The figures of one case, or None where it does not apply."""
    base, _, mode = case.partition('-')
    is_echo = peer.modes == ('none',)
    needs_cache = 'hit' in (base, mode) or base == 'growth'
    if mode and mode != 'hit' and mode not in peer.modes:
        return None
    if (is_echo and case not in ('hit', 'syscalls-hit', 'scaling-hit')) or (needs_cache and not peer.cache):
        return None
    # The others' caches are configured for fewer names, and their threads do not mean what ours do.
    if base in ('growth', 'scaling') and not (peer.ours or is_echo):
        return None
    f = globals()[f'case_{base}']
    return f(work, peer, o, mode) if mode else f(work, peer, o)
