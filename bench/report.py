"""Tables of what was measured: medians with their range, over all repetitions of one run or of several."""
import statistics

from cases import CASES

COLUMNS = {
    'hit': ['us', 'qps', 'busy', 'lost', 'us_at_5k', 'p50_ms_at_5k', 'p99_ms_at_5k', 'lost_at_5k'],
    'miss': ['q100_us', 'q100_qps', 'q100_lost', 'q100_bad', 'q100_conns', 'q1000_us', 'q1000_qps', 'q1000_lost', 'q1000_bad', 'q1000_conns', 'q100_per_q'],
    'latency': ['p50_ms', 'p90_ms', 'p99_ms', 'lost', 'bad', 'conns'],
    'hol': ['p50_ms', 'p90_ms', 'p99_ms', 'lost', 'bad', 'conns'],
    'idle': ['first_12s_ms', 'over_12s_ms', 'new_conns_12s', 'first_60s_ms', 'over_60s_ms', 'new_conns_60s'],
    'cold': ['first_answer_ms'],
    'memory': ['idle_mib', 'warm_mib', 'full_mib', 'octets_per_entry', 'answered', 'refetched'],
    'syscalls': ['total', 'n_recvmmsg', 'n_recvfrom', 'n_recvmsg', 'n_read', 'n_sendmmsg', 'n_sendto', 'n_sendmsg', 'n_write', 'n_writev', 'n_epoll_wait', 'n_epoll_ctl', 'n_futex'],
    'scaling': ['us_1', 'us_2', 'busiest_us_1', 'busiest_us_2', 'bad', 'speedup'],
    'growth': ['us_1k', 'us_1m', 'ratio', 'mib_1m', 'refetched'],
}


def show(v):
    if v is None:
        return '–'
    if abs(v) >= 100:
        return f'{v:,.0f}'
    return f'{v:.1f}' if abs(v) >= 10 else f'{v:.2f}'.rstrip('0').rstrip('.')


def values(rows, peer, case, figure):
    """What a figure was in each repetition that has it."""
    found = [r['m'].get(figure) for r in rows if r['peer'] == peer and r['case'] == case and r.get('m')]
    return [v for v in found if v is not None]


def median(rows, peer, case, figure):
    v = values(rows, peer, case, figure)
    return statistics.median(v) if v else None


def show_range(v):
    """Median, and the range where there is one."""
    if not v:
        return '–'
    spread = f' ({show(min(v))}–{show(max(v))})' if show(min(v)) != show(max(v)) else ''
    return show(statistics.median(v)) + spread


def peers_of(rows, case):
    return list(dict.fromkeys(r['peer'] for r in rows if r['case'] == case))


def tables(rows):
    """All tables, as Markdown."""
    lines = []
    for case in CASES:
        if not (peers := peers_of(rows, case)):
            continue
        mine = [r for r in rows if r['case'] == case]
        columns = [c for c in COLUMNS[case.split('-')[0]] if any(c in r.get('m', {}) for r in mine)]
        lines += ['', f'### {case}', '', '| peer | n | ' + ' | '.join(columns) + ' | noise |', '|---|' + '---:|' * (len(columns) + 2)]
        for p in peers:
            good = [r for r in mine if r['peer'] == p and r.get('m')]
            if not good:
                error = next((r['error'] for r in mine if r['peer'] == p and 'error' in r), '')
                lines.append(f'| {p} | 0 | failed: {error[:80]!r} |')
                continue
            cells = [show_range(values(rows, p, case, c)) for c in columns] + [show_range([r['noise'] for r in good])]
            lines.append(f'| {p} | {len(good)} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'
