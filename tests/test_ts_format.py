import gzip

import numpy as np
import pytest

from prismts.data.readers import read
from prismts.errors import DataError

HEADER = """#a comment
@problemName Toy
@timeStamps false
@univariate false
@dimensions 2
@classLabel true up down
@data
"""


def toy(tmp_path, body, header=HEADER, name="Toy.ts"):
    path = tmp_path / name
    data = (header + body).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read(path)


@pytest.mark.parametrize("name", ["Toy.ts", "Toy.ts.gz"])
def test_cases_of_unequal_length_with_missing_values_are_read(tmp_path, name):
    data = toy(tmp_path, "1,2,3:4,5,6:up\n-1.5e0,?:nan,8: down \n", name=name)
    assert (data.name, len(data), list(data.lengths)) == ("Toy", 2, [3, 2])
    np.testing.assert_array_equal(data[0].values, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(data[1].values, [[-1.5, np.nan], [np.nan, 8]])
    assert data.labels.tolist() == ["up", "down"]
    assert data.values.dtype == np.float32
    assert [f.message for f in data.findings] == [
        "Channel 'channel_0': 1 of 5 values missing (first: case 1).",
        "Channel 'channel_1': 1 of 5 values missing (first: case 1).",
    ]


def test_the_data_are_believed_and_the_header_is_corrected(tmp_path):
    header = HEADER.replace("@dimensions 2", "@dimensions 3\n@equalLength true\n@seriesLength 9")
    data = toy(tmp_path, "1,2:3,4:up\n5,6:7,8:left\n", header)
    assert data.values.shape == (2, 4)
    told = " ".join(str(finding) for finding in data.findings)
    assert "@dimensions 3, but the data say 2" in told
    assert "@serieslength 9, but the data say 2" in told
    assert "does not list the class left" in told


def test_targets_are_numbers_and_cases_may_have_no_label(tmp_path):
    header = HEADER.replace("@classLabel true up down", "@targetLabel true")
    assert toy(tmp_path, "1:2:0.5\n3:4:1.5\n", header).labels.tolist() == [0.5, 1.5]
    with pytest.raises(DataError, match="line 8 has the target 'high', which is not a number"):
        toy(tmp_path, "1:2:high\n", header)
    plain = toy(tmp_path, "1,2\n3,4\n", "@classLabel false\n@data\n")
    assert plain.labels is None
    np.testing.assert_array_equal(plain.values, [[1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("1,2:3,4:up\n\n1,x:3,4:up\n", "line 10 holds 'x', where a number is expected"),
        ("1,2:3,4:up\n1,:3,4:up\n", "line 9 holds '', where a number is expected"),
        ("1,2:3,4:up\n1,2:3:up\n", "line 9 has 2 values in channel 0 but 1 in channel 1"),
        ("1,2:3,4:up\n1,2:up\n", "line 9 has 1 channels, but line 8 has 2"),
        ("1,2:3,4:up\n1,2:3,4\n", "line 9 has no label"),
        ("1,2:3,4:up\n1,2:3,inf:up\n", "line 9 holds an infinite value in channel 1"),
        ("", "a header but no cases"),
    ],
)
def test_errors_name_the_line(tmp_path, body, words):
    with pytest.raises(DataError, match=words):
        toy(tmp_path, body)


def test_what_is_no_ts_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no line @data"):
        toy(tmp_path, "1,2\n", "@classLabel true\n")
    with pytest.raises(DataError, match=r"line 1 \('1,2:3'\) stands before @data"):
        toy(tmp_path, "", "1,2:3\n@data\n")
    with pytest.raises(DataError, match="@timeStamps true"):
        toy(tmp_path, "(0,1):a\n", "@timeStamps true\n@data\n")


def test_unusual_spellings_of_numbers_are_read_too(tmp_path):
    np.testing.assert_array_equal(toy(tmp_path, "1_0, 2:+3,?:up\n")[0].values, [[10, 2], [3, np.nan]])


def compare_with_aeon(path, tmp_path):
    from aeon.datasets import load_from_ts_file

    plain = tmp_path / path.name.removesuffix(".gz")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    x, y = load_from_ts_file(str(plain))
    data = read(path)
    assert len(data) == len(x)
    for case, expected in zip(data, x, strict=True):
        np.testing.assert_array_equal(case.values, expected.astype(np.float32))
    assert [label.lower() for label in data.labels] == list(y)  # aeon writes labels small


@pytest.mark.parametrize(
    "name", ["GunPoint_TRAIN", "JapaneseVowels_TRAIN", "BasicMotions_TEST", "FingerMovements_TEST"]
)
def test_small_sets_agree_with_aeon(data_root, tmp_path, name):
    compare_with_aeon(data_root / "classification" / name.partition("_")[0] / f"{name}.ts.gz", tmp_path)


@pytest.mark.slow
def test_every_set_agrees_with_aeon(data_root, tmp_path):
    paths = sorted(data_root.glob("classification/*/*.ts.gz"))
    assert paths
    for path in paths:
        compare_with_aeon(path, tmp_path)
