"""The commented `competition:` block of params.yaml, and who wrote it.

In: `CompetitionParams`. Out: YAML text in which every key is explained. The block carries a
checksum of its own text, so that `podium init` replaces what it wrote itself and never an edit.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from podium.data.params import CompetitionParams
from podium.errors import PodiumError
from podium.files import write_text
from podium.params import read_yaml

# Meaning and allowed values of each key, in the order of the block.
COMMENTS = {
    "name": "What reports call it.",
    "task": "classification: one class per image.",
    "source": "Folder of the raw files, tracked by DVC; the paths below are relative to it.",
    "train_csv": "CSV of ids and labels; empty: train_images has one folder per class.",
    "train_images": "Folder of the labelled images.",
    "test_images": "Folder of the images to predict.",
    "csv_header": "true | false: whether the first line of train_csv names the columns.",
    "id_column": "Column of the ids: its name with a header, else its number from 0.",
    "label_column": "Column of the labels: likewise.",
    "label_columns": "Soft labels: columns of the classes' probabilities, in their order; else empty.",
    "group_column": "Column of what must stay in one fold (patient, ...): likewise; or empty.",
    "sample_submission": "The organiser's sample, copied in every detail; empty: `id,label`.",
    "sample_header": "true | false: whether the sample has a header.",
    "classes": "All labels, in the order of the net's outputs; if ordinal, from low to high.",
    "ordinal": "true | false: whether the classes are grades in order (adds weighted kappa).",
    "submission": "label: a class name a row; probability: a column a class.",
    "rules": "The organiser's rules: stages obey them, submit proves it (docs/contract.md).",
}
# Likewise of the keys of `rules`.
RULES_COMMENTS = {
    "metric": "accuracy | balanced_accuracy | macro_f1 | qwk | log_loss: the organiser's; or empty.",
    "direction": "higher | lower: what wins, to notice a metric misread; empty: as the metric says.",
    "external_data": "true | false: whether weights of unknown data may be begun with (model.weights).",
    "pretrained": "true | false: whether published weights may be begun with (model.pretrained).",
    "tta": "true | false: whether views of a test image may be averaged (evaluate.tta).",
    "pseudo_labels": "true | false: whether test images may be learned from (train.pseudo_threshold).",
    "ensembling": "true | false: whether nets may be averaged; false: the first fold's is handed in.",
    "max_model_mb": "> 0, of 10^6 bytes: largest model that may be handed in; empty: no limit.",
    "max_latency_ms": "> 0: longest time for an image, decoded, on deploy/; empty: no limit.",
    "max_submissions_per_day": "1 ..: what podium log-score takes for a day (UTC); empty: no limit.",
}
_SUM_PREFIX = "  # podium init wrote this block; checksum: "


def make_competition_block(params: CompetitionParams) -> str:
    """The block as text, LF lines, ending with a newline.

    It is written as DVC itself would, so that `dvc exp run -S` leaves the text as it is.
    """
    values = params.model_dump(mode="json")
    block = _explain(values, COMMENTS, indent=2)
    for key in ("label_columns", "classes"):
        block[key] = _make_list(key, block[key])
    block["rules"] = _explain(values["rules"], RULES_COMMENTS, indent=4)
    stream = io.StringIO()
    YAML().dump({"competition": block}, stream)
    head, *rest = stream.getvalue().splitlines(keepends=True)
    return "".join([head, f"{_SUM_PREFIX}{_checksum([head, *rest])}\n", *rest])


def _explain(values: dict[str, Any], comments: dict[str, str], indent: int) -> CommentedMap:
    """The keys that have a comment, in its order, each below it."""
    mapping = CommentedMap((key, values[key]) for key in comments)
    for key, comment in comments.items():
        mapping.yaml_set_comment_before_after_key(key, before=comment, indent=indent)
    return mapping


def _make_list(key: str, items: list[str | int]) -> CommentedSeq:
    """In one line where it fits, else one line an item.

    Only plain words share a line: ruamel writes `[?0]` without quotes and reads a mapping.
    """
    row = CommentedSeq(items)
    if all(re.fullmatch(r"[A-Za-z0-9_]+", str(item)) for item in items):
        row.fa.set_flow_style()
        stream = io.StringIO()
        YAML().dump({f"  {key}": row}, stream)
        if stream.getvalue().count("\n") > 1:
            row.fa.set_block_style()
    return row


def check_block_replaceable(params_file: Path) -> None:
    """Refuse to go on where the block of `params_file` is not as `podium init` wrote it.

    Raises:
        PodiumError: the block was edited or has no checksum; or the file is missing or no YAML.
    """
    read_yaml(params_file)
    block = _split(_read(params_file))[1].replace("\r\n", "\n")
    if not block:
        return
    lines = (block if block.endswith("\n") else block + "\n").splitlines(keepends=True)
    sums = [line.removeprefix(_SUM_PREFIX).strip() for line in lines if _is_sum(line)]
    if sums != [_checksum([line for line in lines if not _is_sum(line)])]:
        raise PodiumError(
            f"{params_file}: its competition block was edited by hand and is not overwritten: "
            "go on with it, or delete the block and run podium init again"
        )


def write_competition_block(params_file: Path, params: CompetitionParams) -> None:
    """Put the block in the place of the old one, else at the end; no other byte changes.

    Raises:
        PodiumError: as `check_block_replaceable`.
    """
    check_block_replaceable(params_file)
    text = _read(params_file)
    before, _, after = _split(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    if before and not before.endswith("\n"):
        before += newline
    write_text(params_file, before + make_competition_block(params).replace("\n", newline) + after)


def _read(params_file: Path) -> str:
    return params_file.read_bytes().decode("utf-8")


def _split(text: str) -> tuple[str, str, str]:
    """What stands before, in and after the block, which is "" where there is none.

    The block ends with its last indented line: blank lines and comments at the margin that follow
    belong to the next key.
    """
    lines = text.splitlines(keepends=True)
    is_head = [re.match(r"competition[ \t]*:", line) is not None for line in lines]
    if not any(is_head):
        return text, "", ""
    start = is_head.index(True)
    end = start + 1
    for number, line in enumerate(lines[end:], end):
        if line.strip() and line[0] in " \t":
            end = number + 1
        elif line.strip() and not line.startswith("#"):
            break
    return "".join(lines[:start]), "".join(lines[start:end]), "".join(lines[end:])


def _is_sum(line: str) -> bool:
    return line.startswith(_SUM_PREFIX)


def _checksum(lines: list[str]) -> str:
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()[:16]
