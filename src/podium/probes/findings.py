"""Findings: one sentence, the number behind it, how grave it is, and what to do.

In: an effect with its 95 % interval, the floor and the top that it is compared with. Out: a severity
by one rule for all checks, so that noise stays quiet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["alarm", "notice", "quiet", "not measured"]
SEVERITIES: tuple[Severity, ...] = ("alarm", "notice", "quiet", "not measured")

# An effect alarms when the lower bound of its interval closes this share of the gap between what
# needs no look at the image (the majority class) and the model; from a quarter on it is told.
ALARM_SHARE, NOTICE_SHARE = 0.5, 0.25
_DECIMALS = 6


@dataclass(frozen=True)
class Effect:
    """A number with its 95 % interval; shares 0..1, an AUC 0.5..1, or a loss in shares."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name, a few words.
        severity: see `judge`.
        sentence: what was found, in plain words.
        advice: what to do about it; "" where there is nothing to do.
        effect: the number behind it, None where nothing was measured.
        alarm_at: what the lower bound must reach to alarm, None where nothing can.
    """

    check: str
    severity: Severity
    sentence: str
    advice: str = ""
    effect: Effect | None = None
    alarm_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Rounded to 6 decimals; `effect` as value, low and high."""
        record = asdict(self)
        effect = record.pop("effect") or {"value": None, "low": None, "high": None}
        alarm_at = record.pop("alarm_at")
        numbers = {**effect, "alarm_at": alarm_at}
        rounded = {k: None if v is None else round(v, _DECIMALS) for k, v in numbers.items()}
        return {**record, **rounded}


@dataclass(frozen=True)
class Scale:
    """What effects are measured against.

    Attributes:
        floor: score of the majority class, 0..1.
        top: score of the model; 1 where the model is not surely better than the floor, since half
            of no gap would make an alarm of any noise.
    """

    floor: float
    top: float

    def reaches(self, share: float) -> float:
        """The score that closes `share` of the gap."""
        return self.floor + share * (self.top - self.floor)

    def judge_score(self, effect: Effect) -> Severity:
        """Of a score that something got which should get no more than the floor."""
        return _judge(effect.low, self.reaches(ALARM_SHARE), self.reaches(NOTICE_SHARE))

    def judge_loss(self, effect: Effect) -> Severity:
        """Of points that are lost when something is taken away that should not matter."""
        return _judge(effect.low, self.loss_that_alarms(), NOTICE_SHARE * (self.top - self.floor))

    def loss_that_alarms(self) -> float:
        """What `judge_loss` calls an alarm, as the loss's lower bound."""
        return ALARM_SHARE * (self.top - self.floor)

    def looked_up_that_alarms(self) -> float:
        """The share of images whose class is known without a look at them that alarms: who knows
        these, and of the others says the commonest class, closes half the gap."""
        unknown = 1 - self.floor
        return self.loss_that_alarms() / unknown if unknown else 1.0


def make_scale(majority: float, model: Effect | None) -> Scale:
    """The scale of a model's score, or of a perfect one where there is none that tells anything."""
    if model is None or model.low <= majority:
        return Scale(majority, 1.0)
    return Scale(majority, model.value)


def order_findings(findings: Sequence[Finding]) -> list[Finding]:
    """The gravest first; within a severity as they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _judge(low: float, alarm_at: float, notice_at: float) -> Severity:
    if low >= alarm_at:
        return "alarm"
    return "notice" if low >= notice_at else "quiet"
