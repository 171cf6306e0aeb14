"""The organiser's limit on model size: which submission may be handed in."""

from __future__ import annotations

from typing import Any

from podium.errors import PodiumError

# Organisers who mean MiB allow more than this: a model within the decimal limit is within both.
BYTES_PER_MB = 1_000_000


def check_size_limit(sizes: dict[str, int], max_model_mb: float | None) -> dict[str, Any]:
    """Compare each submission's model with `competition.max_model_mb`.

    Args:
        sizes: submission file -> bytes of the model that made it.
        max_model_mb: megabytes (10^6 bytes), or None for no limit.

    Returns:
        submission file -> {model_mb, may_be_handed_in}.

    Raises:
        PodiumError: none is within the limit.
    """
    report = {
        name: {
            "model_mb": round(size / BYTES_PER_MB, 3),
            "may_be_handed_in": max_model_mb is None or size <= max_model_mb * BYTES_PER_MB,
        }
        for name, size in sizes.items()
    }
    if not any(facts["may_be_handed_in"] for facts in report.values()):
        found = ", ".join(f"{name}: {facts['model_mb']} MB" for name, facts in report.items())
        raise PodiumError(
            f"competition.max_model_mb is {max_model_mb}, but {found}: choose a smaller model.name"
        )
    return report


def describe_size_limit(report: dict[str, Any], max_model_mb: float | None) -> str:
    """One line: which of the submissions may be handed in."""
    legal = [name for name, facts in report.items() if facts["may_be_handed_in"]]
    if max_model_mb is None:
        return "no limit on model size: each of " + " and ".join(legal) + " may be handed in"
    sizes = ", ".join(f"{name} {facts['model_mb']} MB" for name, facts in report.items())
    return f"limit {max_model_mb:g} MB ({sizes}): hand in " + " or ".join(legal)
