"""What a param may ask for where the competition's rules forbid it: nothing.

In: params. Out: one line and exit 2 before any work. What was done is proven afterwards, from the
models' cards, by `podium.trust.contract.verdict`.
"""

from __future__ import annotations

from podium.data.params import MetricName
from podium.data.views import Tta
from podium.errors import PodiumError

# Organisers who mean MiB allow more than this: a model within the decimal limit is within both.
BYTES_PER_MB = 1_000_000


def check_start(
    pretrained: bool, weights: str | None, allows_pretrained: bool, allows_external_data: bool
) -> None:
    """Refuse initial weights that the rules forbid.

    Args:
        pretrained: `model.pretrained`.
        weights: `model.weights`; of a file nobody knows what it has learned from.
        allows_pretrained: `competition.rules.pretrained`.
        allows_external_data: `competition.rules.external_data`.

    Raises:
        PodiumError: either without the first permission; a file without the second.
    """
    if pretrained and not allows_pretrained:
        raise PodiumError(
            "model.pretrained: expected false, since competition.rules.pretrained is false, got "
            "true: set model.pretrained: false and model.freeze: none"
        )
    permissions = {"pretrained": allows_pretrained, "external_data": allows_external_data}
    for name, is_allowed in permissions.items():
        if weights and not is_allowed:
            raise PodiumError(
                f"model.weights: expected nothing, since competition.rules.{name} is false, got "
                f"{weights}: what a file has learned from cannot be proven"
            )


def check_tta(tta: Tta | None, is_allowed: bool) -> None:
    """Refuse views that the rules forbid.

    Args:
        tta: `evaluate.tta`; None, auto, obeys the rules by itself.
        is_allowed: `competition.rules.tta`.

    Raises:
        PodiumError: more than the plain image where that is not allowed.
    """
    if tta not in (None, "none") and not is_allowed:
        raise PodiumError(
            "evaluate.tta: expected none, since competition.rules.tta is false, "
            f"got {tta}: set evaluate.tta: none"
        )


def check_pseudo_labels(threshold: float, is_allowed: bool) -> None:
    """Refuse a second round that the rules forbid.

    Args:
        threshold: `train.pseudo_threshold`.
        is_allowed: `competition.rules.pseudo_labels`.

    Raises:
        PodiumError: more than 0 where that is not allowed.
    """
    if threshold and not is_allowed:
        raise PodiumError(
            "train.pseudo_threshold: expected 0, since competition.rules.pseudo_labels is false, "
            f"got {threshold:g}: set train.pseudo_threshold: 0"
        )


def describe_metric(primary: MetricName, metric: MetricName | None) -> str:
    """What is to be said where models are judged by another metric than the organiser's (allowed, and
    sometimes better); "" where it is the same or not known."""
    if metric is None or metric == primary:
        return ""
    return (
        f"the organiser scores {metric} (competition.rules.metric), but models are judged and chosen "
        f"by evaluate.primary, {primary}"
    )
