"""submissions/ledger.png: public against val, each submission with its val interval.

In: the ledger's rows of one metric. Out: a PNG. On the line both scores are equal; a point whose bar
does not reach the line is a shake-up.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from podium.trust.ledger import Entry, describe_correlation

_INSIDE, _OUTSIDE = "#1f6f8b", "#c8431c"  # blue and vermilion: told apart without red and green
_NAMED = 12


def draw_ledger(entries: Sequence[Entry]) -> bytes:
    """The picture.

    Args:
        entries: at least one, all of one metric and with a val score.

    Returns:
        PNG, 1120 x 960 px.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    figure = Figure(figsize=(7, 6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ends = [
        value
        for entry in entries
        for value in (entry.val, entry.val_low, entry.val_high, entry.public)
        if value is not None
    ]
    margin = 0.14 * (max(ends) - min(ends)) or 0.01
    limits = min(ends) - margin, max(ends) + margin
    axes.plot(limits, limits, color="#888888", linewidth=1, zorder=1, label="public = val")
    for outside, color, label in (
        (False, _INSIDE, "public within the 95 % interval of val"),
        (True, _OUTSIDE, "public outside it: a shake-up"),
    ):
        chosen = [entry for entry in entries if (entry.is_inside is False) == outside]
        if not chosen:
            continue
        vals = [float(entry.val or 0) for entry in chosen]
        below = [val - _or(entry.val_low, val) for entry, val in zip(chosen, vals, strict=True)]
        above = [_or(entry.val_high, val) - val for entry, val in zip(chosen, vals, strict=True)]
        axes.errorbar(
            vals,
            [entry.public for entry in chosen],
            xerr=[below, above],
            fmt="o",
            color=color,
            elinewidth=1.2,
            capsize=3,
            markersize=6,
            zorder=2,
            label=label,
        )
    for entry in entries[-_NAMED:]:
        axes.annotate(
            entry.name,
            (_or(entry.val_high, float(entry.val or 0)), entry.public),
            xytext=(5, 0),
            textcoords="offset points",
            verticalalignment="center",
            fontsize=8,
            color="#333333",
            zorder=1.5,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel(f"val {entries[-1].metric}, 95 % interval")
    axes.set_ylabel(f"public {entries[-1].metric}")
    axes.set_title(describe_correlation(entries), fontsize=9)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
