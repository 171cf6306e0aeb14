"""The eda stage on a small competition: what it writes, what it says, and that it repeats itself."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import ExifTags, Image

from podium.data.params import NO_RULES, CompetitionParams
from podium.errors import PodiumError
from podium.probes import cross_validation
from podium.probes.baselines import measure_baselines
from podium.report.eda import Eda, make_eda, make_summary, write_eda
from podium.report.eda_page import make_page

REPOSITORY = Path(__file__).resolve().parents[1]
REAL = REPOSITORY.parent / "shared" / "data"
CLASSES = ["low", "<b>high</b>"]
PARAMS = f"""\
seed: 0
competition:
  name: toy <script>
  task: classification
  source: data/raw
  train_csv: train.csv
  train_images: train
  test_images: test
  csv_header: true
  id_column: id
  label_column: label
  group_column: null
  sample_submission: null
  sample_header: false
  classes: {json.dumps(CLASSES)}
  ordinal: false
  submission: label
eda:
  on_problem: stop
"""


def write_competition(root: Path, n_train: int = 24) -> None:
    """The left upper corner tells the class, the rest is noise."""
    raw = root / "data/raw"
    (raw / "train").mkdir(parents=True)
    (raw / "test").mkdir()
    (root / "params.yaml").write_text(PARAMS)
    rows = ["id,label"]
    for number in range(n_train + 4):
        draw = np.random.default_rng(number)
        pixels = draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        pixels[:6, :6] = 230 * (number % 2)
        folder = "train" if number < n_train else "test"
        Image.fromarray(pixels).save(raw / folder / f"{number:03}.png")
        if number < n_train:
            rows.append(f"{number:03},{CLASSES[number % 2]}")
    (raw / "train.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_competition(tmp_path)
    return tmp_path


def competition(**changes: Any) -> CompetitionParams:
    from ruamel.yaml import YAML

    block = YAML(typ="safe").load(PARAMS)["competition"]
    return CompetitionParams.model_validate({**block, "rules": NO_RULES, **changes})


def run_library(root: Path, **changes: Any) -> tuple[Eda, str]:
    eda = make_eda(root, competition(**changes), "drop", seed=0)
    return eda, make_page(root, "toy <script>", eda, seed=0)


def run_stage(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-W", "error", "-m", "stages.eda"]
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def read_outputs(root: Path) -> dict[str, bytes]:
    written = [root / "data/manifest.csv", root / "data/problems.csv", root / "metrics/eda.json"]
    written += sorted((root / "reports/eda").iterdir())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in written}


def test_stage_writes_what_it_declares_and_repeats_itself(tmp_path: Path) -> None:
    outputs = []
    for name in ("one", "two and more"):
        write_competition(tmp_path / name)
        done = run_stage(tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert "24 training images of 2 classes, 4 test images" in done.stdout
        assert "the page: reports/eda/eda.html" in done.stdout
        outputs.append(read_outputs(tmp_path / name))
    assert outputs[0] == outputs[1]
    assert list(outputs[0]) == [
        "data/manifest.csv",
        "data/problems.csv",
        "metrics/eda.json",
        "reports/eda/brightness.csv",
        "reports/eda/channels.csv",
        "reports/eda/class_counts.csv",
        "reports/eda/duplicates.csv",
        "reports/eda/eda.html",
        "reports/eda/image_sizes.csv",
        "reports/eda/probes.csv",
    ]
    assert outputs[0]["data/problems.csv"] == b"file,row,image_id,problem,action\n"
    assert str(tmp_path).encode() not in b"".join(outputs[0].values())


def test_stage_stops_with_one_message_and_writes_nothing(root: Path) -> None:
    whole = (root / "data/raw/train/003.png").read_bytes()
    (root / "data/raw/train/003.png").write_bytes(whole[:500])
    (root / "data/raw/test/025.png").write_bytes(b"")
    done = run_stage(root)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("error: eda: 2 problems in the data; mend the data, or set")
    assert lines[1].startswith("  - data/raw/train/003.png: damaged or truncated")
    assert lines[2] == "  - data/raw/test/025.png: the file is empty (0 bytes)"
    assert len(lines) == 3
    assert not (root / "data/manifest.csv").exists()
    assert not (root / "reports").exists()


def test_dropped_rows_are_recorded_and_said(root: Path) -> None:
    (root / "data/raw/train/003.png").write_bytes(b"no image")
    (root / "data/raw/test/025.png").write_bytes(b"")
    eda, page = run_library(root)
    write_eda(root, eda, page)
    problems = pd.read_csv(root / "data/problems.csv", dtype=str, keep_default_na=False)
    assert problems["image_id"].tolist() == ["train/003.png", "test/025.png"]
    assert problems["action"].tolist() == ["dropped", "kept: gets the class prior"]
    metrics = json.loads((root / "metrics/eda.json").read_text())
    details = metrics["details"][0]
    assert (metrics["n_train"], details["n_train_dropped"]) == (23, 1)
    assert (metrics["n_test"], details["n_test_unreadable"]) == (4, 1)
    assert any("1 training rows dropped, 1 test rows kept" in line for line in make_summary(eda))
    assert "test/025.png: the file is empty" in page


def test_start_needs_no_heavy_import() -> None:
    code = (
        "import sys, stages.eda\n"
        "heavy = {'paddle', 'sklearn', 'scipy', 'matplotlib', 'jinja2', 'cv2', 'albumentations'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


class Page(HTMLParser):
    """Collects what would load something, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_loads_nothing_and_escapes_names(root: Path) -> None:
    _, html = run_library(root)
    page = Page(html)
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert not {"script", "link", "iframe", "b>high"} & set(page.tags)
    assert not re.search(r"@import|url\(", html)
    assert "toy <script>: the data" in page.text
    assert "<b>high</b>" in page.text
    for heading in ("At a glance", "What to know", "Baselines", "Classes", "Brightness", "Sizes"):
        assert heading in page.text


def test_duplicates_and_conflicts_are_counted_and_shown(root: Path) -> None:
    train, test = root / "data/raw/train", root / "data/raw/test"
    (train / "001.png").write_bytes((train / "000.png").read_bytes())  # another label
    (train / "002.png").write_bytes((train / "004.png").read_bytes())  # the same label
    (test / "024.png").write_bytes((train / "005.png").read_bytes())
    eda, html = run_library(root)
    table = eda.tables["duplicates"].set_index("place")
    assert table.loc["within train"].tolist() == [2, 4, 1]
    assert table.loc["train and test"].tolist() == [1, 2, 0]
    assert eda.metrics["conflicting_groups"] == 1
    text = Page(html).text
    assert "1 pictures have several labels: train/000.png" in text
    assert "1 test pictures are also training pictures" in text
    groups = eda.assembly.manifest.set_index("image_id")["group_id"]
    assert groups["train/001.png"] == "train/000.png"


def test_mended_labels_are_used_recorded_and_told(root: Path) -> None:
    header = "image_id,given,label,quality\n"
    (root / "data/relabel.csv").write_text(f"{header}train/000.png,low,<b>high</b>,0.01\n")
    eda, page = run_library(root)
    write_eda(root, eda, page)
    assert eda.assembly.manifest.set_index("image_id").at["train/000.png", "label"] == CLASSES[1]
    assert eda.metrics["n_relabelled"] == 1
    problems = (root / "data/problems.csv").read_text().splitlines()
    assert problems[1:] == [
        "data/relabel.csv,2,train/000.png,given 'low',now '<b>high</b>'",
    ]
    assert any("1 labels are not the organiser's" in line for line in eda.warnings)
    (root / "data/relabel.csv").write_text(f"{header}train/000.png,low,lo,0.01\n")
    with pytest.raises(PodiumError, match="line 2: label 'lo' is not in competition.classes"):
        run_library(root)


def test_odd_images_are_told_in_sentences(root: Path) -> None:
    train = root / "data/raw/train"
    photo = Image.open(train / "000.png")
    photo.convert("L").save(train / "001.png")
    photo.resize((30, 30)).save(train / "002.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    photo.save(train / "003.png", exif=exif)
    photo.save(train / "004.png", "JPEG")
    photo.save(train / "005.png", save_all=True, append_images=[photo.rotate(180)])
    (train / "stray.png").write_bytes((train / "006.png").read_bytes())
    warnings = "\n".join(run_library(root)[0].warnings)
    assert "1 images are stored as another mode than RGB: train/001.png (L)" in warnings
    assert "1 images have another size than 48 x 40: train/002.png (30 x 30)" in warnings
    assert "1 images are turned by EXIF (they are set upright): train/003.png" in warnings
    assert "1 images are of another format than their name says: train/004.png (JPEG)" in warnings
    assert "1 images are animated (the first frame counts): train/005.png" in warnings
    assert "1 files are in no list: train/stray.png: no list names it" in warnings


def test_samples_of_12_bits_in_16_are_told(root: Path) -> None:
    train = root / "data/raw/train"
    for number in (1, 2):
        ramp = np.linspace(0, 2000 * number, 48 * 40).reshape(40, 48).astype(np.uint16)
        Image.fromarray(ramp).save(train / f"{number:03}.png")
    Image.fromarray(ramp * 0).save(train / "003.png")  # black, and none the less stored so
    told = "3 images are stored with more than 8 bits, and none has a sample above 4000 of 65535"
    assert any(told in line and "by 16," in line for line in run_library(root)[0].warnings)
    Image.fromarray((ramp * 16).astype(np.uint16)).save(train / "004.png")
    assert not any("than 8 bits" in line for line in run_library(root)[0].warnings)


def test_small_classes_are_warnings_here(root: Path) -> None:
    path = root / "data/raw/train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], "023,rare"]) + "\n")
    eda, _ = run_library(root, classes=[*CLASSES, "rare", "absent"])
    assert "class 'rare' has one training image: folds need at least two" in eda.warnings
    assert "class 'absent' has no training image: it cannot be learned" in eda.warnings
    assert eda.tables["class_counts"]["count"].tolist() == [12, 11, 1, 0]
    assert eda.metrics["baseline_images"] == 23  # what tells the other two is looked for
    assert "(1 image of 1 class left out" in " ".join(make_summary(eda))


def test_tables_hold_what_was_drawn(root: Path) -> None:
    for number in range(24):
        flat = np.full((10, 10, 3), (number % 2) * 100 + 50, dtype=np.uint8)
        flat[..., 0] += number
        Image.fromarray(flat).save(root / f"data/raw/train/{number:03}.png")
    eda, _ = run_library(root)
    brightness = eda.tables["brightness"].set_index("label")
    assert abs(brightness.loc["low", "p50"] - (50 + 0.299 * 11)) < 0.01
    assert abs(brightness.loc["<b>high</b>", "p50"] - (150 + 0.299 * 12)) < 0.01
    channels = eda.tables["channels"].set_index(["source", "channel"])
    assert channels.loc[("train", "red"), "mean"] == 111.5
    assert channels.loc[("train", "green"), "std"] == 50.0
    assert eda.tables["image_sizes"].values.tolist() == [[10, 10, 24], [48, 40, 4]]


def make_thumbnails(n: int, where: slice) -> tuple[np.ndarray, list[str], list[str]]:
    """Noise, with one patch that tells the class."""
    draw = np.random.default_rng(0)
    thumbnails = draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    thumbnails[:, where, where] = (np.arange(n) % 3 * 100).astype(np.uint8)[:, None, None, None]
    return thumbnails, [str(k % 3) for k in range(n)], [f"{k:05}" for k in range(n)]


def test_border_probe_sees_the_border_and_nothing_else() -> None:
    outside = measure_baselines(*make_thumbnails(300, slice(0, 3)), seed=0)
    assert outside.border is not None
    assert outside.border.accuracy > 0.95
    assert outside.border_tells_much
    inside = measure_baselines(*make_thumbnails(300, slice(12, 20)), seed=0)
    assert inside.border is not None
    assert inside.linear is not None
    assert inside.border.low < 1 / 3 < inside.border.high
    assert not inside.border_tells_much
    assert inside.linear.accuracy > 0.95
    assert inside.majority == pytest.approx(1 / 3)


def test_equal_pictures_do_not_lift_the_baseline() -> None:
    """Noise with each picture five times: a split inside the groups would score 100 %."""
    thumbnails = np.repeat(make_thumbnails(80, slice(0, 0))[0], 5, axis=0)
    labels = [str(k // 5 % 2) for k in range(400)]
    groups = [str(k // 5) for k in range(400)]
    baselines = measure_baselines(thumbnails, labels, groups, seed=0)
    assert baselines.linear is not None
    assert baselines.linear.accuracy < 0.75


def test_baselines_are_capped_and_repeat_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation, "MAX_IMAGES", 200)
    data = make_thumbnails(700, slice(0, 3))
    one, two = (measure_baselines(*data, seed=5) for _ in range(2))
    assert one == two
    assert 197 <= one.n_images <= 200


def test_baseline_of_one_class_says_so(root: Path) -> None:
    path = root / "data/raw/train.csv"
    path.write_text(path.read_text().replace(",low", ",<b>high</b>"))
    with pytest.raises(PodiumError, match="all training images are of class '<b>high</b>'"):
        run_library(root)


def test_real_lemons_give_their_background_away() -> None:
    if not (REAL / "lemon").is_dir():
        pytest.skip("real data lemon is not on this machine")
    lemon = competition(
        source="shared/data/lemon",
        train_csv="train_images.csv",
        train_images="train_images",
        test_images="test_images",
        csv_header=False,
        id_column=0,
        label_column=1,
        sample_submission="sample_submit.csv",
        classes=["0", "1", "2", "3"],
    )
    eda = make_eda(REPOSITORY.parent, lemon, "stop", seed=0)
    assert (eda.metrics["n_train"], eda.metrics["n_test"]) == (882, 220)
    assert eda.metrics["duplicate_groups"] == {
        "within_train": 0,
        "within_test": 0,
        "train_and_test": 0,
    }
    assert eda.metrics["border_accuracy"] > 0.97
    assert any("can come from the background alone" in line for line in make_summary(eda))
