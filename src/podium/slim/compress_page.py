"""reports/compress/: the candidates as a table and a Pareto plot; the plot of clocks stands apart.

In: one row of numbers per candidate. Out: HTML and CSV that are the same on every run. What a clock
says goes into a PNG in metrics/measured/, which nothing depends on; the page shows it where it is.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from podium.data.rules import BYTES_PER_MB
from podium.files import write_bytes, write_csv, write_text

TEMPLATE = Path(__file__).with_name("compress.html.j2")
PAGE_FILE, ROWS_FILE = "compress.html", "candidates.csv"
_COLORS = {"float32": "#3b78c4", "bf16": "#2a9d8f", "int8": "#d1782f", "qat": "#8e5aa8"}
_OTHER_COLOR = "#777777"
_MARKERS = {"paddle": "o", "onnx": "s"}
_SVG_SETTINGS = {"svg.hashsalt": "podium", "svg.fonttype": "none", "font.size": 10}
_LEAST_AREA, _AREA_PER_MB = 60, 60
# Points of neighbours' labels above and below, so that they do not cover each other.
_LABEL_OFFSETS = (-30, 22, -44, 36)


@dataclass(frozen=True)
class CompressPage:
    """What the page shows.

    Attributes:
        competition: its name.
        metric: the primary one, a key of each row.
        shipped: name of the candidate in deploy/; None where none may ship.
        reason: why.
        rows: candidate -> its numbers.
        missing: candidate -> why it was not made.
        scale: a small model that is no candidate -> its numbers; empty where it has none.
        sensitivity: net -> what its outputs lose when so much of one layer goes: rows of round, layer,
            ratio and loss.
    """

    competition: str
    metric: str
    shipped: str | None
    reason: str
    rows: Mapping[str, Mapping[str, Any]]
    missing: Mapping[str, str]
    scale: Mapping[str, Mapping[str, Any]]
    sensitivity: Mapping[str, Sequence[Mapping[str, Any]]]


def write_compress_report(folder: Path, page: CompressPage) -> None:
    """Write page and rows to `folder`."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    sizes = {name: row["bytes"] / BYTES_PER_MB for name, row in page.rows.items()}
    plot = _draw(page, sizes, sizes, "MB on disk", "svg").decode("utf-8")
    curves = {net: _draw_curves(rows) for net, rows in page.sensitivity.items()}
    text = template.render(
        page=page, plot=plot[plot.index("<svg") :], curves=curves, mb=BYTES_PER_MB
    )
    write_text(folder / PAGE_FILE, text)
    rows = [
        {
            "candidate": name,
            "mb": round(sizes[name], 6),
            "mflops": row["mflops"],
            "score": row[page.metric],
            "changed": row["changed"],
        }
        for name, row in page.rows.items()
    ]
    write_csv(folder / ROWS_FILE, pd.DataFrame(rows))


def write_clocks_plot(
    path: Path, page: CompressPage, clocks: Mapping[str, Mapping[str, Any]]
) -> None:
    """Score against latency, a bubble's area by MB: of this machine, on this day."""
    sizes = {name: row["bytes"] / BYTES_PER_MB for name, row in page.rows.items()}
    latency = {name: clocks[name]["latency_p50_ms"] for name in page.rows}
    label = "median ms for one image, pixels to outputs, one thread (this machine)"
    write_bytes(path, _draw(page, latency, sizes, label, "png"))


def find_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names that no other beats: as cheap and better, or as good and cheaper; cheapest first.

    Args:
        points: name -> (cost, score), low costs and high scores are good.
    """
    front: list[str] = []
    best = -np.inf
    for name, (_, score) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if score > best:
            front.append(name)
            best = score
    return front


def _draw_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per layer and round of pruning, early layers dark, later rounds dashed, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    curves: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for row in rows:
        curves.setdefault((row["round"], row["layer"]), []).append((row["ratio"], row["loss"]))
    layers = list(dict.fromkeys(layer for _, layer in curves))
    rounds = len({number for number, _ in curves})
    with matplotlib.rc_context(_SVG_SETTINGS):
        figure, axes = plt.subplots(figsize=(8.4, 4.2), layout="constrained")
        colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, len(layers)))
        color_of = dict(zip(layers, colors, strict=True))
        for (number, layer), points in curves.items():
            axes.plot(
                *zip(*points, strict=True),
                color=color_of[layer],
                lw=1.2,
                ls="-" if number == 1 else "--",
                marker=".",
                label=layer if rounds == 1 else f"{layer}, round {number}",
            )
        axes.set_xlabel("share of the layer's filters that goes")
        axes.set_ylabel("what the outputs lose")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=6, ncols=2, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
        plt.close(figure)
    text = stream.getvalue().decode("utf-8")
    return text[text.index("<svg") :]


def _draw(
    page: CompressPage,
    costs: Mapping[str, float],
    sizes: Mapping[str, float],
    label: str,
    kind: str,
) -> bytes:
    """The plot as SVG or PNG; equal arguments give equal bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with matplotlib.rc_context(_SVG_SETTINGS):
        figure, axes = plt.subplots(figsize=(8.4, 4.6), layout="constrained")
        scores = {name: float(row[page.metric]) for name, row in page.rows.items()}
        sign = -1 if page.metric == "log_loss" else 1
        front = find_front({name: (costs[name], sign * scores[name]) for name in page.rows})
        axes.plot(
            [costs[n] for n in front], [scores[n] for n in front], color="#bbbbbb", lw=1, zorder=1
        )
        for turn, name in enumerate(sorted(page.rows, key=lambda n: (costs[n], n))):
            precision, format_ = name.split("-")[-2:]
            axes.scatter(
                costs[name],
                scores[name],
                s=_LEAST_AREA + _AREA_PER_MB * sizes[name],
                color=_COLORS.get(precision, _OTHER_COLOR),
                marker=_MARKERS.get(format_, "^"),
                alpha=0.75,
                edgecolor="black" if name == page.shipped else "none",
                linewidth=2,
                zorder=2,
            )
            axes.annotate(
                f"{name} ({sizes[name]:.1f} MB)" + (", ships" if name == page.shipped else ""),
                (costs[name], scores[name]),
                xytext=(0, _LABEL_OFFSETS[turn % len(_LABEL_OFFSETS)]),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axes.set_xlabel(label)
        axes.set_ylabel(f"val {page.metric.replace('_', ' ')}")
        axes.margins(y=0.4)
        axes.set_xlim(0, 1.25 * max(costs.values()))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        stream = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, dpi=110, metadata=metadata)
        plt.close(figure)
    return stream.getvalue()
