"""Ids find their files by the rules of `IdResolver`, and never by a guess."""

import errno
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from podium.data.ids import IdResolver, list_images
from podium.errors import PodiumError


@pytest.mark.parametrize(
    ("listed", "file"),
    [
        ("a/1.jpg", "a/1.jpg"),
        ("a/1", "a/1.jpg"),
        ("a\\1.jpg", "a/1.jpg"),
        ("./a/1.jpg", "a/1.jpg"),
        ("two.JPG", "b/two.JPG"),
        ("two", "b/two.JPG"),
        ("two.jpg", "b/two.JPG"),
        ("train/b/two.jpg", "b/two.JPG"),
        ("../train/v1.2", "v1.2.png"),
        ("c/3", "images/c/3.jpg"),
        ("v1.2", "v1.2.png"),
        ("with space.jpg", "with space.jpg"),
        (unicodedata.normalize("NFD", "zitröne.jpg"), "zitröne.jpg"),
    ],
)
def test_an_id_finds_its_file(listed: str, file: str) -> None:
    files = ["a/1.jpg", "b/1.jpg", "b/two.JPG", "v1.2.png", "with space.jpg", "zitröne.jpg"]
    files.append("images/c/3.jpg")
    assert IdResolver(files).resolve(listed) == file


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("1.jpg", "id '1.jpg' could be 2 files (a/1.jpg, b/1.jpg): write the whole path"),
        ("1", "could be 2 files"),
        ("x.jpg", "id 'x.jpg' has no image file"),
        ("a/1.png", "has no image file; did you mean"),
        ("train_7.jpg", "has no image file; did you mean 'train_007.jpg'?"),
        (" ", "the id is empty"),
        ("", "the id is empty"),
    ],
)
def test_no_file_or_several(listed: str, message: str) -> None:
    resolver = IdResolver(["a/1.jpg", "b/1.jpg", "train_007.jpg"])
    assert resolver.resolve(listed) is None
    assert message in resolver.problem(listed)


@pytest.mark.parametrize("listed", ["p1/1.jpg", "p1/1", "p1/1.JPG", "train/p1/1.jpg", "2/1.jpg"])
def test_a_folder_of_the_id_is_no_other_folder(listed: str) -> None:
    resolver = IdResolver(["p2/1.jpg"])
    assert resolver.resolve(listed) is None
    assert resolver.problem(listed).startswith(f"id {listed!r} has no image file; did you mean")


@pytest.mark.parametrize("listed", ["aBc", "aBc.jpg", "aBc.JPG", "d/aBc.jpg", "D/AbC.jpg"])
def test_case_tells_ids_apart(listed: str) -> None:
    assert IdResolver(["d/AbC.jpg"]).resolve(listed) is None


def test_case_decides_only_where_nothing_else_does() -> None:
    resolver = IdResolver(["A.jpg", "a.jpg"])
    assert resolver.resolve("A.jpg") == "A.jpg"
    assert resolver.resolve("a.jpg") == "a.jpg"
    assert resolver.resolve("A.JPG") is None


def test_list_images_is_sorted_and_leaves_litter_out(tmp_path: Path) -> None:
    for name in (
        "b.JPG",
        "c.jfif",
        "a/2.png",
        "a/10.png",
        "._b.JPG",
        ".git/x.png",
        "__MACOSX/y.png",
        "n.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == ["a/10.png", "a/2.png", "b.JPG", "c.jfif"]


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "train/bird").symlink_to(tmp_path / "real")
    with pytest.raises(PodiumError, match=r"train/bird is a link to the folder .*/real: expected"):
        list_images(tmp_path)


def test_an_unreadable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the error is made up."""
    (tmp_path / "bird").mkdir()
    scan = os.scandir

    def fail(path: str) -> Any:
        if path.endswith("bird"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(PodiumError, match=r"bird cannot be read \(Permission denied\): expected"):
        list_images(tmp_path)
