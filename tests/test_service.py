"""The service answers as the library does, in every format, alone or gathered, and refuses in the library's words."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from fastapi.testclient import TestClient

import prismts
from prismts.cli.serve import serve
from prismts.data.series import Collection, Series
from prismts.data.synthetic import labeled_motions, simulated_plant
from prismts.errors import DataError, MissingExtraError, SavedModelError, SettingsError
from prismts.serving.answers import wanted
from prismts.serving.batching import GatherConfig, Worker
from prismts.serving.bodies import Body, Limits, Reading, series_of
from prismts.serving.meters import Meters
from prismts.serving.refusals import Refused
from prismts.serving.served import Engine, Facts, TorchEngine
from prismts.serving.service import create_app
from prismts.serving.streams import Streams

JSON, CSV = "application/json", "text/csv"
PARQUET, ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
QUICK = {"max_epochs": 1, "min_steps": 0}
PATHS = {"quantiles": "forecast", "motions": "classify", "watch": "detect", "filler": "impute", "vectors": "embed"}


def table_of(series: Series, n: int, holes: bool = False) -> pd.DataFrame:
    """The first steps of a series as a table with times, with a few holes."""
    values = series.values[:, :n].astype(np.float64).round(3)
    if holes:
        values[0, 3], values[1, 5:8], values[2, -1] = np.nan, np.nan, np.nan
    frame = pd.DataFrame(values.T, columns=list(series.channels))
    frame.insert(0, "date", pd.date_range("2026-03-01", periods=n, freq="h"))
    return frame


def json_of(frame: pd.DataFrame) -> bytes:
    cells = {}
    for name in frame:
        column = frame[name]
        if column.dtype.kind == "M":
            column = column.astype(str)
        cells[name] = column.astype(object).where(column.notna(), None).tolist()
    return json.dumps({"columns": cells}).encode()


def parquet_of(frame: pd.DataFrame | pa.Table, **options: object) -> bytes:
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def arrow_of(frame: pd.DataFrame | pa.Table, **options: object) -> bytes:
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema, **options) as writer:
        writer.write_table(table)
    return out.getvalue()


def csv_of(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


ENCODE = {JSON: json_of, CSV: csv_of, PARQUET: parquet_of, ARROW: arrow_of}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One small model of each task, and a second forecaster."""
    root = tmp_path_factory.mktemp("models")
    plant = simulated_plant(500, seed=0)
    plant = Series(plant.values[:3], plant.channels[:3], plant.timestamps, plant.frequency)
    common = {"progress": False, "context_length": 48, "fit_settings": QUICK}
    prismts.Forecaster(horizon=6, quantiles=(0.1, 0.5, 0.9), **common).fit(plant).save(root / "quantiles")
    prismts.Forecaster("ridge", context_length=24, horizon=4).fit(plant).save(root / "ridge")
    prismts.Imputer(**common).fit(plant).save(root / "filler")
    cases = labeled_motions(24, n_timepoints=40, seed=0)
    prismts.Classifier(progress=False, fit_settings=QUICK, validation=None).fit(cases).save(root / "motions")
    prismts.Embedder(progress=False, fit_settings=QUICK).fit(cases).save(root / "vectors")
    prismts.AnomalyDetector(progress=False).fit(plant).save(root / "watch")
    return root


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: prismts.load(folders / name) for name in (*PATHS, "ridge")}


@pytest.fixture(scope="module")
def app(folders):
    return create_app([folders / name for name in (*PATHS, "ridge")], max_body_bytes=200_000, max_rows=3000)


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app) as client:
        yield client


def question(name: str) -> pd.DataFrame:
    """A table that the model of this name reads."""
    if name in ("motions", "vectors"):
        case = labeled_motions(24, n_timepoints=40, seed=3)[1]
        return table_of(case, 40, holes=True)
    plant = simulated_plant(500, seed=0)
    return table_of(Series(plant.values[:3], plant.channels[:3]), 120, holes=True)


def offline(name: str, estimator, path) -> pd.DataFrame:
    """What the library answers for a file."""
    if name == "motions":
        probabilities = estimator.predict_proba(path)
        columns = {f"p({label})": probabilities[:, k] for k, label in enumerate(estimator.classes_)}
        return pd.DataFrame({"class": estimator.predict(path)} | columns)
    if name == "watch":
        scores, threshold = estimator.score_samples(path), estimator.threshold_.value
        return pd.DataFrame({"score": scores, "threshold": threshold, "alarm": (scores > threshold).astype(int)})
    if name == "vectors":
        vectors = estimator.transform(path)
        return pd.DataFrame({f"e{i}": vectors[:, i] for i in range(vectors.shape[1])})
    return estimator.transform(path) if name == "filler" else estimator.predict(path)


def assert_same(columns: dict, expected: pd.DataFrame) -> None:
    """Every column of the library, to the last bit."""
    for name in expected:
        told = expected[name].to_numpy()
        if told.dtype.kind == "M":
            assert (np.array(columns[name], dtype="datetime64[ns]") == told.astype("datetime64[ns]")).all()
        else:
            np.testing.assert_array_equal(np.asarray(columns[name]).astype(told.dtype), told)


# ---- answers


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("kind", ENCODE)
def test_every_body_format_gets_the_very_answer_of_the_library(client, loaded, tmp_path, name, kind):
    frame = question(name)
    frame.to_csv(tmp_path / "data.csv", index=False)
    asked = client.post(
        f"/{PATHS[name]}", params={"model": name}, content=ENCODE[kind](frame), headers={"Content-Type": kind}
    )
    assert asked.status_code == 200, asked.text
    answer = asked.json()
    assert_same(answer["columns"], offline(name, loaded[name], tmp_path / "data.csv"))
    assert answer["model"] == name and any("missing" in finding for finding in answer["findings"])


@pytest.mark.parametrize("name", ["ridge", "watch", "filler"])
def test_times_are_answered_in_the_zone_they_came_in(client, name):
    frame = question(name)
    frame["date"] = frame["date"].dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata")
    path = f"/{PATHS.get(name, 'forecast')}?model={name}"
    for content, kind in ((parquet_of(frame), PARQUET), (json_of(frame.astype({"date": str})), JSON)):
        answer = client.post(path, content=content, headers={"Content-Type": kind}).json()
        first = frame["date"].iloc[-1] + pd.Timedelta("1h") if name == "ridge" else frame["date"].iloc[0]
        assert answer["columns"]["date"][0] == first.isoformat() == first.strftime("%Y-%m-%dT%H:%M:%S+05:30")
        assert all(event["begin"].endswith("+05:30") for event in answer.get("events", ()))


def test_what_was_observed_is_given_back_digit_for_digit(client):
    frame = question("filler")
    name = frame.columns[1]
    frame[name] = frame[name] + 1234.5678901
    answer = client.post("/impute", content=json_of(frame), headers={"Content-Type": JSON}).json()["columns"]
    seen = frame[name].notna().to_numpy()
    assert np.array(answer[name])[seen].tolist() == frame[name][seen].tolist()
    assert all(len(str(value)) < 12 for value in np.array(answer[name])[~seen].tolist())


@pytest.mark.parametrize("file", ["data.csv", "data.parquet", "data.arrows", "data.json"])
def test_a_file_of_a_form_is_read_by_its_ending(client, file):
    frame = question("ridge")
    content = ENCODE[{"csv": CSV, "parquet": PARQUET, "arrows": ARROW, "json": JSON}[file.partition(".")[2]]](frame)
    by_form = client.post("/forecast?model=ridge", files={"file": (file, content, "application/octet-stream")})
    plain = client.post("/forecast?model=ridge", content=json_of(frame), headers={"Content-Type": JSON})
    assert by_form.status_code == 200 and by_form.json() == plain.json()


def test_every_answer_format_holds_the_same_table(client):
    def ask(accept: str) -> bytes:
        headers = {"Content-Type": CSV, "Accept": accept}
        found = client.post("/forecast?model=quantiles", content=csv_of(question("quantiles")), headers=headers)
        assert found.headers["content-type"].startswith(accept)
        return found.content

    frame = pd.read_parquet(io.BytesIO(ask(PARQUET)))
    assert list(frame.columns)[:3] == ["date", "feeder_1", "feeder_1_q0.1"] and len(frame) == 6
    pd.testing.assert_frame_equal(pa.ipc.open_stream(ask(ARROW)).read_pandas(), frame)
    read = pd.read_csv(io.BytesIO(ask(CSV)), parse_dates=["date"])
    for name in frame.columns[1:]:
        np.testing.assert_array_equal(read[name].to_numpy().astype(np.float32), frame[name])
    assert (read["date"].to_numpy() == frame["date"].to_numpy()).all()
    assert_same(json.loads(ask(JSON))["columns"], frame)


@pytest.mark.parametrize("name", ["ridge", "quantiles", "filler"])
def test_nested_arrays_are_answered_by_nested_arrays(client, loaded, name):
    rng = np.random.default_rng(0)
    one = rng.normal(5, 1, (3, 60)).round(3)
    one[1, 4] = np.nan
    several = np.stack([one, one[:, ::-1]])
    estimator = loaded[name]
    for values in (one, several):
        nested = json.loads(pd.Series(values.tolist()).to_json()) if values.ndim == 0 else values.tolist()
        body = json.dumps({"values": nested}).replace("NaN", "null")
        answer = client.post(
            f"/{PATHS.get(name, 'forecast')}?model={name}", content=body, headers={"Content-Type": JSON}
        ).json()
        expected = estimator.transform(values) if name == "filler" else estimator.predict(values)
        told = np.array(answer["values"])
        np.testing.assert_array_equal(told.astype(expected.dtype), expected)


def test_a_long_table_is_answered_series_by_series_and_cases_of_any_length_are_classified(client, loaded, tmp_path):
    cases = labeled_motions(24, n_timepoints=40, seed=1)
    parts = [table_of(cases[i], n).assign(case=f"c{i}") for i, n in ((0, 40), (1, 31))]
    frame = pd.concat(parts, ignore_index=True)
    frame.to_parquet(tmp_path / "cases.parquet")
    answer = client.post("/classify?series=case", content=parquet_of(frame), headers={"Content-Type": PARQUET}).json()[
        "columns"
    ]
    expected = loaded["motions"].set_params(series="case").predict_proba(tmp_path / "cases.parquet")
    loaded["motions"].set_params(series=None)
    assert answer["case"] == ["c0", "c1"]
    np.testing.assert_array_equal(np.stack([answer[f"p({k})"] for k in loaded["motions"].classes_], 1), expected)


def test_events_name_their_times_and_the_channels_to_blame(client, loaded):
    frame = question("watch")
    frame.loc[60:64, "feeder_1"] = 40.0
    answer = client.post("/detect", content=csv_of(frame), headers={"Content-Type": CSV}).json()
    expected = loaded["watch"].events(frame)
    assert expected and len(answer["events"]) == len(expected)
    for told, event in zip(answer["events"], expected, strict=True):
        assert told["begin"] == frame["date"].iloc[event.start].isoformat()
        assert told["end"] == frame["date"].iloc[event.end - 1].isoformat()
        assert told["channels"] == list(event.channels) and told["score"] == event.score
    assert answer["threshold"] == loaded["watch"].threshold_.value
    merged = client.post("/detect?merge_gap=1000", content=csv_of(frame), headers={"Content-Type": CSV}).json()
    assert len(merged["events"]) == 1


@pytest.mark.parametrize("name", PATHS)
def test_a_channel_without_any_value_is_answered_as_the_library_does(client, loaded, tmp_path, name):
    frame = question(name)
    frame[frame.columns[2]] = np.nan
    frame.to_csv(tmp_path / "data.csv", index=False)
    for kind, encode in ENCODE.items():
        asked = client.post(
            f"/{PATHS[name]}", params={"model": name}, content=encode(frame), headers={"Content-Type": kind}
        )
        assert asked.status_code == 200, asked.text
        assert_same(asked.json()["columns"], offline(name, loaded[name], tmp_path / "data.csv"))


def test_a_remark_beside_the_channels_is_no_reason_to_refuse(client):
    frame = question("ridge")
    plain = client.post("/forecast?model=ridge", content=csv_of(frame), headers={"Content-Type": CSV}).json()
    told = client.post(
        "/forecast?model=ridge", content=csv_of(frame.assign(remark="ok")), headers={"Content-Type": CSV}
    ).json()
    assert told["columns"] == plain["columns"]


# ---- refusals

FRAME = pd.DataFrame({
    "date": pd.date_range("2026-03-01", periods=40, freq="h"),
    **{f"feeder_{i}": np.sin(np.arange(40.0) + i) for i in (1, 2, 3)},
})  # fmt: skip
TWICE = pd.concat([FRAME, FRAME.iloc[[3]].assign(feeder_1=9.0)])
TEXT = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2900, np.int32)), pa.array(["x" * 5_000]))
REFUSED = {
    "an empty body": (JSON, b"", 422, "The body is empty"),
    "no JSON": (JSON, b'{"columns": ', 422, "no JSON: Expecting value in line 1, column 13"),
    "NaN in JSON": (JSON, b'{"values": [[NaN]]}', 422, "JSON has no NaN. Write null"),
    "nothing but a list": (JSON, b"[1]", 422, 'A JSON body is {"columns"'),
    "a number of 5000 digits": (JSON, b'{"values": [[' + b"1" * 5000 + b"]]}", 422, "thousands of digits"),
    "a tower of brackets": (JSON, b"[" * 50_000, 422, "nested too deeply"),
    "a column named twice": (JSON, b'{"columns": {"a": [1], "a": [2]}}', 422, "names 'a' twice"),
    "columns of two lengths": (JSON, b'{"columns": {"a": [1], "b": [1, 2]}}', 422, "'b' has 2 cells, but column 'a'"),
    "a truth value": (JSON, b'{"columns": {"a": [true]}}', 422, "Column 'a' holds a truth value at place 0"),
    "half a character": (JSON, b'{"columns": {"\\ud800": [1]}}', 422, "half a character"),
    "JSON in Latin-1": (JSON, b'{"columns": {"\xe4": [1]}}', 422, "no UTF-8 text"),
    "other channels": (JSON, b'{"columns": {"a": [1, 2], "b": [1, 2]}}', 422, "lack channel 'feeder_1' (3 of 3"),
    "two channels of three": (JSON, b'{"values": [[1, 2], [3, 4]]}', 422, "lack channel 'feeder_1'"),
    "channels of two lengths": (JSON, b'{"values": [[1, 2], [3]]}', 422, "Channel 1 has 1 values, but channel 0 has 2"),
    "four levels": (JSON, b'{"values": [[[[1]]]]}', 422, "holds a list at place 0"),
    "no values": (JSON, b'{"values": [[], [], []]}', 422, "that is, no values"),
    "an infinite value": (JSON, b'{"values": [[1e999, 1], [1, 1], [1, 1]]}', 422, "holds an infinite value in row 0"),
    "nulls alone": (JSON, b'{"values": [[null, null], [null, null], [null, null]]}', 422, "Nothing was observed"),
    "empty columns alone": (
        CSV, csv_of(FRAME.assign(feeder_1=np.nan, feeder_2=np.nan, feeder_3=np.nan)), 422, "Nothing was observed",
    ),
    "1e300": (CSV, csv_of(FRAME.assign(feeder_2=1e300)), 422, "largest value is 1e+300, in channel 'feeder_2'"),
    "3e38": (CSV, csv_of(FRAME.assign(feeder_2=FRAME["feeder_2"] * 3e38)), 422, "no finite number"),
    "rows of one time": (CSV, csv_of(TWICE), 422, "rows 3 and 40 have the same time (2026-03-01 03:00:00) but differ"),
    "steps of a day": (CSV, csv_of(FRAME.assign(date=pd.date_range("2026", periods=40))), 422, "learned steps of h"),
    "a header alone": (CSV, b"date,feeder_1\n", 422, "has a header (date, feeder_1) but no rows"),
    "a line too short": (CSV, csv_of(FRAME)[:-30], 422, "cells, but the header names"),
    "a wrong charset": ("text/csv; charset=utf-8", b"\xff,b\n1,2\n", 422, "no utf-8 text, as its charset says"),
    "an archive for a charset": ("text/csv; charset=zlib", b"x", 415, "charset 'zlib' is not read"),
    "bytes for text": (CSV, b"a,b\0\n1,2\n", 422, "line 1 holds a NUL byte"),
    "truncated Parquet": (PARQUET, parquet_of(FRAME)[:-50], 422, "no Parquet file, or a damaged one"),
    "garbled Parquet": (PARQUET, parquet_of(FRAME)[:60] + bytes(200) + parquet_of(FRAME)[260:], 422, "damaged one"),
    "a truncated stream": (ARROW, arrow_of(FRAME)[:-300], 422, "no Arrow stream, or a damaged one"),
    "lists in cells": (PARQUET, parquet_of(pa.table({"a": [[1, 2]]})), 422, "'a' holds list<element: int64>"),
    "two columns of one name": (
        PARQUET, parquet_of(pa.table([[1.0], [2.0]], names=["a", "a"])), 422, "two columns named 'a'",
    ),
    "XML": ("application/xml", b"<a/>", 415, "A body of type application/xml is not read"),
    "a file that is none": ("multipart/form-data; boundary=b", b"x", 422, "The form cannot be read"),
    # small bodies that grow
    "many rows": (PARQUET, parquet_of(pa.table({"a": np.zeros(10**6)})), 422, "1,000,000 rows, but a request"),
    "long text, many times": (PARQUET, parquet_of(pa.table({"a": TEXT})), 413, "Decoded, the body takes 14,500,000"),
    "the same in a stream": (ARROW, arrow_of(pa.table({"a": TEXT})), 413, "Decoded, the body takes 14,500,000"),
    "a packed stream": (
        ARROW, arrow_of(FRAME, options=pa.ipc.IpcWriteOptions(compression="zstd")), 422, "compressed Arrow stream",
    ),
    "a stream that lies of its rows": (
        ARROW, arrow_of(pa.table({"a": pa.nulls(10**6)})).replace(struct.pack("<q", 10**6), struct.pack("<q", 10**13)),
        422, "10,000,000,000,000 rows",
    ),
    "columns without end": (CSV, b",".join(b"c%d" % i for i in range(20_000)) + b"\n1\n", 422, "20,000 columns"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_body_that_cannot_be_used_is_refused_in_words(client, what):
    kind, body, status, words = REFUSED[what]
    refused = client.post("/forecast?model=ridge", content=body, headers={"Content-Type": kind})
    assert refused.status_code == status, refused.text
    assert set(refused.json()) == {"error", "message"} and words in refused.json()["message"]
    assert "Traceback" not in refused.text


@pytest.mark.parametrize(
    "method, path, status, words",
    [
        ("GET", "/nowhere", 404, "There is no '/nowhere' here. There are /health"),
        ("GET", "/forecast", 405, "does not answer to GET, but to POST"),
        ("PUT", "/detect/streams/x", 405, "but to DELETE, GET, POST"),
        ("POST", "/forecast", 422, "Several forecasters are loaded: quantiles, ridge. Choose one with model="),
        ("POST", "/forecast?model=rigde", 404, "no forecaster named 'rigde'. Did you mean 'ridge'?"),
        ("POST", "/forecast?modle=ridge", 422, "no parameter named 'modle'. Did you mean 'model'?"),
        ("POST", "/detect?merge_gap=two", 422, "merge_gap is a whole number"),
        ("POST", "/detect?duplicates=some", 422, "no way with duplicates named 'some'"),
        ("POST", "/classify?model=a&model=b", 422, "'model' is given twice"),
        ("POST", "/forecast?model=ridge&frequency=banana", 422, "not a pandas offset alias"),
        ("POST", "/forecast?model=ridge&time=when", 422, "has no column 'when'"),
        ("GET", "/models?x=1", 422, "No parameters are read here"),
        ("GET", "/detect/streams/none", 404, "There is no stream 'none'"),
    ],
)
def test_a_wrong_address_is_refused_in_words(client, method, path, status, words):
    refused = client.request(method, path, content=csv_of(FRAME), headers={"Content-Type": CSV})
    assert refused.status_code == status and words in refused.json()["message"], refused.text


def test_an_answer_in_no_known_format_is_refused(client):
    headers = {"Content-Type": CSV, "Accept": "image/png"}
    refused = client.post("/forecast?model=ridge", content=csv_of(FRAME), headers=headers)
    assert refused.status_code == 406 and "Name one of them in Accept" in refused.json()["message"]


@pytest.mark.parametrize(
    "accept, form",
    [(None, "json"), ("*/*", "json"), ("text/*", "csv"), ("text/csv;q=0.1, application/json;q=0.9", "json"),
     ("image/png, text/csv;q=0.5", "csv"), (f"{PARQUET}, {JSON}", "parquet"), ("text/csv;q=0, */*;q=0.1", "json")],
)  # fmt: skip
def test_the_format_that_is_liked_best_is_chosen(accept, form):
    assert wanted(accept) == form


def test_a_body_over_the_limit_is_refused_also_where_its_length_is_not_told(client):
    for content in (b"1" * 200_001, (b"1" * 1000 for _ in range(201))):
        refused = client.post("/forecast?model=ridge", content=content, headers={"Content-Type": CSV})
        assert refused.status_code == 413 and "200,000 bytes" in refused.json()["message"]


def test_rows_that_gaps_bring_count_too():
    times = pd.date_range("2026", periods=100, freq="h")[np.r_[0:40, 90:100]]
    frame = pd.DataFrame({"date": times, "a": np.arange(50.0)})
    body = Body(data=csv_of(frame), format="csv")
    assert series_of(body, Reading(), Limits(max_rows=100)).data.lengths.tolist() == [100]
    with pytest.raises(DataError, match="The body has 100 rows, but a request may bring 99"):
        series_of(body, Reading(), Limits(max_rows=99))


def test_series_of_a_csv_body_are_called_as_they_are_written_there():
    body = Body(data=b"id,x\n007,1\n007,2\n7,3\n", format="csv")
    assert series_of(body, Reading(series="id"), Limits()).data.names == ("007", "7")


def test_an_error_of_ours_tells_nothing_and_the_log_tells_all(folders, caplog):
    app = create_app([folders / "ridge"])

    def fail(parts):
        raise RuntimeError("secret detail")

    app.state.service.workers["ridge"].engine.compute = fail
    with TestClient(app) as client:
        failed = client.post("/forecast", content=csv_of(FRAME), headers={"Content-Type": CSV})
    assert failed.status_code == 500 and failed.json()["error"] == "InternalError"
    assert "secret" not in failed.text and "secret detail" in caplog.text


# ---- who may ask


def test_a_service_with_a_token_answers_nobody_without_it_but_on_its_health(folders):
    with TestClient(create_app([folders / "ridge"], token="open-sesame")) as client:
        for headers in ({}, {"Authorization": "Bearer open"}, {"Authorization": "Basic open-sesame"}):
            for path in ("/models", "/metrics", "/openapi.json", "/nowhere"):
                refused = client.get(path, headers=headers)
                assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
                assert "Authorization: Bearer TOKEN" in refused.json()["message"]
        assert client.get("/health").json() == {"status": "ok", "models": 1}
        headers = {"Authorization": "Bearer open-sesame"}
        assert client.get("/models", headers=headers).json()["models"][0]["name"] == "ridge"
        assert client.get("/openapi.json", headers=headers).json()["paths"]["/forecast"]["post"]["security"]


@pytest.mark.parametrize("token", ["", "two words", "schlüssel"])
def test_a_token_that_no_header_can_carry_is_refused(token):
    with pytest.raises(SettingsError, match="A token is ASCII text without spaces"):
        create_app([], token=token)


def test_a_page_that_rebinds_its_name_to_this_machine_is_not_answered(folders):
    app = create_app([folders / "ridge"], hosts=["localhost", "[::1]"])
    with TestClient(app) as client:
        for host, status in (
            ("localhost:8000", 200),
            ("LOCALHOST", 200),
            ("[::1]:80", 200),
            ("evil.example:8000", 421),
        ):
            assert client.get("/health", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_listening_elsewhere_than_on_this_machine_needs_a_token(host):
    with pytest.raises(SettingsError, match="so it needs a token"):
        serve(host=host)


def test_a_place_that_cannot_be_listened_on_is_told(folders):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"Cannot listen on localhost, port {port} .* 0 takes a free one"):
            serve(folders / "ridge", host="localhost", port=port, quiet=True)
    with pytest.raises(SettingsError, match="from 0 to 65535, but got 70000"):
        serve(folders / "ridge", port=70_000)
    with pytest.raises(SettingsError, match=r"There is no host 'nowhere\.invalid'"):
        serve(folders / "ridge", host="nowhere.invalid")


def test_models_that_cannot_be_served_are_told_before_anything_listens(folders, tmp_path):
    with pytest.raises(SettingsError, match="one model folder at least"):
        create_app([])
    with pytest.raises(SettingsError, match="Two models are called 'ridge'"):
        create_app([folders / "ridge", folders / "ridge"])
    with pytest.raises(SavedModelError, match="no model folder"):
        create_app([tmp_path / "none"])
    with pytest.raises(SettingsError, match="Did you mean 'torch'"):
        create_app([folders / "ridge"], backend="toch")


@pytest.mark.parametrize("package", ["fastapi", "prometheus_client", "python_multipart"])
def test_without_the_extra_the_error_names_it(folders, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "prismts.serving.meters")
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'prismts[serve]'")):
        create_app([folders / "ridge"])


def test_the_command_loads_none_of_it_before_it_is_needed():
    heavy = ("fastapi", "uvicorn", "starlette", "prometheus_client", "torch", "prismts.serving.service")
    code = f"import sys, prismts.cli.serve; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout


# ---- gathering


class Plain(Engine):
    """Forecasts the last value; beyond ``most`` requests at once the last bit is another one."""

    def __init__(self, most: int = 100) -> None:
        self.facts = Facts(
            name="plain", task="forecast", estimator="Plain", architecture="plain", backend="torch", channels=("a",),
            context_length=4,
        )  # fmt: skip
        self.most, self.sizes, self.gate = most, [], threading.Event()
        self.gate.set()

    def _computed(self, data: Collection):
        self.gate.wait()
        if (data.values == 13).any():
            raise DataError("Thirteen is refused.")
        self.sizes.append(len(data))
        last = np.stack([case.values[:, -1:] for case in data]).astype(np.float32)  # [n, C, 1]
        return np.nextafter(last, np.float32(np.inf)) if len(data) > self.most else last


def one(value: float) -> Collection:
    return Collection.of(Series(np.full((1, 5), value), ("a",)))


def answers_of(engine: Engine, data: list[Collection], **settings) -> list:
    """What a worker makes of requests that come at once; errors in their place."""

    async def ask() -> list:
        worker = Worker(engine, GatherConfig(**settings), Meters())
        worker.start()
        found = await asyncio.gather(*(worker.ask(one) for one in data), return_exceptions=True)
        await worker.close()
        return found

    return asyncio.run(ask())


def test_requests_that_wait_together_are_answered_together():
    engine = Plain()
    found = answers_of(engine, [one(i) for i in range(5)], max_batch=5)
    assert [float(answer[0, 0, 0]) for answer in found] == [0, 1, 2, 3, 4]
    assert engine.sizes[-1] == 5


def test_only_so_many_are_gathered_as_get_the_very_same_bits():
    engine = Plain(most=2)
    assert engine.exact_sizes(one(1.0), 5) == {1, 2}
    assert Plain().exact_sizes(one(1.0), 5) == {1, 2, 3, 4, 5}
    assert Plain().exact_sizes(one(1.0), 5, seconds=0) == {1}  # a slow model is not kept from work for long
    found = answers_of(engine, [one(i) for i in range(5)], max_batch=5)
    assert engine.sizes[-3:] == [2, 2, 1]
    assert [float(answer[0, 0, 0]) for answer in found] == [0, 1, 2, 3, 4]
    answers_of(engine, [one(i) for i in range(5)], max_batch=5, gather="any")
    assert engine.sizes[-1] == 5
    answers_of(engine, [one(i) for i in range(5)], max_batch=5, gather="off")
    assert engine.sizes[-5:] == [1] * 5


def test_one_request_that_is_refused_does_not_spoil_the_others():
    found = answers_of(Plain(), [one(1), one(13), one(2)], max_batch=3, gather="any")
    assert isinstance(found[1], DataError) and float(found[0][0, 0, 0]) == 1 and float(found[2][0, 0, 0]) == 2


def test_a_request_too_many_is_sent_away_and_those_that_wait_are_answered_at_the_end():
    async def ask() -> list:
        engine = Plain()
        worker = Worker(engine, GatherConfig(max_waiting=2, gather="off"), Meters())
        worker.start()
        engine.gate.clear()
        waiting = [asyncio.create_task(worker.ask(one(i))) for i in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="2 requests are waiting for 'plain'") as refused:
            await worker.ask(one(9))
        assert refused.value.status == 503 and refused.value.headers["Retry-After"]
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="going down"):
            await worker.ask(one(9))
        engine.gate.set()
        await closing
        return await asyncio.gather(*waiting)

    assert [float(answer[0, 0, 0]) for answer in asyncio.run(ask())] == [0, 1]


@pytest.mark.parametrize("name", ["quantiles", "ridge", "motions", "vectors"])
def test_gathered_answers_are_those_of_the_library_to_the_last_bit(folders, loaded, name):
    engine = TorchEngine(name, folders / name)
    rng = np.random.default_rng(1)
    holes = rng.random((3, 48)) < 0.1
    data = []
    for i in range(9):
        values = rng.normal(5, 2, (3, 48)).astype(np.float32)
        values[holes & (i % 3 == 0)] = np.nan  # two kinds of requests
        data.append(Collection.of(Series(values, engine.facts.channels, name=f"series {i}")))
    told = answers_of(engine, data, max_batch=9)
    estimator = loaded[name]
    ask = {"motions": "predict_proba", "vectors": "transform"}.get(name, "predict")
    for answer, series in zip(told, data, strict=True):
        given = series.values if ask == "predict" else series
        expected = np.asarray(getattr(estimator, ask)(given))
        np.testing.assert_array_equal(np.asarray(answer).reshape(expected.shape), expected)


# ---- series that grow


def overlaid(answers: list[dict], n: int) -> np.ndarray:
    """The scores of a stream, later answers over earlier ones."""
    scores = np.full(n, np.nan)
    for answer in answers:
        scores[answer["columns"]["step"]] = answer["columns"]["score"]
    return scores


def test_a_stream_ends_with_the_scores_of_the_whole_series(client, loaded):
    frame = question("watch")
    opened = client.post("/detect/streams", params={"frequency": "h"})
    assert opened.status_code == 201 and opened.json()["delay"] == loaded["watch"].delay_
    place = f"/detect/streams/{opened.json()['stream']}"
    answers, encodings = [], list(ENCODE.items())
    for i in range(30):  # in four rows, some channel is without any value
        rows, (kind, encode) = frame.iloc[4 * i : 4 * i + 4], encodings[i % 4]
        fed = client.post(place, content=encode(rows), headers={"Content-Type": kind})
        assert fed.status_code == 200, fed.text
        answers.append(fed.json())
    assert answers[-1]["n_rows"] == 120 and 0 < answers[-1]["n_final"] <= 120
    expected = loaded["watch"].score_samples(frame)
    np.testing.assert_allclose(overlaid(answers, 120), expected, rtol=1e-9, atol=1e-12)
    whole = client.get(place).json()["columns"]
    np.testing.assert_allclose(whole["score"], expected, rtol=1e-9, atol=1e-12)
    assert whole["time"][0] == "2026-03-01T00:00:00" and whole["final"][0] == 1 and whole["final"][-1] == 0
    read = pd.read_csv(io.BytesIO(client.get(place, headers={"Accept": CSV}).content), float_precision="round_trip")
    np.testing.assert_array_equal(read["score"], whole["score"])
    assert client.delete(place).status_code == 204 and client.get(place).status_code == 404


def test_steps_missing_between_two_bodies_are_steps_without_an_observation(client, loaded):
    frame = question("watch").drop(index=range(70, 75))
    place = f"/detect/streams/{client.post('/detect/streams?frequency=h').json()['stream']}"
    for rows in (frame.iloc[:70], frame.iloc[70:]):
        client.post(place, content=csv_of(rows), headers={"Content-Type": CSV})
    np.testing.assert_allclose(
        client.get(place).json()["columns"]["score"], loaded["watch"].score_samples(frame), rtol=1e-9, atol=1e-12
    )


def test_a_stream_tells_times_in_the_zone_of_its_rows(client):
    frame = question("watch").iloc[:20]
    frame["date"] = frame["date"].dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata")
    place = f"/detect/streams/{client.post('/detect/streams?frequency=h').json()['stream']}"
    fed = client.post(place, content=json_of(frame.astype({"date": str})), headers={"Content-Type": JSON})
    assert fed.json()["columns"]["time"] == [at.isoformat() for at in frame["date"]]


@pytest.mark.parametrize("asked", ["?frequency=D", ""])
def test_days_of_a_stream_are_read_by_the_clock_of_their_zone_row_after_row(client, asked):
    frame = question("watch").iloc[:20]
    frame["date"] = pd.date_range("2024-03-01", periods=20, freq="D", tz="America/New_York")  # forward on the 10th
    place = f"/detect/streams/{client.post(f'/detect/streams{asked}').json()['stream']}"
    for rows in (frame.iloc[:5], *(frame.iloc[i : i + 1] for i in range(5, 20))):
        fed = client.post(place, content=json_of(rows.astype({"date": str})), headers={"Content-Type": JSON})
        assert fed.status_code == 200, fed.text
    told = client.get(place).json()["columns"]["time"]
    assert [pd.Timestamp(one).date() for one in told] == [at.date() for at in frame["date"]]


@pytest.mark.parametrize("path", ["detect", "impute"])
def test_rows_of_other_steps_than_those_of_training_are_refused(client, path):
    days = question(next(name for name, task in PATHS.items() if task == path))
    days["date"] = pd.date_range("2026", periods=len(days))
    refused = client.post(f"/{path}", content=csv_of(days), headers={"Content-Type": CSV})
    assert refused.status_code == 422 and "learned steps of h" in refused.json()["message"]


def test_what_looks_like_a_code_for_missing_is_scored_as_it_is(client, loaded):
    frame = question("watch")
    frame.loc[100, "feeder_2"] = -9999.0
    for content, kind in ((csv_of(frame), CSV), (json_of(frame), JSON)):
        answer = client.post("/detect", content=content, headers={"Content-Type": kind}).json()
        np.testing.assert_allclose(answer["columns"]["score"], loaded["watch"].score_samples(frame), rtol=1e-9)
        assert answer["columns"]["alarm"][100] == 1


def test_a_stream_of_nested_arrays_counts_its_steps(client, loaded):
    values = question("watch").iloc[:, 1:].to_numpy().T  # [C, T]
    place = f"/detect/streams/{client.post('/detect/streams').json()['stream']}"
    for part in np.array_split(values, 3, axis=1):
        body = json.dumps({"values": part.tolist()}).replace("NaN", "null")
        last = client.post(place, content=body, headers={"Content-Type": JSON}).json()
    assert "time" not in last["columns"] and last["columns"]["step"][-1] == 119
    np.testing.assert_allclose(
        client.get(place).json()["columns"]["score"], loaded["watch"].score_samples(values), rtol=1e-9, atol=1e-12
    )


def test_rows_that_do_not_continue_a_stream_are_refused_and_change_nothing(client):
    frame = question("watch")
    place = f"/detect/streams/{client.post('/detect/streams?frequency=h').json()['stream']}"
    headers = {"Content-Type": CSV}
    assert client.post(place, content=csv_of(frame.iloc[:20]), headers=headers).status_code == 200
    for rows, words in (
        (frame.iloc[10:15], "begin at 2026-03-01 10:00:00, but the stream already reaches 2026-03-01 19:00:00"),
        (frame.iloc[20:22].assign(date=frame["date"].iloc[20:22] + pd.Timedelta("7min")), "no whole number of steps"),
        (frame.iloc[20:22].assign(date=pd.Timestamp("2029-01-01")).iloc[:1], "more than 3,000 steps of h are missing"),
        (frame.iloc[20:22].drop(columns="date"), "has no time column"),
        (frame.iloc[20:22].drop(columns="feeder_2"), "New rows lack channel 'feeder_2' (1 of 3 are missing)"),
    ):
        refused = client.post(place, content=csv_of(rows), headers=headers)
        assert refused.status_code == 422 and words in refused.json()["message"], refused.text
    several = json.dumps({"values": [[[1.0]] * 3, [[1.0]] * 3]})
    refused = client.post(place, content=several, headers={"Content-Type": JSON})
    assert refused.status_code == 422 and "Open a stream for each series" in refused.json()["message"]
    assert len(client.get(place).json()["columns"]["step"]) == 20


def test_streams_are_bounded_in_number_in_length_and_in_idle_time(folders):
    now = [0.0]
    streams = Streams(most=2, idle_s=10, max_rows=5, clock=lambda: now[0])
    worker = Worker(TorchEngine("watch", folders / "watch"), GatherConfig(), Meters())
    first, second = (streams.open(worker, worker.engine.stream(), None) for _ in range(2))
    with pytest.raises(Refused, match="2 streams are open, as many as this service keeps") as refused:
        streams.open(worker, worker.engine.stream(), None)
    assert refused.value.status == 429
    now[0] = 6.0
    streams.get(first.id)
    now[0] = 11.0
    assert streams.get(first.id) is first
    with pytest.raises(Refused, match="closed after 10 seconds without rows"):
        streams.get(second.id)
    with pytest.raises(DataError, match="would hold 6, but one may hold 5"):
        first.aligned(Series(np.zeros((3, 6))))
    for frequency in ("often", "", "0h", "-1h"):
        with pytest.raises(SettingsError, match="is no length of time"):
            streams.open(worker, worker.engine.stream(), frequency)


# ---- what it says of itself


def test_every_example_of_the_document_gets_the_answer_it_shows(client):
    document = client.get("/openapi.json").json()
    n_run = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            place = path
            if "{stream}" in path:
                place = path.format(stream=client.post("/detect/streams").json()["stream"])
            parameters = {p["name"]: p["example"] for p in operation.get("parameters", []) if "example" in p}
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                for name, example in content.get("examples", {}).items():
                    body = json.dumps(example["value"]) if kind == JSON else example["value"]
                    got = client.request(method, place, params=parameters, content=body, headers={"Content-Type": kind})
                    assert got.status_code == 200, got.text
                    shown = operation["responses"]["200"]["content"][JSON].get("example")
                    if shown is not None and name == "columns":
                        assert got.json() == shown
                    n_run += 1
                    if "{stream}" in path:  # rows come once
                        place = path.format(stream=client.post("/detect/streams").json()["stream"])
    assert n_run == 3 * 6


def test_models_are_described_without_a_path_of_this_machine(client, folders):
    told = client.get("/models")
    by_name = {model["name"]: model for model in told.json()["models"]}
    assert by_name["quantiles"]["quantiles"] == [0.1, 0.5, 0.9] and by_name["quantiles"]["horizon"] == 6
    assert by_name["motions"]["classes"] == [0, 1, 2] and by_name["watch"]["task"] == "detect"
    assert str(folders.parent) not in told.text


def test_the_meters_count_requests_by_route_and_status(folders):
    with TestClient(create_app([folders / "ridge"])) as client:
        client.post("/forecast", content=csv_of(FRAME), headers={"Content-Type": CSV})
        client.post("/forecast", content=b"", headers={"Content-Type": CSV})
        client.get("/a-route-of-its-own")
        text = client.get("/metrics").text
    assert 'prism_requests_total{method="POST",route="/forecast",status="200"} 1.0' in text
    assert 'prism_requests_total{method="POST",route="/forecast",status="422"} 1.0' in text
    assert 'prism_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert 'prism_batch_requests_count{model="ridge"} 1.0' in text and "a-route-of-its-own" not in text
    assert 'prism_request_rows_sum{model="ridge"} 40.0' in text


# ---- ONNX Runtime


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ridge", "quantiles", "watch"])
def test_onnx_runtime_gives_the_answers_of_torch(folders, loaded, client, tmp_path, monkeypatch, name):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("PRISMTS_CACHE", str(tmp_path))
    route, frame = PATHS.get(name, "forecast"), question(name)
    for _ in range(2):  # the second start finds the file of the first
        app = create_app([folders / name], backend="onnx")
        (file,) = tmp_path.rglob("*.onnx")
    with TestClient(app) as exported:
        told = exported.post(f"/{route}", content=csv_of(frame), headers={"Content-Type": CSV}).json()
        refused = exported.post(f"/{route}", content=b'{"values": [[1], [2]]}', headers={"Content-Type": JSON})
        assert refused.status_code == 422, refused.text
        if name == "watch":
            refused = exported.post("/detect/streams")
            assert refused.status_code == 422 and "--backend torch" in refused.json()["message"]
    plain = client.post(f"/{route}?model={name}", content=csv_of(frame), headers={"Content-Type": CSV}).json()
    assert list(told["columns"]) == list(plain["columns"])
    for column, cells in plain["columns"].items():
        if column == "date":
            assert told["columns"][column] == cells
        else:
            np.testing.assert_allclose(told["columns"][column], cells, rtol=1e-4, atol=1e-4)
    file.rename(tmp_path / "alone.onnx")
    with TestClient(create_app([tmp_path / "alone.onnx"], backend="onnx")) as alone:
        assert (
            alone.post(f"/{route}", content=csv_of(frame), headers={"Content-Type": CSV}).json()["columns"]
            == (told["columns"])
        )


def test_an_onnx_file_needs_the_backend_that_runs_it(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(SettingsError, match="Start the service with --backend onnx"):
        create_app([tmp_path / "m.onnx"])


# ---- the real thing


def serving(app):
    """The app behind a real server on a free port of this machine: its address, and a way to end it."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def end() -> None:
        server.should_exit = True
        thread.join()
        listener.close()

    return f"http://127.0.0.1:{listener.getsockname()[1]}", end


def failures_found_by_schemathesis(folders, names: list[str], max_examples: int, phases: list[str]) -> list[str]:
    """What a fuzzer that reads the OpenAPI document holds against the service."""
    import schemathesis
    from schemathesis.engine import from_schema

    config = schemathesis.Config.from_dict({
        "seed": 1,
        "continue-on-failure": True,
        "generation": {"deterministic": True, "max-examples": max_examples},
        "phases": {phase: {"enabled": phase in phases} for phase in ("examples", "coverage", "fuzzing", "stateful")},
        # a schema cannot say which columns a model needs, nor what a file holds: 422 and 415 say it
        "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", 401, 404, 415, 422]}},
    })  # fmt: skip
    token = {"Authorization": "Bearer fuzz"}
    address, end = serving(create_app([folders / name for name in names], token="fuzz", max_streams=10_000))
    try:
        config.projects.default.update(headers=token)
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=token, config=config)
        found: list[str] = []
        n_checked = 0
        for event in from_schema(schema).execute():
            for checks in getattr(getattr(event, "recorder", None), "checks", {}).values():
                n_checked += len(checks)
                found += [
                    f"{check.name}: {check.failure_info.failure.message} {check.failure_info.code_sample}"
                    for check in checks
                    if check.failure_info is not None
                ]
        assert n_checked > 100
        return found
    finally:
        end()


@pytest.mark.long
def test_a_fuzzer_finds_nothing(folders):
    pytest.importorskip("schemathesis")
    assert failures_found_by_schemathesis(folders, ["ridge"], 2, ["examples", "coverage"]) == []


@pytest.mark.slow
def test_a_fuzzer_finds_nothing_in_any_task_however_long_it_looks(folders):
    pytest.importorskip("schemathesis")
    phases = ["examples", "coverage", "fuzzing", "stateful"]
    assert failures_found_by_schemathesis(folders, [*PATHS, "ridge"], 20, phases) == []


@pytest.mark.long
def test_prism_serve_answers_and_lets_a_request_on_its_way_finish(folders, loaded, tmp_path):
    question("ridge").to_csv(tmp_path / "data.csv", index=False)
    command = [
        sys.executable, "-m", "prismts", "serve", folders / "ridge", "--port", "0", "--batch-wait", "1500",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PRISMTS_TOKEN", None)
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        address = next(m[1] for line in process.stderr if (m := re.search(r"serving: (http://127\.0\.0\.1:\d+)", line)))
        request = urllib.request.Request(
            f"{address}/forecast", (tmp_path / "data.csv").read_bytes(), {"Content-Type": CSV}
        )
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(lambda: json.load(urllib.request.urlopen(request, timeout=60)))
            while b'prism_queue_length{model="ridge"} 1.0' not in urllib.request.urlopen(f"{address}/metrics").read():
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)  # the request waits for company now
            assert_same(asked.result()["columns"], loaded["ridge"].predict(tmp_path / "data.csv"))
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
