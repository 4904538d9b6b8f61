"""A/A runs as a picture: the paired ratio of each run with its interval, the naive ratio beside it."""

from __future__ import annotations

from collections.abc import Sequence

from framegate.bench.aa import Plan, Run, ways

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 960, 360, 58, 34, 40
STYLE = """
svg { font: 12px system-ui, sans-serif; background: #fff; color: #16202c; }
text { fill: currentColor; } .grid { stroke: #dfe4ea; } .margin { fill: #14804a; opacity: .08; }
.bar { stroke: #0b66d8; stroke-width: 1.2; } .dot { fill: #0b66d8; } .naive { fill: #c8323c; opacity: .55; }
@media (prefers-color-scheme: dark) { svg { background: #171e26; color: #e6ebf1; } .grid { stroke: #2a343f; }
  .bar { stroke: #68aeff; } .dot { fill: #68aeff; } .naive { fill: #ff7b83; } .margin { fill: #4cc38a; opacity: .12; } }
"""


def draw(runs: Sequence[Run], plan: Plan, margin: float) -> str:
    """An SVG; runs in the order in which they were made. Ratios beyond the axis lie on its edge, and are counted."""
    first, *_, last = (way for way in ways(plan) if way.margin == "p50")
    paired, naive = ([way.compare(run) for run in runs] for way in (first, last))
    reach = 3.2 * margin
    beyond = sum(one.value is not None and abs(one.value - 1) > reach for one in naive)

    def y(ratio: float) -> float:
        ratio = min(max(ratio, 1 - reach), 1 + reach)
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 + reach - ratio) / (2 * reach), 1)

    def x(number: int) -> float:
        return round(LEFT + (WIDTH - LEFT - 16) * (number + 0.5) / len(runs), 1)

    ticks = [1 + times * margin for times in range(-3, 4)]
    parts = [
        f'<rect class="margin" x="{LEFT}" y="{y(1 + margin)}" width="{WIDTH - LEFT - 16}" '
        f'height="{y(1 - margin) - y(1 + margin):.1f}"/>'
    ]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 16}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:.2f}</text>')
    for number, one in enumerate(naive):
        if one.value is not None:
            parts.append(f'<circle class="naive" cx="{x(number)}" cy="{y(one.value)}" r="2.4"/>')
    for number, one in enumerate(paired):
        if one.value is not None and one.low is not None and one.high is not None:
            at = x(number)
            parts.append(f'<line class="bar" x1="{at}" x2="{at}" y1="{y(one.low)}" y2="{y(one.high)}"/>')
            parts.append(f'<circle class="dot" cx="{at}" cy="{y(one.value)}" r="2"/>')
    title = f"The same model against itself, {len(runs)} runs: time ratio (p50)"
    legend = (
        f'<circle class="dot" cx="{LEFT + 6}" cy="{HEIGHT - 14}" r="4"/><text x="{LEFT + 16}" y="{HEIGHT - 10}">'
        f'paired, with interval</text><circle class="naive" cx="{LEFT + 186}" cy="{HEIGHT - 14}" r="4"/>'
        f'<text x="{LEFT + 196}" y="{HEIGHT - 10}">one after the other, {beyond} beyond the edge</text>'
        f'<text x="{LEFT + 456}" y="{HEIGHT - 10}">shaded: the margin of {margin:.0%}</text>'
    )
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f'<style>{STYLE}</style><text x="{LEFT}" y="20" font-weight="600">{title}</text>{body}{legend}</svg>\n'
    )
