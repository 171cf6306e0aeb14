"""Recognises how an organiser laid out a competition. docs/layouts.md shows what is accepted.

In: an unpacked folder. Out: a `Layout`: the facts of the `competition:` block, the files to bring,
and remarks for the user. Nothing is guessed where two answers are possible: the candidates are
listed, and a `Choice` decides.
"""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from podium.data.ids import IMAGE_SUFFIXES, is_image_name, is_litter, list_images
from podium.data.params import NO_RULES, CompetitionParams
from podium.errors import PodiumError, ProblemsError, did_you_mean
from podium.intake.archive import name_trouble
from podium.intake.choice import Choice
from podium.intake.listings import (
    TABLE_SUFFIXES,
    Labels,
    Listing,
    check_spellings,
    find_submission,
    is_integer,
    list_tables,
    pick_sample,
    pick_train,
    read_labels,
    read_listings,
    shorten,
)

LABEL_NAMES_FILE = "labels.json"
_MAX_GRADES = 10  # integer labels up to here may be grades
_TRAIN = re.compile(r"(?<![a-z])train", re.IGNORECASE)
_TEST = re.compile(r"(?<![a-z])test", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """A recognised competition.

    Attributes:
        params: the `competition:` section.
        files: POSIX paths, relative to the folder, of all that is to be brought; sorted.
        lines: what was recognised and what the user should look at, one sentence each.
    """

    params: CompetitionParams
    files: list[str]
    lines: list[str]


def find_base(folder: Path) -> Path:
    """Go down while all sits below one folder, unless that is itself the training images."""
    while True:
        entries = [path for path in folder.iterdir() if not path.name.startswith((".", "__"))]
        folders = [path for path in entries if path.is_dir()]
        if len(folders) != 1 or any(_is_content(path) for path in entries):
            return folder
        (only,) = folders
        if _has_role(only.name) and not any(
            _is_content(path) or (path.is_dir() and _has_role(path.name))
            for path in only.iterdir()
            if not is_image_name(path.name)
        ):
            return folder
        folder = only


def _is_content(path: Path) -> bool:
    """An image or a table."""
    return path.is_file() and (is_image_name(path.name) or path.suffix.lower() in TABLE_SUFFIXES)


def recognise_layout(base: Path, name: str, source: str, choice: Choice) -> Layout:
    """Recognise the competition in `base`.

    Args:
        base: the folder that holds images and CSVs, as `find_base` gives it.
        name: what the competition will be called.
        source: where the files will lie, relative to the repository; for the block.
        choice: what the user decided.

    Raises:
        PodiumError, ProblemsError: not recognised, or in more than one way.
    """
    images = list_images(base)
    if not images:
        inner = sorted(path.name for path in base.iterdir() if path.suffix.lower() == ".zip")
        hint = f": unpack {', '.join(inner)} there first" if inner else ""
        raise PodiumError(f"{base} holds no images (jpg, png, ...){hint}")
    train_folder, test_folder = _find_image_folders(base, images, choice)
    train_files, test_files = _below(images, train_folder), _below(images, test_folder)
    by_folder = Counter(PurePosixPath(file).parts[0] for file in train_files if "/" in file)

    listings, idle = read_listings(base, choice, train_files, test_files, len(by_folder) >= 2)
    train = pick_train(base, listings, idle, sort_classes(by_folder), choice)
    sample = pick_sample(base, listings, choice)
    if not train:
        check_spellings({name: f"{train_folder}/{name}" for name in by_folder})
    labels = read_labels(train, sample, choice) if train else Labels("", by_folder, [])
    classes = sort_classes(labels.counts)
    if len(classes) < 2:
        raise PodiumError(f"{base}: expected at least 2 classes of images, got {classes}")
    submission, strange = find_submission(sample, classes) if sample else ("label", [])

    extra = [LABEL_NAMES_FILE] if (base / LABEL_NAMES_FILE).is_file() else []
    files = [
        *(f"{train_folder}/{file}" for file in train_files),
        *(f"{test_folder}/{file}" for file in test_files),
        *list_tables(base),
        *(table.name for table in (train, sample) if table),  # a list of images may be a .txt
        *extra,
    ]
    files = sorted(set(files))
    _check_files(base, files)

    has_header = train is not None and train.table.has_header
    params = CompetitionParams(
        name=name,
        task="classification",
        source=source,
        train_csv=train.name if train else None,
        train_images=train_folder,
        test_images=test_folder,
        csv_header=has_header,
        id_column=_column(train.id_column, has_header) if train else None,
        label_column=(
            _column(labels.column, has_header) if train and not labels.soft_columns else None
        ),
        label_columns=tuple(classes) if labels.soft_columns else (),
        group_column=None,
        sample_submission=sample.name if sample else None,
        sample_header=sample.table.has_header if sample else True,
        classes=tuple(classes),
        ordinal=False,
        submission=submission,
        rules=NO_RULES,
    )
    lines = _describe_train(train, labels, train_folder, len(train_files))
    lines.append(_describe_test(sample, test_folder, len(test_files)))
    lines += _describe_classes(classes, labels)
    if sample and strange:
        lines.append(
            f"{sample.name} has values that are no class ({shorten(strange)}): check "
            "competition.submission and competition.classes"
        )
    lines += [f"{table} names no image by its file name: not used" for table in idle]
    lines.append(
        "competition.rules allows everything: make it as strict as the organiser's page "
        "(docs/contract.md)"
    )
    unused = len(images) - len(train_files) - len(test_files)
    if unused:
        lines.append(f"{unused} images outside {train_folder}/ and {test_folder}/: not used")
    if extra:
        lines.append(
            f"{LABEL_NAMES_FILE} is kept; classes are named as the folders are: change "
            "competition.classes where the submission wants other names"
        )
    return Layout(params, files, lines)


def describe_others(names: Iterable[str], base: PurePath, params: CompetitionParams) -> list[str]:
    """A line that counts the files that are no images and no tables by name; [] if there are none.

    Args:
        names: POSIX paths of all files, relative to what the user gave.
        base: the folder of the recognised layout, relative to the same.
        params: what was recognised there.
    """
    tables = (params.train_csv, params.sample_submission)
    used = [PurePosixPath(base, name) for name in (LABEL_NAMES_FILE, *tables) if name]
    others = [
        path
        for path in map(PurePosixPath, sorted(names))
        if not is_image_name(path.name)
        and path.suffix.lower() not in TABLE_SUFFIXES
        and path not in used
        and not any(map(is_litter, path.parts))
    ]
    if not others:
        return []
    suffixes = Counter(path.suffix.lower() for path in others)
    counts = [f"{n} {suffix or 'without extension'}" for suffix, n in suffixes.most_common()]
    line = f"no image and no table by name, so not used: {shorten(counts)}"
    folders = [PurePosixPath(base, name) for name in (params.train_images, params.test_images)]
    among = [path for path in others if any(map(path.is_relative_to, folders))]
    if among:
        line += (
            f"; {len(among)} of them among the images, such as {among[0]}: if these are images or "
            f"hold some, make them files of {', '.join(sorted(IMAGE_SUFFIXES))} and run again"
        )
    return [line]


def sort_classes(names: Iterable[str]) -> list[str]:
    """Numeric order where all names are integers, else order of code points."""
    words = sorted(names)
    return sorted(words, key=int) if all(map(is_integer, words)) else words


def _find_image_folders(base: Path, images: Sequence[str], choice: Choice) -> tuple[str, str]:
    """The folders of training and of test images, relative to `base`."""
    folders = sorted(
        {parent.as_posix() for image in images for parent in PurePosixPath(image).parents} - {"."}
    )
    problems: list[str] = []
    found = _topmost_with_role(folders, _TEST)
    test = _pick_folder(base, "test", choice.test_images, folders, found, problems)
    found = _topmost_with_role(folders, _TRAIN)
    if not found and test:
        # A single `images/` beside `test/` can only be the training images.
        found = [
            path for path in folders if "/" not in path and not f"{test}/".startswith(f"{path}/")
        ]
    train = _pick_folder(base, "train", choice.train_images, folders, found, problems)
    if choice.test_images is None:
        test = _descend(test, images)
    if choice.train_images is None:
        train = _descend(train, images)
    if train and test and f"{train}/".startswith(f"{test}/") | f"{test}/".startswith(f"{train}/"):
        problems.append(f"{train}/ and {test}/ lie in one another: put them side by side")
    if problems:
        raise ProblemsError(f"{base}: the layout is not clear:", problems)
    return train, test


def _descend(folder: str, images: Sequence[str]) -> str:
    """The folder below it that is called alike, where all its images lie in there (`train/train/`)."""
    below = f"{folder}/{PurePosixPath(folder).name}"
    files = _below(images, folder)
    return below if files and len(_below(images, below)) == len(files) else folder


def _pick_folder(
    base: Path,
    role: str,
    chosen: str | None,
    folders: Sequence[str],
    candidates: Sequence[str],
    problems: list[str],
) -> str:
    """The chosen or the only candidate; else "" and a line in `problems`."""
    flag = f"--{role}-images"
    if chosen is not None:
        clean = PurePosixPath(chosen).as_posix()
        if clean in folders:
            return clean
        problems.append(f"{flag} {chosen}: no images there in {base}{did_you_mean(clean, folders)}")
    elif len(candidates) == 1:
        return candidates[0]
    elif candidates:
        problems.append(
            f"{len(candidates)} folders could hold the {role} images ({shorten(candidates)}): "
            f"choose by {flag} DIR"
        )
    else:
        found = shorten([folder for folder in folders if "/" not in folder]) or "none"
        problems.append(
            f"no folder of {role} images: expected one whose name starts with {role!r} "
            f"(folders with images: {found}); rename it, or name it by {flag} DIR"
        )
    return ""


def _topmost_with_role(folders: Sequence[str], role: re.Pattern[str]) -> list[str]:
    """The folders whose own name has the role, without those below one of them."""
    named = [folder for folder in folders if _has_role(PurePosixPath(folder).name, role)]
    return [
        folder for folder in named if not any(folder.startswith(f"{other}/") for other in named)
    ]


def _has_role(name: str, role: re.Pattern[str] | None = None) -> bool:
    """`train`, `train_images`, `my-test`; not `constrain`, nor `train_test_data`, which is both."""
    roles = [pattern for pattern in (_TRAIN, _TEST) if pattern.search(name)]
    return len(roles) == 1 and role in (None, *roles)


def _below(images: Sequence[str], folder: str) -> list[str]:
    """The images below a folder, relative to it."""
    return [image.removeprefix(f"{folder}/") for image in images if image.startswith(f"{folder}/")]


def _check_files(base: Path, files: Sequence[str]) -> None:
    """Only ordinary files with names that fit into a CSV are brought."""
    problems = []
    for file in files:
        trouble = name_trouble(file)
        if not trouble:
            try:
                if not stat.S_ISREG((base / file).stat().st_mode):
                    trouble = "no ordinary file: remove it"
            except FileNotFoundError:
                trouble = "a link that leads nowhere: remove it"
        if trouble:
            problems.append(f"{file!r}: {trouble}")
    if problems:
        raise ProblemsError(f"{base}: files that cannot be brought:", problems)


def _column(name: str, has_header: bool) -> str | int:
    return name if has_header else int(name)


def _describe_train(train: Listing | None, labels: Labels, folder: str, n_images: int) -> list[str]:
    if train is None:
        n_labelled = sum(labels.counts.values())
        lines = [f"train: {n_labelled} images in {len(labels.counts)} class folders of {folder}/"]
        if n_labelled < n_images:
            lines.append(
                f"{n_images - n_labelled} images lie in {folder}/ itself: they have no class"
            )
        return lines
    n_rows = len(train.table.frame)
    where = (
        f"{train.describe()}, probabilities of the classes in columns headed by them"
        if labels.soft_columns
        else f"{train.describe()}, labels in column {labels.column!r}"
    )
    lines = [f"train: {n_images} images in {folder}/, {n_rows} rows in {where}"]
    if train.matched < n_rows:
        lines.append(
            f"{n_rows - train.matched} rows of {train.name} name no image: the eda stage lists them"
        )
    if labels.slips:
        lines.append(
            f"labels taken for slips: {shorten([repr(label) for label in labels.slips])}; the eda "
            "stage lists their rows; add them to competition.classes if they are classes"
        )
    labelled = {labels.column, *labels.soft_columns}
    others = [repr(name) for name in train.other_columns if name not in labelled]
    if others:
        lines.append(
            f"more columns in {train.name}: {shorten(others)}: set competition.group_column to one "
            "that keeps images together in one fold (patient, burst, ...)"
        )
    return lines


def _describe_test(sample: Listing | None, folder: str, n_images: int) -> str:
    if sample is None:
        about = "no sample submission, so the submission will have the header `id,label`"
    else:
        about = f"sample submission {sample.describe()}"
        if sample.matched < n_images:
            about += (
                f"; it lists {sample.matched} of the images, and only these are handed in: an excerpt? "
                "then choose --sample none"
            )
    return f"test: {n_images} images in {folder}/, {about}"


def _describe_classes(classes: Sequence[str], labels: Labels) -> list[str]:
    each = shorten([f"{name} ({labels.counts[name]} images)" for name in classes])
    lines = [f"{len(classes)} classes: {each}"]
    single = [name for name in classes if labels.counts[name] == 1]
    if single:
        lines.append(f"classes with a single image: {shorten(single)}")
    if list(classes) == [str(k) for k in range(len(classes))] and len(classes) <= _MAX_GRADES:
        lines.append("set competition.ordinal: true if the classes are grades in order")
    return lines
