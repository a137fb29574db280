"""What this program wants to reach, and whether it did: one row a goal, computed from the rows of one or more runs.

A goal may lean on a floor (a bare C program of tools/, measured in the same run) or be an absolute number.
"""
from dataclasses import dataclass
from typing import Callable

from report import median, peers_of, show

OURS = 'veildns'


@dataclass
class Goal:
    """One line of the table."""
    title: str
    case: str
    figure: str
    floor: str                       # the floor's peer, '' without one
    goal: str                        # in words
    bound: Callable                  # floor value -> the most that is allowed
    relative: bool = False           # shown and judged as the difference to the floor
    beats_peers: bool = False        # must be under every peer too
    at_least: bool = False           # more is better


def miss(protocol, times):
    return Goal(f'miss over {protocol}, 100 outstanding, µs', f'miss-{protocol.lower()}', 'q100_us', f'floor-{protocol.lower()}', f'≤ {times} × floor', lambda f: f * times, beats_peers=True)


GOALS = [
    Goal('hit, saturated, µs', 'hit', 'us', 'floor-udp', '≤ 1.15 × floor, under every peer', lambda f: 1.15 * f, beats_peers=True),
    Goal('hit at 5,000 q/s, µs', 'hit', 'us_at_5k', 'floor-udp', '≤ 1.2 × floor, under every peer', lambda f: 1.2 * f, beats_peers=True),
    Goal('system calls a hit, saturated', 'syscalls-hit', 'total', 'floor-udp', '≤ 0.5', lambda f: 0.5),
    miss('DoT', 1.6),
    miss('DoH', 2),
    *(Goal(f'lost or SERVFAIL, 1,000 outstanding from the start, {p}', f'miss-{p.lower()}', 'q1000_unanswered', f'floor-{p.lower()}', '0', lambda f: 0) for p in ('DoT', 'DoH')),
    *(Goal(f'connections at 1,000 outstanding, {p}', f'miss-{p.lower()}', 'q1000_conns', f'floor-{p.lower()}', '≤ 2', lambda f: 2) for p in ('DoT', 'DoH')),
    *(Goal(f'miss over 20 ms RTT, {p}: p50 above the floor, ms', f'latency-{p.lower()}', 'p50_ms', f'floor-{p.lower()}', '≤ +0.2', lambda f: 0.2, relative=True) for p in ('DoT', 'DoH')),
    *(Goal(f'miss over 20 ms RTT, {p}: p99 above the floor, ms', f'latency-{p.lower()}', 'p99_ms', f'floor-{p.lower()}', '≤ +1', lambda f: 1, relative=True) for p in ('DoT', 'DoH')),
    *(Goal(f'p90 of prompt names while others take 500 ms, {p}, above the floor, ms', f'hol-{p.lower()}', 'p90_ms', f'floor-{p.lower()}', '≤ +0.5', lambda f: 0.5, relative=True) for p in ('DoT', 'DoH')),
    *(Goal(f'connections closed meanwhile, {p}', f'hol-{p.lower()}', 'closed', f'floor-{p.lower()}', '0', lambda f: 0) for p in ('DoT', 'DoH')),
    *(Goal(f'first query after {s} s of quiet, {p}: ms beyond the round trip', f'idle-{p.lower()}', f'over_{s}s_ms', f'floor-{p.lower()}', '≤ 1 RTT + 1 ms', lambda f: 1) for s in (12, 60) for p in ('DoT', 'DoH')),
    *(Goal(f'start to first answer, {p}, ms', f'cold-{p.lower()}', 'first_answer_ms', f'floor-{p.lower()}', '≤ 75', lambda f: 75) for p in ('DoT', 'DoH')),
    Goal('memory when idle, MiB', 'memory', 'idle_mib', '', '≤ 8', lambda f: 8),
    Goal('memory of a cached name with one A record, octets', 'memory', 'octets_per_entry', '', '≤ 200', lambda f: 200),
    Goal('cost of a hit, 1,000,000 names against 1,000', 'growth', 'ratio', '', '≤ 1.5 ×', lambda f: 1.5),
    *(Goal(f'one worker to two, {n}', f'scaling-{k}', 'speedup', 'floor-udp' if k == 'hit' else '', '≥ 1.7 ×', lambda f: 1.7, at_least=True) for n, k in (('hits', 'hit'), ('misses over DoT', 'dot'), ('misses over DoH', 'doh'))),
]


def is_floor(peer):
    return peer.startswith('floor')


def figure(rows, peer, goal):
    """The median of a goal's figure."""
    if goal.figure == 'q1000_unanswered':
        parts = [median(rows, peer, goal.case, f'q1000_{x}') for x in ('lost', 'bad')]
        return None if None in parts else sum(parts)
    return median(rows, peer, goal.case, goal.figure)


def peers_are_sound(rows, peer, goal):
    """A peer that loses queries is no yardstick for the cost of answering them."""
    if not goal.case.startswith('miss') or goal.figure == 'q1000_unanswered':
        return True
    return not (median(rows, peer, goal.case, 'q100_lost') or median(rows, peer, goal.case, 'q100_bad'))


def judge(rows, goal):
    """One line: floor, best peer, ours, met or not; None when it was not measured."""
    ours = figure(rows, OURS, goal)
    if ours is None:
        return None
    floor = figure(rows, goal.floor, goal) if goal.floor else None
    others = [p for p in peers_of(rows, goal.case) if p != OURS and not p.startswith('veildns') and not is_floor(p) and peers_are_sound(rows, p, goal)]
    measured = [(v, p) for p in others if (v := figure(rows, p, goal)) is not None]
    best = min(measured) if measured else None
    if goal.relative and floor is None:
        return None
    base = floor if goal.relative else 0
    is_multiple = '× floor' in goal.goal
    if 'floor' in goal.goal and floor is None:
        return None
    value, bound = ours - base, goal.bound(floor)
    met = value >= bound if goal.at_least else value <= bound + 1e-9
    met = met and not (goal.beats_peers and best and best[0] < ours)
    sign = '+' if goal.relative and value >= 0 else ''
    times = f' ({ours / floor:.2f} ×)' if is_multiple else ''
    shown_best = f'{"+" if goal.relative and best[0] - base >= 0 else ""}{show(best[0] - base)} ({best[1]})' if best else '–'
    return [goal.title, show(floor), shown_best, f'{sign}{show(value)}{times}', goal.goal, 'yes' if met else '**no**']


def table(rows):
    """The table as Markdown, and how many goals were missed."""
    judged = [j for g in GOALS if (j := judge(rows, g))]
    lines = ['| figure | floor | best peer | veildns | goal | met |', '|---|---:|---:|---:|---|---|']
    lines += ['| ' + ' | '.join(j) + ' |' for j in judged]
    return '\n'.join(lines) + '\n', sum(j[-1] != 'yes' for j in judged)
