"""Tables, ratios and charts of what was measured. Medians over the rounds; a ratio is taken within each round."""

from html import escape
from statistics import median

from contestants import BEFORE

COLUMNS = [
    ("answered_per_s", "answered/s", "{:.0f}"),
    ("end_to_end_per_s", "end to end/s", "{:.0f}"),
    ("cpu_s_per_10k", "CPU-s/10 000", "{:.2f}"),
    ("rss_idle_mib", "MiB idle", "{:.0f}"),
    ("rss_load_mib", "MiB load", "{:.0f}"),
    ("closed_p50_ms", "p50 ms", "{:.1f}"),
    ("closed_p99_ms", "p99 ms", "{:.1f}"),
    ("half_p50_ms", "p50 ms at half", "{:.1f}"),
    ("half_p99_ms", "p99 ms at half", "{:.1f}"),
]


def spread(values):
    """Half of what lies between the least and the most, as a part of the median: ± so much."""
    middle = median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def ratio(rounds, name, other, figure):
    """The median over the rounds of name's figure by other's, and its least and most."""
    ratios = [one[name][figure] / one[other][figure] for one in rounds if name in one and other in one]
    return (median(ratios), min(ratios), max(ratios)) if ratios else None


def aligned(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def table(rounds, names):
    rows = [["", *(head for _, head, _ in COLUMNS), "spread"]]
    for name in names:
        measured = [one[name] for one in rounds if name in one]
        if not measured:
            continue
        cells = []
        for figure, _, form in COLUMNS:
            values = [one[figure] for one in measured if figure in one]
            cells.append(form.format(median(values)) if values else "-")
        cells.append(f"±{spread([one['end_to_end_per_s'] for one in measured]) * 100:.0f} %")
        rows.append([name, *cells])
    return aligned(rows)


def disturbed(rounds):
    """The lines of what else the machine did."""
    return "\n".join(
        f"    round {number}: {name}: {', '.join(one['disturbances'])}"
        for number, figures in enumerate(rounds, 1) for name, one in figures.items() if one.get("disturbances"))


def goals(rounds, scenarios):
    """The lines of the contract: what is wanted, what was seen."""
    lines = []

    def line(words, seen, wanted, reached, form="{:.2f}", between=None):
        span = f" ({form.format(between[0])} to {form.format(between[1])})" if between else ""
        verdict = "" if wanted == "-" else "reached" if reached else "NOT REACHED"
        lines.append([words, wanted, form.format(seen) + span, verdict])

    before = [name for name in (rounds[0] if rounds else []) if name.startswith(BEFORE)]
    for words, other, figure, least, most in [
        ("end to end / floor", "floor", "end_to_end_per_s", 1.05, None),
        ("end to end / floor whose messages are like countersign's", "floor-same", "end_to_end_per_s", None, None),
        ("end to end / Node, 1 process", "node-1", "end_to_end_per_s", None, None),
        ("end to end / Node, 2 processes", "node-2", "end_to_end_per_s", None, None),
        ("end to end / Rust handler without confirms", "rust-handler", "end_to_end_per_s", 1.0, None),
        ("CPU / Node, 1 process", "node-1", "cpu_s_per_10k", None, 0.6),
        *((f"end to end / countersign {name}", name, "end_to_end_per_s", None, None) for name in before),
        *((f"CPU / countersign {name}", name, "cpu_s_per_10k", None, None) for name in before),
        ("p99 at half / Node, 1 process", "node-1", "half_p99_ms", None, 1.0),
        ("p99 at half / Rust handler without confirms", "rust-handler", "half_p99_ms", None, 1.0),
    ]:
        found = ratio(rounds, "countersign", other, figure)
        if found:
            wanted = f">= {least}" if least else f"<= {most}" if most else "-"
            line(words, found[0], wanted, found[0] >= least if least else found[0] <= (most or 0), between=found[1:])
    own = [one["countersign"] for one in rounds if "countersign" in one]
    for words, figure, wanted in [
        ("CPU-s per 10 000 callbacks", "cpu_s_per_10k", 0.5),
        ("p99 ms at half of the own maximum", "half_p99_ms", 5),
        ("RSS MiB idle", "rss_idle_mib", 24),
        ("RSS MiB under load", "rss_load_mib", 64),
    ]:
        if own:
            values = [one[figure] for one in own]
            seen = median(values)
            line(words, seen, f"<= {wanted}", seen <= wanted, between=(min(values), max(values)))
    wanted = {"without-broker": (1.0, None), "drain": (None, None), "million": (0.9, None), "flat": (None, 1.1)}
    for name, (words, measured) in scenarios.items():
        ratios = [one["ratio"] for one in measured]
        seen, (least, most) = median(ratios), wanted[name]
        text = f">= {least}" if least else f"<= {most}" if most else "-"
        line(words, seen, text, seen >= least if least else seen <= (most or 0), between=(min(ratios), max(ratios)))
        if name == "drain":
            same = [one["ratio_same"] for one in measured]
            line("the same / bare lapin whose messages are like countersign's", median(same), ">= 1.0", median(same) >= 1.0,
                 between=(min(same), max(same)))
        if name == "million":
            ready = [one["ready_ms"] for one in measured]
            line("ms from start to ready over these rows", median(ready), "<= 100", median(ready) <= 100, "{:.0f}",
                 (min(ready), max(ready)))
    return aligned([["", "wanted", "seen (least to most)", ""], *lines]) if lines else ""


# --- charts -----------------------------------------------------------------------------------

INK, PALE, OURS, THEIRS, LIMIT = "#1f2328", "#d0d7de", "#0969da", "#8c959f", "#c9d1d9"


def _text(x, y, words, anchor="start", size=13, weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
            f'fill="{INK}">{escape(str(words))}</text>')


def _svg(width, height, parts):
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>', *parts, "</svg>", ""])


def chart(rounds, contestants):
    """Bars: callbacks end to end in a second, with a whisker from the least to the most, and CPU beside them."""
    rows = []
    for one in contestants:
        measured = [figures[one.name] for figures in rounds if one.name in figures]
        if measured:
            rows.append((one.name, one.words, [m["end_to_end_per_s"] for m in measured],
                         median(m["cpu_s_per_10k"] for m in measured)))
    # A limit that is far off would leave the others no room: its bar is cut, its number is not.
    most = max(max(values) for name, _, values, _ in rows if not name.startswith(("bare-", "publish-")) or len(rows) < 4)
    left, scale, step, top = 330, 420 / most, 34, 64
    parts = [_text(20, 28, "Callbacks in a second, end to end", size=17, weight="bold"),
             _text(20, 48, f"median of {len(rounds)} rounds in one run; whisker: least to most; right: CPU-s per 10 000")]
    for index, (name, words, values, cpu) in enumerate(rows):
        y = top + index * step
        fill = OURS if name == "countersign" else LIMIT if name.startswith(("bare-", "publish-")) else THEIRS
        length, low, high = (min(value * scale, 430) for value in (median(values), min(values), max(values)))
        mark = (f'M{left + low:.1f} {y + 11}H{left + high:.1f}M{left + low:.1f} {y + 7}v8M{left + high:.1f} {y + 7}v8'
                if high < 430 else f"M{left + 422} {y + 24}l4 -26M{left + 427} {y + 24}l4 -26")
        parts += [
            _text(left - 10, y + 16, words, "end"),
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="22" fill="{fill}"/>',
            f'<path d="{mark}" stroke="{INK}" fill="none"/>',
            _text(left + high + 8, y + 16, f"{median(values):,.0f}".replace(",", " ")),
            _text(860, y + 16, f"{cpu:.2f}", "end"),
        ]
    return _svg(880, top + len(rows) * step + 16, parts)


def plots(rows, panels):
    """Lines over time, one panel for each figure; from 0, so that flat looks flat."""
    width, height, left, gap = 880, 150, 70, 46
    last = rows[-1]["elapsed_s"] or 1
    parts = []
    for index, (figure, words) in enumerate(panels):
        top = 30 + index * (height + gap)
        values = [row[figure] for row in rows]
        most = max(values) or 1
        point = [(left + row["elapsed_s"] / last * (width - left - 20), top + height - value / most * height)
                 for row, value in zip(rows, values)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in point)
        parts += [
            _text(left, top - 8, words, weight="bold"),
            f'<path d="M{left} {top}V{top + height}H{width - 20}" stroke="{PALE}" fill="none"/>',
            _text(left - 8, top + 10, f"{most:g}", "end", 11),
            _text(left - 8, top + height, "0", "end", 11),
            _text(width - 20, top + height + 16, f"{last / 60:.0f} min", "end", 11),
            f'<path d="{path}" stroke="{OURS}" stroke-width="1.5" fill="none"/>',
        ]
    return _svg(width, 30 + len(panels) * (height + gap), parts)
