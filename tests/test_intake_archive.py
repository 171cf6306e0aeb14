"""Hostile, damaged and odd zips: one clear line, and nothing on the disk."""

import contextlib
import shutil
import stat
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.errors import PodiumError, ProblemsError
from podium.intake import archive
from podium.intake.archive import extract_archive


def make_zip(folder: Path, *members: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    path = folder / "hostile.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as writer:
        for member in members:
            writer.writestr(member, content)
    return path


def extract(path: Path) -> list[str]:
    target = path.parent / "out"
    extract_archive(path, target)
    return sorted(file.relative_to(target).as_posix() for file in target.rglob("*.*"))


def link(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


def test_what_a_competition_needs_is_unpacked_and_litter_is_not(tmp_path: Path) -> None:
    names = ("a/1.JPG", "a/", "b.csv", "labels.json", "run.sh", "a/.DS_Store", "Thumbs.db")
    path = make_zip(tmp_path, *names, "__MACOSX/a/._1.JPG", "a/._1.JPG", "./c/./2.png")
    assert extract(path) == ["a/1.JPG", "b.csv", "c/2.png", "labels.json"]
    assert all(stat.S_IMODE(file.stat().st_mode) & 0o111 == 0 for file in tmp_path.rglob("*.JPG"))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../evil.jpg", "leads out of the folder"),
        ("a/../../evil.jpg", "leads out of the folder"),
        ("..\\evil.jpg", "leads out of the folder"),
        ("/etc/evil.jpg", "an absolute path"),
        ("\\\\host\\evil.jpg", "an absolute path"),
        ("C:\\evil.jpg", "an absolute path"),
        (link("evil.jpg", stat.S_IFLNK), "a link or device"),
        (link("evil.jpg", stat.S_IFCHR), "a link or device"),
        ("A.jpg", "the same file as 'a.jpg' on some disks"),
        ("a.jpg/b.jpg", "'a.jpg': a folder of the same name has files"),
        ("new\nline.jpg", "control characters"),
        ("x" * 300 + ".jpg", "more than 255 bytes"),
    ],
)
def test_hostile_members(tmp_path: Path, member: str | zipfile.ZipInfo, message: str) -> None:
    path = make_zip(tmp_path, "a.jpg", member, content=b"/etc/passwd")
    with pytest.raises(ProblemsError) as caught:
        extract(path)
    assert len(caught.value.problems) == 1
    assert message in caught.value.problems[0]
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_all_problems_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        extract(make_zip(tmp_path, "a.jpg", "a.jpg", "../b.jpg", "/c.jpg"))
    assert len(caught.value.problems) == 3


def patch_central_directory(path: Path, offset: int, value: int) -> None:
    """Overwrite a 16-bit field of the first entry of the central directory."""
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + offset : start + offset + 2] = struct.pack("<H", value)
    path.write_bytes(content)


def test_encrypted_and_unknown_methods(tmp_path: Path) -> None:
    path = make_zip(tmp_path, "a.jpg")
    patch_central_directory(path, 8, 1)
    with pytest.raises(ProblemsError, match=r"'a.jpg': encrypted: unpack it with its password"):
        extract(path)
    path = make_zip(tmp_path, "a.jpg")
    patch_central_directory(path, 10, 9)
    with pytest.raises(ProblemsError, match="packed by method 9"):
        extract(path)


def test_names_in_utf8_without_the_flag(tmp_path: Path) -> None:
    """macOS writes UTF-8 names and does not say so."""
    path = make_zip(tmp_path, "柠檬/ü 1.jpg")
    content = path.read_bytes()
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = content.index(mark) + offset
        content = content[:start] + b"\0\0" + content[start + 2 :]
    path.write_bytes(content)
    assert extract(path) == ["柠檬/ü 1.jpg"]


def test_a_member_without_a_name(tmp_path: Path) -> None:
    path = make_zip(tmp_path, "a.jpg")
    path.write_bytes(path.read_bytes().replace(b"a.jpg", b"\0.jpg"))
    with pytest.raises(ProblemsError, match="a member without a name"):
        extract(path)


def test_names_in_another_encoding(tmp_path: Path) -> None:
    path = make_zip(tmp_path, "aaaa.jpg")
    path.write_bytes(path.read_bytes().replace(b"aaaa", "柠檬".encode("gbk")))
    with pytest.raises(ProblemsError, match="the name is not UTF-8"):
        extract(path)


def test_bomb(tmp_path: Path) -> None:
    path = make_zip(tmp_path, "a.jpg", content=bytes(101_000_000))
    with pytest.raises(PodiumError, match="more than 200 times is a zip bomb"):
        extract(path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    with pytest.raises(PodiumError, match="holds 3 members: at most 2"):
        extract(make_zip(tmp_path, "1.jpg", "2.jpg", "3.jpg"))


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    path = make_zip(tmp_path, "1.jpg", content=b"1234")
    with pytest.raises(PodiumError, match="free some and run again"):
        extract(path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_damaged_files(tmp_path: Path) -> None:
    path = make_zip(tmp_path, "1.jpg", content=bytes(range(256)) * 40)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[60] ^= 0xFF
    for content in (b"", b"no zip", whole[:-30], whole[len(whole) // 2 :], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(PodiumError, match="no zip file or a damaged one"):
            extract(path)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), method=st.sampled_from([0, 8, 12, 14]))
def test_any_flipped_bytes_give_the_files_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, method: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    path = folder / "flip.zip"
    with zipfile.ZipFile(path, "w", method) as writer:
        writer.writestr("ü.jpg", bytes(range(100)))
        writer.writestr("b.csv", b"1,2\n" * 20)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(PodiumError):
        extract(path)
    assert all(file.is_relative_to(folder / "out") for file in folder.rglob("*.jpg"))
    shutil.rmtree(folder)


def test_no_images_in_it(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match=r"holds no images; unpack the inner train.zip"):
        extract(make_zip(tmp_path, "train.zip", "train.csv"))
