"""The choice among candidates: what may ship by `compress.select` and by the organiser's limit of
bytes, which does, why, at what cost.

In: one row of numbers per candidate. Out: a name and sentences. Bytes, operations and scores rank,
since they are the same on every run; a clock only accepts or refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podium.data.rules import BYTES_PER_MB
from podium.errors import PodiumError
from podium.slim.params import SelectParams

_MOST = {"bytes": "the fewest bytes", "score": "the best score", "flops": "the fewest operations"}


@dataclass(frozen=True)
class Entrant:
    """What the choice knows of a candidate.

    Attributes:
        name: of the candidate.
        bytes: of its model files.
        mflops: floating-point operations of an image, in millions.
        drop: what it loses of the primary metric; negative: it gains.
        drop_low, drop_high: paired 95 % interval of that.
        latency_ms: median at batch 1.
    """

    name: str
    bytes: int
    mflops: float
    drop: float
    drop_low: float
    drop_high: float
    latency_ms: float


@dataclass(frozen=True)
class Choice:
    """Which ships, and sentences that say why and what the constraints cost."""

    name: str
    reason: str


def choose(
    entrants: Sequence[Entrant], select: SelectParams, metric: str, max_model_mb: float | None
) -> Choice:
    """The best legal candidate.

    Args:
        entrants: those that params ask for and that could be made.
        select: `compress.select`.
        metric: name of the primary one.
        max_model_mb: `competition.rules.max_model_mb`.

    Raises:
        PodiumError: there is none, or none is legal; then the nearest one is named.
    """
    if not entrants:
        raise PodiumError("none of the candidates that compress asks for could be made")
    broken = {e.name: _violations(e, select, metric, max_model_mb) for e in entrants}
    ranked = sorted(entrants, key=lambda entrant: _rank(entrant, select.prefer))
    legal = [entrant for entrant in ranked if not broken[entrant.name]]
    if not legal:
        nearest = min(ranked, key=lambda e: (sum(x for x, _ in broken[e.name]), e.name))
        raise PodiumError(
            f"none of {len(entrants)} candidates may ship; the nearest is {nearest.name}: "
            f"{'; '.join(text for _, text in broken[nearest.name])}: loosen that, or add to "
            "compress.nets, precisions or formats"
        )
    best = legal[0]
    sentences = [f"{best.name} ships: {_MOST[select.prefer]} of {len(legal)} that may"]
    sentences += [
        f"{entrant.name} may not: {'; '.join(text for _, text in broken[entrant.name])}"
        for entrant in ranked
        if broken[entrant.name]
    ]
    if best is not ranked[0]:
        sentences.append(f"The constraints cost {_cost(best, ranked[0], metric)}")
    if best.drop != 0 and best.drop_low <= 0 <= best.drop_high:
        sentences.append(
            f"Its {metric} differs from the trained net's by {-best.drop:+z.4f}, which is within "
            f"the noise of these images ({-best.drop_high:+z.4f} to {-best.drop_low:+z.4f})"
        )
    return Choice(best.name, ". ".join(sentences))


def _rank(entrant: Entrant, prefer: str) -> tuple[float | str, ...]:
    measures = {"bytes": entrant.bytes, "score": entrant.drop, "flops": entrant.mflops}
    return (measures.pop(prefer), *measures.values(), entrant.name)


def _violations(
    entrant: Entrant, select: SelectParams, metric: str, max_model_mb: float | None
) -> list[tuple[float, str]]:
    """Each constraint that it breaks: by what share of the limit, and in words."""
    found = []
    limits = {"compress.select.max_mb": select.max_mb}
    limits["competition.rules.max_model_mb"] = max_model_mb
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if given:
        name = min(given, key=lambda key: given[key])
        # As submit compares them: what may ship here is legal there, to the byte.
        if entrant.bytes > given[name] * BYTES_PER_MB:
            mb = entrant.bytes / BYTES_PER_MB
            found.append((mb / given[name] - 1, f"{mb:.3f} MB, {name} is {given[name]:g}"))
    if select.max_mflops is not None and entrant.mflops > select.max_mflops:
        text = f"{entrant.mflops:.1f} MFLOPs, compress.select.max_mflops is {select.max_mflops:g}"
        found.append((entrant.mflops / select.max_mflops - 1, text))
    if not entrant.drop <= select.max_drop:  # also where it is NaN
        text = (
            f"it loses {entrant.drop:.4f} {metric} (95 %: {entrant.drop_low:.4f} to "
            f"{entrant.drop_high:.4f}), compress.select.max_drop is {select.max_drop:g}"
        )
        found.append((entrant.drop / max(select.max_drop, 1e-3) - 1, text))
    if select.max_ms is not None and entrant.latency_ms > select.max_ms:
        text = f"{entrant.latency_ms:.2f} ms here, compress.select.max_ms is {select.max_ms:g}"
        found.append((entrant.latency_ms / select.max_ms - 1, text))
    return found


def _cost(best: Entrant, free: Entrant, metric: str) -> str:
    """What is paid for not taking the one that would be best without constraints."""
    parts = [
        f"{(best.bytes - free.bytes) / BYTES_PER_MB:+.3f} MB",
        f"{best.mflops - free.mflops:+.1f} MFLOPs",
        f"{free.drop - best.drop:+.4f} {metric}",
    ]
    return f"{', '.join(parts)} against {free.name}"
