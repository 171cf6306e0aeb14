"""Params of everything that needs no tensors: competition, data, eda, split, label_shuffle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from podium.params import Section

Names = Annotated[tuple[str, ...], Field(strict=False)]
Columns = Annotated[tuple[str | int, ...], Field(strict=False)]
# Metrics that an organiser may score by and evaluate knows, and those of them where less is better.
MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1", "qwk", "log_loss"]
LOWER_IS_BETTER: frozenset[MetricName] = frozenset({"log_loss"})


class ListingParams(Section):
    """Where the competition's files are and what they list: the keys that eda reads.

    The rest of the section is CompetitionParams' business, and is passed over here.
    """

    model_config = ConfigDict(extra="ignore")

    name: str
    # The folder, inside the repository and tracked by DVC, that all paths below are relative to.
    source: str
    # null: the training images stand in one folder per class below train_images.
    train_csv: str | None
    train_images: str
    test_images: str
    csv_header: bool
    # A column's name where the CSV has a header, else its number from 0.
    id_column: str | int | None
    label_column: str | int | None
    # Soft labels: the columns of the classes' probabilities, in the order of `classes`, in place of
    # label_column; empty: hard labels, as in blocks from before there was this key.
    label_columns: Columns = ()
    # A column that keeps images together in one fold (patient, burst, student), or null.
    group_column: str | int | None
    # null: `id,label` with a header, ids as the test files are named.
    sample_submission: str | None
    sample_header: bool
    # The label vocabulary in the order of the net's outputs; for ordinal grades, from low to high.
    classes: Annotated[Names, Field(min_length=2)]

    @model_validator(mode="after")
    def _check_columns(self) -> ListingParams:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"each class once in competition.classes, got {list(self.classes)}")
        if self.train_csv is None:
            if self.label_columns:
                raise ValueError("no competition.label_columns without a train_csv")
            # Passed over, it would let a group straddle folds that the user takes for safe.
            if self.group_column is not None:
                raise ValueError(
                    "competition.group_column empty without a train_csv, the table it would be a "
                    f"column of, got {self.group_column!r}: make a CSV of ids, labels and groups "
                    "and set competition.train_csv, or empty it"
                )
            return self
        named = [(name, getattr(self, name)) for name in ("id_column", "label_column")]
        if self.group_column is not None:
            named.append(("group_column", self.group_column))
        if self.label_columns:
            self._check_soft_columns()
            named.remove(("label_column", None))
            named += [("label_columns", column) for column in self.label_columns]
        wanted = str if self.csv_header else int
        for name, value in named:
            if not isinstance(value, wanted):
                kind = "a column's name" if self.csv_header else "a column's number from 0"
                raise ValueError(
                    f"competition.{name} to be {kind} (csv_header is {self.csv_header}), got {value!r}"
                )
        return self

    def _check_soft_columns(self) -> None:
        if self.label_column is not None:
            raise ValueError(
                "competition.label_column empty where label_columns are given, "
                f"got {self.label_column!r}"
            )
        columns = self.label_columns
        if len(columns) != len(self.classes) or len(set(columns)) != len(columns):
            raise ValueError(
                "one of competition.label_columns for each of competition.classes "
                f"({len(self.classes)}), in their order, got {list(columns)}"
            )
        # Headed as the classes, the columns say themselves which is whose: other pairs are a slip.
        if set(columns) == set(self.classes) and columns != self.classes:
            column, name = next(
                pair for pair in zip(columns, self.classes, strict=True) if pair[0] != pair[1]
            )
            raise ValueError(
                "competition.label_columns in the order of competition.classes, got column "
                f"{column!r} for class {name!r}: bring both lists into one order"
            )


class RulesParams(Section):
    """What the organiser allows. The stages obey it, submit proves it (contract.json).

    What the sample submission fixes (ids, order, header, number of columns) is not here: it is
    proven against that file, and the labels against `competition.classes`.
    """

    # What the leaderboard is sorted by; null: not known.
    metric: MetricName | None
    # Which end of it is first; null: as the metric itself says. To notice a metric misread.
    direction: Literal["higher", "lower"] | None
    # Whether a net may have learned from other data than the organiser's.
    external_data: bool
    # Whether it may begin with published weights (ImageNet).
    pretrained: bool
    # Whether several views of an image may be averaged (test-time augmentation).
    tta: bool
    # Whether a net may learn from test images with the labels that it predicts for them.
    pseudo_labels: bool
    # Whether the answers of several nets may be averaged.
    ensembling: bool
    # Of the model's files, in MB of 10^6 bytes.
    max_model_mb: Annotated[float, Field(gt=0)] | None
    # For one image, decoded, to its answer.
    max_latency_ms: Annotated[float, Field(gt=0)] | None
    max_submissions_per_day: Annotated[int, Field(ge=1)] | None

    @model_validator(mode="after")
    def _check_direction(self) -> RulesParams:
        if self.direction is None:
            return self
        if self.metric is None:
            raise ValueError("no competition.rules.direction without a metric")
        own = "lower" if self.metric in LOWER_IS_BETTER else "higher"
        if self.direction != own:
            raise ValueError(
                f"competition.rules.direction {own} with {self.metric}, whose {own} value is the "
                f"better one, got {self.direction}: is it another metric?"
            )
        return self


# As far as `podium init` can know.
NO_RULES = RulesParams(
    metric=None,
    direction=None,
    external_data=True,
    pretrained=True,
    tta=True,
    pseudo_labels=True,
    ensembling=True,
    max_model_mb=None,
    max_latency_ms=None,
    max_submissions_per_day=None,
)


class CompetitionParams(ListingParams):
    """What the organiser gave out. `podium init` writes it; the user mends it."""

    model_config = ConfigDict(extra="forbid")

    task: Literal["classification"]
    ordinal: bool
    # label: one class name a row; probability: one column a class, headed by its name.
    submission: Literal["label", "probability"]
    rules: RulesParams

    @model_validator(mode="after")
    def _check_metric(self) -> CompetitionParams:
        if self.rules.metric == "qwk" and not self.ordinal:
            raise ValueError(
                "competition.ordinal true with competition.rules.metric qwk, which is for grades "
                "in order"
            )
        return self


class DataParams(Section):
    """How much of the data is used."""

    subset: Annotated[float, Field(gt=0, le=1)]


class EdaParams(Section):
    """What happens to files and rows that cannot be used."""

    on_problem: Literal["stop", "drop"]


class SplitParams(Section):
    """Stratified, group-aware k folds."""

    folds: Annotated[int, Field(ge=2, le=50)]
    # The fold held out; all: each once, a model per fold.
    val_fold: Annotated[int, Field(ge=0)] | Literal["all"]

    @model_validator(mode="after")
    def _check_val_fold(self) -> SplitParams:
        if self.val_fold != "all" and self.val_fold >= self.folds:
            raise ValueError(
                f"split.val_fold below split.folds ({self.folds}), got {self.val_fold}"
            )
        return self


class LabelShuffleParams(Section):
    """Balancing by repetition. b in [0, 1]: 0 keeps the counts, 1 makes all classes equal."""

    balance: Annotated[float, Field(ge=0, le=1)]
