"""The block: complete, stable under DVC's rewriting, never overwritten when edited."""

from pathlib import Path

import pytest
from dvc.utils.serialize import modify_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.data.params import NO_RULES, CompetitionParams, RulesParams
from podium.errors import PodiumError
from podium.intake.competition_block import (
    COMMENTS,
    RULES_COMMENTS,
    check_block_replaceable,
    make_competition_block,
    write_competition_block,
)
from podium.params import read_yaml


def make_params(name: str = "lemon", classes: tuple[str, ...] = ("0", "1")) -> CompetitionParams:
    return CompetitionParams(
        name=name,
        task="classification",
        source="data/raw",
        train_csv="train.csv",
        train_images="train",
        test_images="test",
        csv_header=False,
        id_column=0,
        label_column=1,
        group_column=None,
        sample_submission=None,
        sample_header=True,
        classes=classes,
        ordinal=False,
        submission="label",
        rules=NO_RULES,
    )


def test_every_key_is_explained() -> None:
    assert set(COMMENTS) == set(CompetitionParams.model_fields)
    assert set(RULES_COMMENTS) == set(RulesParams.model_fields)
    lines = make_competition_block(make_params()).splitlines()
    for margin, comments in (("  ", COMMENTS), ("    ", RULES_COMMENTS)):
        for key, comment in comments.items():
            (number,) = [n for n, line in enumerate(lines) if line.startswith(f"{margin}{key}:")]
            assert lines[number - 1] == f"{margin}# {comment}"
    assert all(len(line) <= 100 for line in lines)


@settings(deadline=None)
@given(
    name=st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=120),
    classes=st.lists(
        st.sampled_from(["0", "1e3", "null", "no", " a", "#b", "- c", "?0", ":", "柠檬", "x " * 50])
        | st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=90),
        min_size=2,
        max_size=30,
        unique=True,
    ),
)
def test_values_survive_and_dvc_leaves_the_text_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, name: str, classes: list[str]
) -> None:
    """`dvc exp run -S lr=...` writes params.yaml anew: that must not count as an edit."""
    params = make_params(name, tuple(classes))
    path = tmp_path_factory.mktemp("block") / "params.yaml"
    path.write_text(f"seed: 1\n{make_competition_block(params)}\n# rate\nlr: 3e-4\n", "utf-8")
    assert CompetitionParams.model_validate(read_yaml(path)["competition"]) == params
    with modify_yaml(str(path)) as tree:
        tree["seed"] = 2
    check_block_replaceable(path)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_all_other_bytes_stay(tmp_path: Path, newline: str) -> None:
    path = tmp_path / "params.yaml"
    before = "# top\nseed: 0  # a  b\n\n# mine\n"
    after = "\n# next\nlr:   3e-4\nmodel: {a: 1}"
    text = (before + make_competition_block(make_params()) + after).replace("\n", newline)
    path.write_bytes(text.encode())
    fresh = make_params("other", tuple("abcdefghij" * 9)[:10])
    write_competition_block(path, fresh)
    wanted = (before + make_competition_block(fresh) + after).replace("\n", newline)
    assert path.read_bytes().decode() == wanted
    write_competition_block(path, make_params())
    assert path.read_bytes().decode() == text


def test_a_missing_block_is_put_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 0\nlr: 1")
    write_competition_block(path, make_params())
    assert path.read_text() == "seed: 0\nlr: 1\n" + make_competition_block(make_params())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ordinal: false", "ordinal: true"),
        ("  # What reports call it.\n", ""),
        ("  task: classification\n", "  task: classification  # mine\n"),
        ("checksum: ", "checksum: 0"),
        ("    tta: true", "    tta: false"),
    ],
)
def test_an_edited_block_is_not_overwritten(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "params.yaml"
    block = make_competition_block(make_params())
    edited = block.replace(old, new, 1)
    assert edited != block
    path.write_text(edited + "lr: 1\n")
    with pytest.raises(PodiumError, match="was edited by hand and is not overwritten"):
        write_competition_block(path, make_params("other"))
    assert path.read_text() == edited + "lr: 1\n"


def test_a_block_without_checksum_is_the_users(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("competition:\n  name: mine\nlr: 1\n")
    with pytest.raises(PodiumError, match="edited by hand"):
        write_competition_block(path, make_params())
