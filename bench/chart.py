"""The chart: one panel a figure, a bar a peer, a whisker from the lowest to the highest repetition. Plain SVG that reads on
light and dark pages."""
from statistics import median
from xml.sax.saxutils import escape

from report import show, values

PANELS = [
    ('hit', 'us', 'Answer from the cache, saturated'),
    ('hit', 'us_at_5k', 'Answer from the cache, 5,000 queries a second'),
    ('miss-dot', 'q100_us', 'Forwarded by DNS over TLS, 100 outstanding'),
    ('miss-doh', 'q100_us', 'Forwarded by DNS over HTTPS, 100 outstanding'),
]
NAMES = {'floor-udp': 'bare C echo', 'floor-dot': 'bare C relay', 'floor-doh': 'bare C relay', 'dnsdist-ooo': 'dnsdist, pipelined'}
WIDTH, LEFT, RIGHT, BAR, STEP = 760, 150, 130, 14, 22
STYLE = '''
  text { font: 13px system-ui, sans-serif; fill: #57606a } .title { font-weight: 600; fill: #24292f }
  .ours { fill: #2f81f7 } .floor { fill: #8c959f; fill-opacity: .55 } .other { fill: #8c959f }
  .whisker { stroke: #57606a; stroke-width: 1.2 }
  @media (prefers-color-scheme: dark) { text { fill: #9198a1 } .title { fill: #e6edf3 } .whisker { stroke: #d1d9e0 } }
'''


def loses(rows, peer, case):
    """True for a peer that left queries of this case unanswered or without result: giving up is cheap."""
    return any(sum(values(rows, peer, case, f'q100_{what}')) > 0 for what in ('lost', 'bad'))


def panel(rows, case, figure, title, top):
    """One panel's elements and its height."""
    bars = {p: v for p in dict.fromkeys(r['peer'] for r in rows if r['case'] == case) if (v := values(rows, p, case, figure))}
    ordered = sorted(bars.items(), key=lambda b: (not b[0].startswith('floor'), median(b[1])))
    if not ordered:
        return [], 0
    # One very slow peer must not flatten the others: its bar is cut, its figure is not.
    middle = sorted(median(v) for _, v in ordered)
    limit = min(max(max(v) for _, v in ordered), 8 * middle[0])
    scale = (WIDTH - LEFT - RIGHT) / limit
    out = [f'<text class="title" x="{LEFT}" y="{top + 14}">{escape(title)}</text>']
    y = top + 26
    for peer, v in ordered:
        kind = 'ours' if peer == 'veildns' else 'floor' if peer.startswith('floor') else 'other'
        mid, low, high = median(v), min(v), max(v)
        width, middle_y = min(mid, limit) * scale, y + BAR / 2
        out.append(f'<text x="{LEFT - 8}" y="{y + 11.5}" text-anchor="end">{escape(NAMES.get(peer, peer))}</text>')
        out.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>')
        if high > low and mid <= limit:
            x1, x2 = LEFT + low * scale, LEFT + min(high, limit) * scale
            out.append(f'<path class="whisker" fill="none" d="M{x1:.1f} {middle_y}H{x2:.1f}M{x1:.1f} {middle_y - 4}v8M{x2:.1f} {middle_y - 4}v8"/>')
        at = LEFT + max(width, min(high, limit) * scale) + 6
        note = ' µs' + (' (cut)' if mid > limit else '') + (' *' if loses(rows, peer, case) else '')
        out.append(f'<text x="{at:.1f}" y="{y + 11.5}">{show(mid)}{note}</text>')
        y += STEP
    return out, y - top + 14


def chart(rows):
    """The whole picture, or None when nothing of it was measured."""
    body, top = [], 10
    for case, figure, title in PANELS:
        elements, height = panel(rows, case, figure, title, top)
        body += elements
        top += height
    if not body:
        return None
    for foot in ('CPU time of the server an answered query; shorter is better.', 'Whiskers: lowest and highest repetition.'):
        body.append(f'<text x="{LEFT}" y="{top + 8}">{foot}</text>')
        top += 18
    top -= 18
    if any(loses(rows, r['peer'], case) for case, _, _ in PANELS for r in rows):
        top += 18
        body.append(f'<text x="{LEFT}" y="{top + 8}">* left queries unanswered or answered SERVFAIL</text>')
    label = 'CPU time per answered query, by server'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 22}" width="{WIDTH}" height="{top + 22}" role="img" aria-label="{label}">'
            f'<style>{STYLE}</style>\n' + '\n'.join(body) + '\n</svg>\n')
