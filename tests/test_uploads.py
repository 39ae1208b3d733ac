"""Files that come in over a page: what is taken, and what is refused, in which words."""

import asyncio
import gzip
import io
import pickle
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismts.errors import DataError
from prismts.serving.uploads import ENDINGS, Limits, looked_through, neutral, received, safe_name

TABLE = b"time,load\n2024-01-01,1.5\n2024-01-02,2.5\n"
SMALL = Limits(
    file_bytes=20_000,
    unpacked_bytes=50_000,
    line_bytes=500,
    case_bytes=2_000,
    columns=10,
    rows=100,
    values=500,
    arrays=3,
)


def written(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def refusal(tmp_path, name, content, limits=SMALL):
    with pytest.raises(DataError) as caught:
        looked_through(written(tmp_path, name, content), limits)
    return str(caught.value)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


# ---- names


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("sales.csv", "sales.csv"),
        ("Umsätze 2024 (neu).csv.gz", "Umsätze 2024 (neu).csv.gz"),
        ("../../etc/passwd.csv", "passwd.csv"),
        ("C:\\Users\\me\\data.parquet", "data.parquet"),
        ("<img src=x onerror=alert(1)>.csv", "_img src_x onerror_alert(1)_.csv"),
        ("a\0b\nc\u202e.ts", "abc.ts"),
        (".csv", "table.csv"),
        ("x" * 500 + ".npz", "x" * 80 + ".npz"),
    ],
)
def test_a_name_becomes_one_that_may_be_written_and_shown(given, safe):
    assert safe_name(given) == safe


@pytest.mark.parametrize("name", ["data.xlsx", "data", "", "data.csv.exe", "data.pkl"])
def test_an_ending_that_is_not_read_is_refused_with_those_that_are(name):
    with pytest.raises(DataError, match="the ending tells no format") as caught:
        safe_name(name)
    assert ".parquet" in str(caught.value)


@given(st.text(max_size=60), st.sampled_from(ENDINGS))
def test_no_name_leaves_its_folder_or_becomes_another_when_cleaned_again(stem, ending):
    name = safe_name(stem + ending)
    assert "/" not in name and "\\" not in name and "\0" not in name and not name.startswith(".")
    assert name.isprintable() and len(name) <= 100 and safe_name(name) == name


# ---- coming in


async def pieces(*parts):
    for part in parts:
        yield part


def come_in(folder, name, *parts, **more):
    return asyncio.run(received(pieces(*parts), folder, name, SMALL, **more))


def test_what_comes_in_pieces_lies_in_the_folder_as_one_file(tmp_path):
    path = come_in(tmp_path / "new", "sales.csv", TABLE[:7], TABLE[7:])
    assert path == tmp_path / "new" / "sales.csv" and path.read_bytes() == TABLE
    assert [file.name for file in path.parent.iterdir()] == ["sales.csv"]


def test_what_is_too_large_is_refused_with_the_limit_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="larger than 20,000 bytes"):
        come_in(tmp_path, "sales.csv", b"x" * 15_000, b"x" * 15_000)
    with pytest.raises(DataError, match="larger than 20,000 bytes"):
        come_in(tmp_path, "sales.csv", announced=20_001)
    with pytest.raises(DataError, match=r"sales\.csv is empty"):
        come_in(tmp_path, "sales.csv", b"")
    assert not list(tmp_path.iterdir())


# ---- text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TABLE),
        ("a.csv", TABLE.replace(b"\n", b"\r\n")),
        ("a.csv", TABLE.replace(b"\n", b"\r")),
        ("a.csv", TABLE.decode().encode("utf-16")),
        ("a.csv", b"\xef\xbb\xbf" + TABLE),
        ("a.csv", "zeit;größe\n1;2,5\n".encode("latin-1")),
        ("a.csv.gz", gzip.compress(TABLE, mtime=0)),
        ("a.ts", b"@classLabel true a b\n@data\n" + b",".join([b"1.5"] * 300) + b":a\n"),
        ("a.npz", npz(values=np.zeros((2, 50)))),
    ],
)
def test_an_honest_file_is_let_through(tmp_path, name, content):
    table = looked_through(written(tmp_path, name, content), SMALL)
    assert table.n_bytes == len(content) and name.endswith(table.ending)


def test_a_parquet_file_is_let_through_and_bounded(tmp_path):
    pq.write_table(pa.table({"x": np.arange(90.0)}), tmp_path / "a.parquet")
    assert looked_through(tmp_path / "a.parquet", SMALL).ending == ".parquet"
    pq.write_table(pa.table({"x": np.arange(101.0)}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="more than 100 rows"):
        looked_through(tmp_path / "b.parquet", SMALL)
    pq.write_table(pa.table({f"c{i}": [1.0] for i in range(11)}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="more than 10 columns"):
        looked_through(tmp_path / "c.parquet", SMALL)
    assert "no Parquet file" in refusal(tmp_path, "d.parquet", TABLE)
    assert "no Parquet file" in refusal(tmp_path, "e.parquet", (tmp_path / "a.parquet").read_bytes()[:-40] + b"PAR1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"time,load\n1,2\n3,\0\n", "line 3 holds a NUL byte"),
        (b"time,load\n1,\x1b[31m2\n", "control sign 0x1b"),
        (TABLE.decode().encode("utf-16-le"), "NUL byte"),
        (b"\xff\xfe" + b"\x00\xd8" * 5, "begins as UTF-16 text but is none"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "no text but a picture"),
        (b"PK\x03\x04" + bytes(50), "perhaps an Excel workbook"),
        (gzip.compress(TABLE, mtime=0), "compressed by gzip. Name it .csv.gz"),
        (b"a,b\n1," + b"9" * 600 + b"\n", "line 2 is longer than 500 bytes"),
        (b"9" * 600, "line 1 is longer than 500 bytes"),
        (b",".join([b"c"] * 11) + b"\n1\n", "more than 10 columns"),
        (b",".join([b"c"] * 11), "more than 10 columns"),
        (b"a\n" + b"1\n" * 150, "more than 100 rows"),
        (b",".join([b"c"] * 10) + b"\n" + b"1\n" * 60, "more than 500 values"),
        (b"", "is empty"),
    ],
    ids=str,
)
def test_hostile_text_is_refused_in_words_that_name_the_place_or_the_limit(tmp_path, content, words):
    assert words in refusal(tmp_path, "a.csv", content)


def test_a_gzip_bomb_is_refused_before_it_unpacks_to_more_than_the_limit(tmp_path):
    bomb = gzip.compress(b"1,2\n" * 100_000, mtime=0)
    assert len(bomb) < 2_000
    wide = Limits(unpacked_bytes=50_000, rows=10**9, values=10**9)
    assert "unpacks to more than 50,000 bytes" in refusal(tmp_path, "a.csv.gz", bomb, wide)
    assert "no gzip file, or a truncated one" in refusal(tmp_path, "b.csv.gz", gzip.compress(TABLE, mtime=0)[:-6])
    assert "no gzip file" in refusal(tmp_path, "c.csv.gz", TABLE)


# ---- arrays


class _Trap:
    def __reduce__(self):
        return print, ("opened",)


def test_a_pickle_in_an_archive_is_refused_and_not_opened(tmp_path, capsys):
    trap = npz(values=np.array([_Trap()], dtype=object))
    assert "pickled objects, which could run code" in refusal(tmp_path, "a.npz", trap)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("values.npy", pickle.dumps(_Trap()))
    assert "no .npz file of plain arrays" in refusal(tmp_path, "b.npz", buffer.getvalue())
    assert "opened" not in capsys.readouterr().out


def test_a_zip_bomb_and_foreign_archives_are_refused(tmp_path):
    assert "unpacks to more than 50,000 bytes" in refusal(tmp_path, "a.npz", npz(values=np.zeros((100, 1000))))
    assert "more than 3 arrays" in refusal(tmp_path, "b.npz", npz(**{f"x{i}": np.zeros(2) for i in range(4)}))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    assert "'xl/workbook.xml', which is no array" in refusal(tmp_path, "c.npz", buffer.getvalue())
    assert "no .npz file" in refusal(tmp_path, "d.npz", TABLE)


def test_an_array_that_lies_about_its_size_is_refused_by_its_header(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("values.npy", header.getvalue())
    assert "unpacks to more than" in refusal(tmp_path, "a.npz", buffer.getvalue())


# ---- going out


def test_text_that_a_spreadsheet_would_run_gets_a_quote_and_numbers_stay():
    frame = pd.DataFrame({
        "=cmd()": [-1.5, 2.0], "series": ["=HYPERLINK(1)", "plain"], "time": pd.to_datetime(["2024-01-01", None]),
    })  # fmt: skip
    safe = neutral(frame)
    assert list(safe.columns) == ["'=cmd()", "series", "time"]
    assert safe["'=cmd()"].tolist() == [-1.5, 2.0] and safe["series"].tolist() == ["'=HYPERLINK(1)", "plain"]
    assert frame.columns[0] == "=cmd()" and frame["series"][0] == "=HYPERLINK(1)"
    assert safe["time"].dtype.kind == "M"


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5))
def test_no_text_leaves_that_begins_as_a_formula_and_none_is_lost(cells):
    safe = neutral(pd.DataFrame({"x": pd.Series(cells, dtype=object)}))["x"].tolist()
    assert not any(cell.lstrip(" \u00a0\ufeff").startswith(("=", "+", "-", "@", "\t", "\r")) for cell in safe)
    assert all(new in (old, f"'{old}") for new, old in zip(safe, cells, strict=True))
