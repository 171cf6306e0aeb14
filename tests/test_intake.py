"""`podium init PATH` as a whole: data/raw, its .dvc file and the block, or nothing at all."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from podium.data.packed_times import PACKED_TIMES, load_packed_times
from podium.data.params import CompetitionParams
from podium.errors import PodiumError
from podium.intake import init
from podium.intake.choice import Choice
from podium.intake.init import init_competition
from podium.params import read_yaml

REAL = Path(__file__).resolve().parents[2] / "shared/data"
FILES = {
    "train_images/a.jpg": "a",
    "train_images/b.jpg": "b",
    "test_images/x.jpg": "x",
    "train.csv": "a.jpg,0\nb.jpg,1\n",
    "sample_submit.csv": "x.jpg,0\n",
}
Tree = dict[str, bytes]


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def read_tree(folder: Path) -> Tree:
    """All files but DVC's own and the lock of init."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".dvc", ".podium"} & set(path.parts)
    }


@pytest.fixture(scope="session")
def empty_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repo")
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True
    )
    (root / "params.yaml").write_text("seed: 1  # kept\n")
    return root


@pytest.fixture
def root(empty_repo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty_repo, tmp_path / "my repo"))


@pytest.fixture
def no_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the test is not about DVC: a stand-in that is 500 times as fast."""

    def stand_in(root: Path, *arguments: str) -> str:
        if arguments[0] == "add":
            (root / "data/raw.dvc").write_text("outs:\n")
        return "{}"

    monkeypatch.setattr(init, "run_dvc", stand_in)


def dvc_status(root: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.usefixtures("no_dvc")
def test_a_data_raw_that_leads_nowhere_is_named(root: Path, tmp_path: Path) -> None:
    (root / "data").mkdir(exist_ok=True)
    (root / "data/raw").symlink_to("nowhere")
    source = write_tree(tmp_path / "fruit", FILES)
    with pytest.raises(
        PodiumError, match="is a link to nowhere, which is missing: remove the link"
    ):
        init_competition(source, root)


def test_a_folder_is_brought_tracked_and_written_down(root: Path, tmp_path: Path) -> None:
    extra = {"notes.txt": "", "test_images/.DS_Store": "", "train_images/readme.md": ""}
    source = write_tree(tmp_path / "fruit", {**FILES, **extra})
    before = read_tree(source)
    intake = init_competition(source, root)
    raw = {name.removeprefix("data/raw/"): content for name, content in read_tree(root).items()}
    assert {name: raw[name].decode() for name in FILES} == FILES
    assert all((source / name).stat().st_nlink == 1 for name in FILES)
    assert not set(extra) & set(raw)
    assert "up to date" in dvc_status(root)
    params = CompetitionParams.model_validate(read_yaml(root / "params.yaml")["competition"])
    assert params == intake.params
    assert params.name == "fruit"
    assert (root / "params.yaml").read_text().startswith("seed: 1  # kept\ncompetition:\n")
    assert intake.lines[-1].startswith("5 files in data/raw/ (0 copied, 5 linked)")
    # What the user does to data/raw later does not reach the user's own files.
    with (root / "data/raw/train.csv").open("a") as stream:
        stream.write("more")
    assert read_tree(source) == before
    # Once more, from the changed source: another competition is not overwritten.
    before = read_tree(root)
    with pytest.raises(PodiumError, match="holds a competition already and is not overwritten"):
        init_competition(source, root)
    assert read_tree(root) == before


def test_a_zip_below_one_top_folder(root: Path, tmp_path: Path, no_dvc: None) -> None:
    path = tmp_path / "my fruit.zip"
    with zipfile.ZipFile(path, "w") as writer:
        for name, content in FILES.items():
            writer.writestr(f"top/{name}", content)
    intake = init_competition(path, root)
    assert intake.params.name == "my fruit"
    assert set(read_tree(root / "data/raw")) == {*FILES, PACKED_TIMES}
    assert set(load_packed_times(root / "data/raw")) == set(FILES)
    assert sorted(entry.name for entry in (root / "data").iterdir()) == ["raw", "raw.dvc"]
    # The same once more changes nothing.
    before = read_tree(root)
    assert "already there" in init_competition(path, root).lines[-1]
    assert read_tree(root) == before


@pytest.mark.parametrize("packed", [False, True])
def test_files_that_are_not_used_are_counted(
    root: Path, tmp_path: Path, no_dvc: None, packed: bool
) -> None:
    others = ("extra.zip", "top/train_images/c.HEIC", "top/train_images/d.heic", "top/README")
    litter = ("top/Thumbs.db", "top/.git/config", "top/labels.json")
    source = write_tree(
        tmp_path / "fruit",
        {f"top/{name}": content for name, content in FILES.items()}
        | dict.fromkeys((*others, *litter), "{}"),
    )
    if packed:
        source = Path(shutil.make_archive(str(tmp_path / "fruit"), "zip", source))
    line = init_competition(source, root).lines[-2]
    assert line.startswith(
        "no image and no table by name, so not used: 2 .heic, 1 .zip, 1 without extension; "
        "2 of them among the images, such as top/train_images/c.HEIC: if these are images"
    )


def test_the_users_files_stay_apart_from_dvcs_cache(root: Path, tmp_path: Path) -> None:
    """Also where DVC links: a hard link would make the user's own file a part of the cache."""
    subprocess.run(
        [sys.executable, "-m", "dvc", "config", "cache.type", "hardlink"], cwd=root, check=True
    )
    source = write_tree(tmp_path / "fruit", FILES)
    init_competition(source, root)
    for name in FILES:
        assert (source / name).stat().st_nlink == 1
        assert (source / name).stat().st_mode & 0o200


def test_copies_where_links_are_not_wanted(root: Path, tmp_path: Path, no_dvc: None) -> None:
    source = write_tree(tmp_path / "fruit", FILES)
    assert "(5 copied, 0 linked)" in init_competition(source, root, link=False).lines[-1]
    assert (root / "data/raw/train.csv").stat().st_nlink == 1
    shutil.rmtree(root / "data")
    (root / "params.yaml").write_text("seed: 1\n")
    assert "(0 copied, 5 linked)" in init_competition(source, root).lines[-1]


def test_no_space_for_a_copy(
    root: Path, tmp_path: Path, no_dvc: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    with pytest.raises(PodiumError, match=r"the files take .* free some and run again"):
        init_competition(write_tree(tmp_path / "fruit", FILES), root, link=False)
    assert list((root / "data").iterdir()) == []


def test_files_that_lie_in_data_raw_already(root: Path, no_dvc: None) -> None:
    raw = write_tree(root / "data/raw", {**FILES, "notes.txt": "mine"})
    intake = init_competition(raw, root)
    assert "as they are" in intake.lines[-1]
    assert intake.params.name == "my repo"
    assert set(read_tree(raw)) == {*FILES, "notes.txt"}


def test_links_in_the_source_are_followed(root: Path, tmp_path: Path, no_dvc: None) -> None:
    source = write_tree(tmp_path / "fruit", FILES)
    (tmp_path / "real.jpg").write_text("real")
    (source / "train_images/a.jpg").unlink()
    (source / "train_images/a.jpg").symlink_to(tmp_path / "real.jpg")
    init_competition(source, root)
    brought = root / "data/raw/train_images/a.jpg"
    assert brought.read_text() == "real"
    assert not brought.is_symlink()


def test_the_unedited_demo_is_replaced_and_the_edited_one_is_not(
    root: Path, tmp_path: Path
) -> None:
    raw = write_tree(root / "data/raw", {"demo.json": "{}", "train.csv": "a"})
    source = write_tree(tmp_path / "fruit", FILES)
    with pytest.raises(PodiumError, match="is not tracked by DVC"):
        init_competition(source, root)
    subprocess.run(
        [sys.executable, "-m", "dvc", "add", "--quiet", "data/raw"], cwd=root, check=True
    )
    (raw / "train.csv").write_text("edited")
    with pytest.raises(PodiumError, match=r"the demo data in .* was edited"):
        init_competition(source, root)
    assert (raw / "train.csv").read_text() == "edited"
    (raw / "train.csv").write_text("a")
    init_competition(source, root)
    assert set(read_tree(raw)) == set(FILES)


def test_an_edited_block_stops_before_anything_is_brought(
    root: Path, tmp_path: Path, no_dvc: None
) -> None:
    source = write_tree(tmp_path / "fruit", FILES)
    (root / "params.yaml").write_text("competition:\n  name: mine\n")
    before = read_tree(root)
    with pytest.raises(PodiumError, match="edited by hand"):
        init_competition(source, root)
    assert read_tree(root) == before
    assert not (root / "data").exists()


@pytest.mark.parametrize("failing", ["run_dvc", "write_competition_block", "_place"])
def test_a_failure_leaves_all_as_it_was(
    root: Path, tmp_path: Path, no_dvc: None, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_tree(root / "data", {"raw/demo.json": "{}", "raw.dvc": "outs:\n- md5: 1\n"})
    before = read_tree(root)
    source = write_tree(tmp_path / "fruit", FILES)
    done = getattr(init, failing)

    def fail(*arguments: object, **named: object) -> object:
        if arguments[1] in ("status", "config"):
            return done(*arguments)
        done(*arguments, **named)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(init, failing, fail)
    if failing == "write_competition_block":
        monkeypatch.setattr(init, failing, lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match=r"No space|full"):
        init_competition(source, root)
    assert read_tree(root) == before
    assert sorted(entry.name for entry in (root / "data").iterdir()) == ["raw", "raw.dvc"]


def test_what_dvc_says_is_passed_on(root: Path, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "fruit", FILES)
    (root / ".dvc/config").write_text("[core\n")
    with pytest.raises(PodiumError, match=r"`dvc add data/raw` failed: .*Invalid line"):
        init_competition(source, root, link=False)
    assert list((root / "data").iterdir()) == []


def test_rest_of_a_killed_init_is_swept(root: Path, tmp_path: Path, no_dvc: None) -> None:
    write_tree(root / "data/.raw.init.dead", {"unpacked/a.jpg": "a"})
    init_competition(write_tree(tmp_path / "fruit", FILES), root)
    assert sorted(entry.name for entry in (root / "data").iterdir()) == ["raw", "raw.dvc"]


def test_paths_that_are_no_competition(root: Path, tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none", "is missing: expected a folder or a .zip"),
        (root / "params.yaml", "expected a folder or a .zip; unpack it"),
        (root, "holds this repository"),
        (tmp_path, "holds this repository"),
    ):
        with pytest.raises(PodiumError, match=message):
            init_competition(path, root)
    shutil.rmtree(root / ".dvc")
    with pytest.raises(PodiumError, match="is no DVC repository"):
        init_competition(tmp_path / "none", root)


def test_messages_name_what_the_user_gave(root: Path, tmp_path: Path, no_dvc: None) -> None:
    path = tmp_path / "half.zip"
    with zipfile.ZipFile(path, "w") as writer:
        writer.writestr("train/a.jpg", "a")
    with pytest.raises(PodiumError) as caught:
        init_competition(path, root)
    assert str(caught.value).startswith(f"{path}: the layout is not clear:")
    assert ".raw.init" not in str(caught.value)


def test_choices_are_passed_on(root: Path, tmp_path: Path, no_dvc: None) -> None:
    source = write_tree(tmp_path / "fruit", {**FILES, "more.csv": FILES["train.csv"]})
    intake = init_competition(source, root, Choice(train_csv="more.csv"))
    assert intake.params.train_csv == "more.csv"


# --- the real competitions ------------------------------------------------------------------------


def real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"the real data is not here: {path}")
    return path


def test_real_lemon(root: Path, no_dvc: None) -> None:
    params = init_competition(real("lemon"), root).params
    assert params.name == "lemon"
    assert params.train_csv == "train_images.csv"
    assert (params.csv_header, params.id_column, params.label_column) == (False, 0, 1)
    assert (params.sample_submission, params.sample_header) == ("sample_submit.csv", False)
    assert params.classes == ("0", "1", "2", "3")


def test_real_gesture(root: Path, no_dvc: None) -> None:
    intake = init_competition(real("gesture/gesture.zip"), root)
    assert intake.params.train_csv is None
    assert intake.params.sample_submission is None
    assert intake.params.classes == tuple("0123456789")
    assert intake.lines[-1].startswith("2062 files")


def test_real_plates(root: Path, no_dvc: None) -> None:
    intake = init_competition(real("plates/plates.zip"), root)
    assert len(intake.params.classes) == 65
    assert any(line.startswith("labels.json is kept") for line in intake.lines)


def test_real_crowd_is_refused(root: Path, no_dvc: None) -> None:
    with pytest.raises(PodiumError, match="counting is not supported yet"):
        init_competition(real("crowd"), root)
    assert not (root / "data/raw").exists()
