"""contract.json: each rule of the competition in a line, kept or broken, and by what.

In: `competition.rules`; what made a submission, as its models' cards have it (not as params.yaml
says now); its bytes. Out: a verdict for each submission. Only a submission that breaks no rule is
written, and only its hash is taken by `podium log-score`.

A clock is no content: the latency decides whether there is a submission, its figure stands in
metrics/measured/.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from podium.data.params import LOWER_IS_BETTER, MetricName, RulesParams
from podium.data.rules import BYTES_PER_MB, describe_metric
from podium.data.views import Tta, count_views
from podium.errors import PodiumError
from podium.files import write_json

if TYPE_CHECKING:
    from podium.tasks.answers import Answers

CONTRACT_FILE = Path("contract.json")
CONTRACT_FORMAT = 1

# met, broken: proven. warned: allowed, but look at it. open: not to be proven here.
Verdict = Literal["met", "broken", "warned", "open"]


@dataclass(frozen=True)
class Line:
    """One rule."""

    rule: str
    verdict: Verdict
    words: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.words}"


@dataclass(frozen=True)
class Making:
    """What made a submission.

    Attributes:
        pretrained: whether a net began with published weights.
        weights: files that nets began with instead.
        pseudo_threshold: 0: no net has learned from test images.
        tta: the views that were averaged.
        nets: how many nets' answers were averaged.
        model_bytes: of all their files.
        latency_ms: median time from a decoded image to its answer; None where it was not measured,
            because there is no limit or the model is not the one in deploy/.
    """

    pretrained: bool
    weights: tuple[str, ...]
    pseudo_threshold: float
    tta: Tta
    nets: int
    model_bytes: int
    latency_ms: float | None = None

    @classmethod
    def from_cards(
        cls,
        cards: Sequence[Mapping[str, Any]],
        tta: Tta,
        model_bytes: int,
        latency_ms: float | None = None,
    ) -> Making:
        """What the nets' cards say.

        Raises:
            PodiumError: a card lacks it.
        """
        try:
            models = [card["params"]["model"] for card in cards]
            thresholds = [float(card["params"]["train"]["pseudo_threshold"]) for card in cards]
            files = {str(model["weights"]) for model in models if model["weights"]}
            pretrained = any(bool(model["pretrained"]) for model in models)
        except (KeyError, TypeError, ValueError) as error:
            raise PodiumError(
                f"a model card does not say how its net was trained ({error!r}): train again"
            ) from None
        return cls(
            pretrained=pretrained,
            weights=tuple(sorted(files)),
            pseudo_threshold=max(thresholds),
            tta=tta,
            nets=len(cards),
            model_bytes=model_bytes,
            latency_ms=latency_ms,
        )


@dataclass(frozen=True)
class Submission:
    """A submission and the verdict on it.

    Attributes:
        name: its file.
        content: its bytes.
        lines: one for each rule.
        val: of what made it, as `pick_val` says.
    """

    name: str
    content: bytes
    lines: tuple[Line, ...]
    val: dict[str, Any]

    @property
    def broken(self) -> list[Line]:
        """What keeps it from being handed in."""
        return [line for line in self.lines if line.verdict == "broken"]

    @property
    def file_content(self) -> bytes:
        """What its file gets: its bytes, or, where it may not be handed in, a line that no organiser
        takes for a submission. (DVC wants the file where another submission is legal.)"""
        if not self.broken:
            return self.content
        return f"not to be handed in: {describe_breaches(self)}\n".encode()


def judge_making(
    rules: RulesParams,
    making: Making,
    *,
    primary: MetricName,
    classes: Sequence[str],
    ordinal: bool,
    submission: str,
) -> tuple[Line, ...]:
    """The rules that are about how a submission was made.

    Args:
        rules: `competition.rules`.
        making: what was done.
        primary: `evaluate.primary`.
        classes, ordinal, submission: as in `competition`.
    """
    files = ", ".join(making.weights)
    began = "published weights" if making.pretrained else files or "random weights"
    views = count_views(making.tta)
    learned = f"test images that the first round was sure of (>= {making.pseudo_threshold:g})"
    return (
        _judge_metric(rules.metric, primary, submission),
        _judge_direction(rules),
        _judge_ordinal(classes, ordinal),
        _permission(
            "external_data",
            rules.external_data,
            bool(making.weights),
            f"the nets began with {files}, and what a file has learned from is not known"
            if making.weights
            else "nothing was learned from but the training images and what a trunk began with",
        ),
        _permission(
            "pretrained",
            rules.pretrained,
            making.pretrained or bool(making.weights),
            f"the nets began with {began}",
        ),
        _permission("tta", rules.tta, views > 1, f"{views} view{'s' * (views > 1)} of each image"),
        _permission(
            "pseudo_labels",
            rules.pseudo_labels,
            making.pseudo_threshold > 0,
            f"the nets learned from {learned}"
            if making.pseudo_threshold
            else "no net learned from test images",
        ),
        _permission(
            "ensembling",
            rules.ensembling,
            making.nets > 1,
            f"the mean of {making.nets} nets" if making.nets > 1 else "one net",
        ),
        _judge_size(rules, making),
        _judge_latency(rules, making),
        _judge_daily(rules),
    )


def judge_format(proof: Mapping[str, tuple[bool, str]], doubt: str = "") -> tuple[Line, ...]:
    """The rules that the sample submission fixes.

    Args:
        proof: from `podium.data.submission.prove_format`.
        doubt: from `podium.data.submission.doubt_values`.
    """
    names = {"line ends": "line_ends", "values": "labels"}
    lines = []
    for rule, (is_met, words) in proof.items():
        verdict: Verdict = "met" if is_met else "broken"
        if rule == "values" and is_met and doubt:
            verdict, words = "warned", f"{words}; {doubt}"
        lines.append(Line(names.get(rule, rule), verdict, words))
    return tuple(lines)


def pick_val(
    metrics: Mapping[str, Any], metric: str, answers: Answers, primary: str
) -> dict[str, Any]:
    """The val score that a public one is to be compared with.

    Args:
        metrics: as metrics/evaluate.json or a deployed card's `measured` has them.
        metric: the organiser's, or evaluate.primary.
        answers: what is made of raw probabilities before they are submitted.
        primary: evaluate.primary, which a decoder was chosen by.

    Returns:
        metric, score, low, high, n. Where a decoder or temperature changes this metric, the score of
        raw answers is another predictor's: the score is then the nested one, of rows that the change
        was not fitted on, and has no interval; None where it was not measured (of the model in
        deploy/, and of another metric than the decoder's).
    """
    val = {
        "metric": metric,
        "score": metrics.get(metric),
        "low": metrics.get(f"{metric}_low"),
        "high": metrics.get(f"{metric}_high"),
        "n": metrics.get("n"),
    }
    if answers.decoder is not None:
        judged = metrics.get("decoder", []) if metric == primary else []
        afters = [row["after"] for row in judged if row["adopted"]]
    elif answers.temperature != 1 and metric == "log_loss":
        judged = metrics.get("calibration", [])
        afters = [row["log_loss"]["after"] for row in judged if row["adopted"]]
    else:
        return val
    return {**val, "score": afters[0] if afters else None, "low": None, "high": None}


def load_metrics(path: Path) -> dict[str, Any]:
    """What a stage wrote to metrics/.

    Raises:
        PodiumError: missing or damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro` to make it") from None
    except (TypeError, ValueError) as error:
        raise PodiumError(f"{path} is damaged ({error}): run `dvc repro`") from None


def write_contract(path: Path, submissions: Sequence[Submission]) -> None:
    """Replace `path` by the verdicts; a hash only of what may be handed in."""
    write_json(
        path,
        {
            "format": CONTRACT_FORMAT,
            "submissions": {
                one.name: {
                    "may_be_handed_in": not one.broken,
                    "sha256": None if one.broken else hash_submission(one.content),
                    "val": one.val,
                    "rules": {line.rule: str(line) for line in one.lines},
                }
                for one in submissions
            },
        },
    )


def load_contract(path: Path) -> dict[str, Any]:
    """Submission file -> its verdict, as `write_contract` put it.

    Raises:
        PodiumError: missing or damaged.
    """
    try:
        return parse_contract(path.read_bytes())
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro` to make it") from None
    except ValueError as error:
        raise PodiumError(f"{path} is damaged ({error}): run `dvc repro --force submit`") from None


def parse_contract(content: bytes) -> dict[str, Any]:
    """`load_contract` of bytes.

    Raises:
        ValueError: this is no contract.
    """
    tree = json.loads(content)
    if not isinstance(tree, dict) or tree.get("format") != CONTRACT_FORMAT:
        raise ValueError(f"expected a contract of format {CONTRACT_FORMAT}")
    submissions = tree.get("submissions")
    if not isinstance(submissions, dict) or not all(
        isinstance(facts, dict) and {"sha256", "val", "rules"} <= set(facts)
        for facts in submissions.values()
    ):
        raise ValueError("expected sha256, val and rules of each submission")
    return submissions


def hash_submission(content: bytes) -> str:
    """What a submission is known by."""
    return hashlib.sha256(content).hexdigest()


def describe_breaches(one: Submission) -> str:
    """Rules broken and by what, in one line."""
    return "; ".join(f"{line.rule} is broken: {line.words}" for line in one.broken)


def check_any_legal(submissions: Sequence[Submission]) -> None:
    """Stop where nothing may be handed in.

    Raises:
        PodiumError: each submission's broken rules, in one line.
    """
    if all(one.broken for one in submissions):
        said = ". ".join(f"{one.name}: {describe_breaches(one)}" for one in submissions)
        raise PodiumError(
            f"nothing may be handed in, and no submission was written. {said}. "
            f"All rules: {CONTRACT_FILE}"
        )


def describe_contract(submissions: Mapping[str, Mapping[str, Any]]) -> str:
    """A parsed contract in a line: how many rules are kept, and what is not."""
    parts = []
    for name, facts in submissions.items():
        verdicts = {rule: str(text).partition(":")[0] for rule, text in facts["rules"].items()}
        met = sum(verdict == "met" for verdict in verdicts.values())
        others = [
            f"{verdict}: {', '.join(named)}"
            for verdict in ("broken", "warned", "open")
            if (named := [rule for rule, found in verdicts.items() if found == verdict])
        ]
        parts.append(f"{name} " + "; ".join([f"{met} of {len(verdicts)} rules met", *others]))
    same = {part.partition(" ")[2] for part in parts}
    if len(same) == 1:
        return f"{same.pop()} ({CONTRACT_FILE})"
    return ". ".join(parts) + f" ({CONTRACT_FILE})"


def _permission(rule: str, is_allowed: bool, was_done: bool, words: str) -> Line:
    if is_allowed:
        return Line(rule, "met", f"allowed; {words}")
    return Line(rule, "broken" if was_done else "met", f"not allowed; {words}")


def _judge_metric(metric: MetricName | None, primary: MetricName, submission: str) -> Line:
    if metric is None:
        return Line("metric", "open", f"none in competition.rules; evaluate.primary is {primary}")
    differs = describe_metric(primary, metric)
    if differs:
        return Line("metric", "warned", differs)
    if metric == "log_loss" and submission == "label":
        return Line("metric", "warned", "log_loss judges probabilities, and labels are submitted")
    return Line(
        "metric", "met", f"{metric}, {_own_direction(metric)} is better, is evaluate.primary"
    )


def _own_direction(metric: MetricName) -> str:
    return "lower" if metric in LOWER_IS_BETTER else "higher"


def _judge_direction(rules: RulesParams) -> Line:
    if rules.metric is None:
        return Line("direction", "open", "no metric in competition.rules")
    own = _own_direction(rules.metric)
    if rules.direction is None:
        return Line("direction", "met", f"none typed in; {own}, as {rules.metric} says")
    words = f"{rules.direction} wins, and of {rules.metric} the {own} value is the better one"
    return Line("direction", "met" if rules.direction == own else "broken", words)


def _judge_ordinal(classes: Sequence[str], ordinal: bool) -> Line:
    if ordinal:
        return Line("ordinal", "met", f"grades in order: {' < '.join(classes)}")
    return Line("ordinal", "met", "classes without an order")


def _judge_size(rules: RulesParams, making: Making) -> Line:
    size = f"{making.model_bytes / BYTES_PER_MB:.3f} MB"
    limit = rules.max_model_mb
    if limit is None:
        return Line("max_model_mb", "met", f"no limit; {size}")
    if making.model_bytes <= limit * BYTES_PER_MB:
        return Line("max_model_mb", "met", f"{size}, {limit:g} allowed")
    hint = "fewer nets or a smaller model.name" if making.nets > 1 else "a smaller model.name"
    return Line("max_model_mb", "broken", f"{size}, {limit:g} allowed: choose {hint}")


def _judge_latency(rules: RulesParams, making: Making) -> Line:
    limit = rules.max_latency_ms
    if limit is None:
        return Line("max_latency_ms", "met", "no limit")
    if making.latency_ms is None:
        words = f"{limit:g} allowed, and only the model in deploy/ is timed"
        return Line("max_latency_ms", "broken", words)
    # No figure: it would differ from run to run.
    if making.latency_ms <= limit:
        return Line("max_latency_ms", "met", f"within {limit:g}")
    return Line(
        "max_latency_ms",
        "broken",
        f"slower than {limit:g}: choose a smaller model.name or image_size",
    )


def _judge_daily(rules: RulesParams) -> Line:
    limit = rules.max_submissions_per_day
    if limit is None:
        return Line("max_submissions_per_day", "met", "no limit")
    return Line("max_submissions_per_day", "open", f"{limit}: podium log-score counts them")
