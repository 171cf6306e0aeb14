"""The CSV reader: every dialect is read and written back byte for byte; every fault is one line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.data.table import check_declared_header, format_table, read_table
from podium.errors import PodiumError, ProblemsError

ROWS = [["a.jpg", "0"], ["b.jpg", "1"]]


def save(folder: Path, content: bytes) -> Path:
    path = folder / "t.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b"a.jpg,0\nb.jpg,1\n", False),
        (b"id,label\na.jpg,0\nb.jpg,1\n", True),
        (b"id;label\na.jpg;0\nb.jpg;1\n", True),
        (b"id\tlabel\r\na.jpg\t0\r\nb.jpg\t1\r\n", True),
        (b"\xef\xbb\xbfid,label\r\na.jpg,0\r\nb.jpg,1", True),
        (b'"id","label"\n"a.jpg","0"\n"b.jpg","1"\n', True),
        (b"id, label\na.jpg, 0\nb.jpg, 1\n", True),
    ],
)
def test_every_dialect_is_read_and_written_back(
    tmp_path: Path, content: bytes, header: bool
) -> None:
    table = read_table(save(tmp_path, content), has_header=header)
    assert table.frame.to_numpy().tolist() == ROWS
    assert list(table.frame.columns) == (["id", "label"] if header else ["0", "1"])
    assert table.line_numbers == ([2, 3] if header else [1, 2])
    assert format_table(table, table.frame) == content


CELLS = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from('\n",;\t '), max_size=8
)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS.map(lambda cell: "i" + cell), CELLS), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t"),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
)
def test_any_cell_survives(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    delimiter: str,
    newline: str,
    bom: bool,
) -> None:
    """All cells in quotes: nothing about the delimiter or the line ends can be mistaken."""
    lines = [
        delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row)
        for row in [("id", "label"), *rows]
    ]
    content = (newline.join(lines) + newline).encode()
    path = save(tmp_path_factory.mktemp("cells"), b"\xef\xbb\xbf" * bom + content)
    table = read_table(path, has_header=True)
    assert [tuple(row) for row in table.frame.to_numpy().tolist()] == rows
    assert table.delimiter == delimiter
    assert read_table(path, has_header=True).frame.equals(table.frame)
    again = path.with_name("again.csv")
    again.write_bytes(format_table(table, table.frame))
    assert read_table(again, has_header=True).frame.equals(table.frame)


def test_cells_are_not_interpreted(tmp_path: Path) -> None:
    table = read_table(save(tmp_path, b"007,NA\n1e3,\n1.0,null\n"), has_header=False)
    assert table.frame.to_numpy().tolist() == [["007", "NA"], ["1e3", ""], ["1.0", "null"]]


def test_line_numbers_count_the_lines_of_the_file(tmp_path: Path) -> None:
    table = read_table(save(tmp_path, b'id,note\na,"two\nlines"\n\nb,x\n'), has_header=True)
    assert table.line_numbers == [2, 5]


def test_decimal_commas_do_not_hide_the_semicolon(tmp_path: Path) -> None:
    table = read_table(save(tmp_path, b"id;p\na;0,5\nb;0,25\n"), has_header=True)
    assert table.frame["p"].tolist() == ["0,5", "0,25"]


@pytest.mark.parametrize(
    ("content", "header", "message"),
    [
        (b"", False, "is empty (0 bytes)"),
        (b"\n \n", False, "is empty: expected one row per image"),
        (b"id,label\n", True, "has a header and no rows"),
        (b"a,b\nx,y\n1\xff,2\n", True, "line 3: byte 0xff is not UTF-8"),
        ("id,label\n".encode("utf-16"), True, "UTF-16 text: save it as UTF-8"),
        (b"PK\x03\x04xl", True, "zip or Excel file"),
        (b"\x89PNG\0\0", True, "is a binary file"),
        (b"a,b\n1,2\n3\n4,5,6\n", True, "t.csv, line 3: 1 cells, line 1 has 2"),
        (b"id,id\n1,2\n", True, "column name 'id' occurs twice"),
        (b'id,label\n1,"2\n3,4\n', True, "line 2: not a readable CSV row"),
    ],
)
def test_faults_are_named(tmp_path: Path, content: bytes, header: bool, message: str) -> None:
    with pytest.raises(PodiumError) as caught:
        read_table(save(tmp_path, content), has_header=header)
    assert message in str(caught.value)


def test_all_ragged_rows_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        read_table(save(tmp_path, b"a,b\n1\n2\n3,4\n"), has_header=True)
    assert len(caught.value.problems) == 2


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="is missing"):
        read_table(tmp_path / "none.csv", has_header=True)
    with pytest.raises(PodiumError, match="is a folder"):
        read_table(tmp_path, has_header=True)


IMAGES = {"a.jpg", "b.jpg", "c"}


def declared(folder: Path, content: bytes, header: bool) -> None:
    path = save(folder, content)
    check_declared_header(path, read_table(path, header), IMAGES.__contains__)


def test_a_header_where_none_was_declared(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match=r"line 1 looks like a header .*csv_header: true"):
        declared(tmp_path, b"file,label\na.jpg,0\nb.jpg,1\n", False)
    # Class names as headings of probabilities are a header too.
    with pytest.raises(PodiumError, match="looks like a header"):
        declared(tmp_path, b"id,0,1\na.jpg,0,0\nb.jpg,0,0\n", False)


def test_no_header_where_one_was_declared(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match=r"got 'a.jpg', which is an image.*csv_header: false"):
        declared(tmp_path, b"a.jpg,0\nb.jpg,1\n", True)


@pytest.mark.parametrize(
    "content",
    [
        b"id,0,1\n0,0.5,0.5\n1,0.5,0.5\n2,0.5,0.5\n",
        b"0,1,id\n0.5,0.5,0\n0.5,0.5,1\n0.5,0.5,2\n",
        # One image is missing: more zeros than ids name a file.
        b"id,0,1\n0,0,0\n1,0,0\n9,0,0\n",
    ],
)
def test_classes_headed_as_images_are_named(tmp_path: Path, content: bytes) -> None:
    """One of the two declarations passes, and the other's message names it."""
    path, exists = save(tmp_path, content), {"0", "1", "2"}.__contains__
    check_declared_header(path, read_table(path, True), exists)
    with pytest.raises(PodiumError, match=r"looks like a header .*csv_header: true"):
        check_declared_header(path, read_table(path, False), exists)


def test_a_right_declaration_passes(tmp_path: Path) -> None:
    declared(tmp_path, b"a.jpg,0\nb.jpg,1\n", False)
    declared(tmp_path, b"id,label\na.jpg,0\nb.jpg,1\n", True)
    # A first row whose image is missing is no header.
    declared(tmp_path, b"gone.jpg,0\nb.jpg,1\n", False)
    declared(tmp_path, b"gone,0\nb.jpg,1\nc,0\n", False)
