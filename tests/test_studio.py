"""The local page: jobs beside the server, who is let in, what is refused, and the whole way in a real browser."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from importlib import resources

import numpy as np
import pandas as pd
import pytest

import prismts
from prismts.data.synthetic import simulated_plant
from prismts.errors import SettingsError
from prismts.serving.jobs import Job, Lane

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from fastapi.testclient import TestClient

from prismts.serving.studio import STATIC, Session, create_app

WORK = """
import os, time
from prismts.errors import DataError

def work(request, tell):
    what = request["what"]
    tell({"stage": what})
    if what == "sleep":
        time.sleep(60)
    if what == "refuse":
        raise DataError("The table\\n has no rows.")
    if what == "break":
        raise ZeroDivisionError("by zero")
    if what == "die":
        os._exit(1)
    return {"what": what, "process": os.getpid()}
"""


# ---- jobs


@pytest.fixture(scope="module")
def lane(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    (folder / "work_for_lanes.py").write_text(WORK)
    sys.path.insert(0, str(folder))  # a process that is spawned inherits it
    with Lane("work_for_lanes:work") as lane:
        yield lane
    sys.path.remove(str(folder))


def until(true, seconds=30.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "this never happened"
        time.sleep(0.02)


def test_jobs_are_done_one_after_the_other_by_one_process(lane):
    jobs = [lane.submit("try", name, {"what": name}) for name in ("a", "b", "c")]
    assert jobs[-1].finished.wait(30)
    assert [job.state for job in jobs] == ["done"] * 3
    assert [job.result["what"] for job in jobs] == ["a", "b", "c"]
    assert len({job.result["process"] for job in jobs}) == 1
    assert jobs[0].ended <= jobs[1].began <= jobs[1].ended <= jobs[2].began
    assert jobs[0].told()["progress"] == {"stage": "a"}


def test_whoever_sees_a_job_done_sees_its_result():
    class Watched(Job):
        def __setattr__(self, name, value):
            if (name, value) == ("state", "done"):
                assert self.result == {"name": "sales"} and self.ended is not None
            super().__setattr__(name, value)

    job = Watched("read", "sales", {})
    job._end("done", result={"name": "sales"})
    assert job.state == "done" and job.finished.is_set()


def test_a_stop_ends_what_runs_and_what_waits_and_the_next_job_is_done(lane):
    running, waiting, after = (lane.submit("try", name, {"what": name}) for name in ("sleep", "sleep", "a"))
    until(lambda: running.progress)
    lane.stop(waiting)
    assert waiting.state == "stopped" and waiting.began is None
    lane.stop(running)
    assert running.finished.wait(10) and running.state == "stopped"
    assert after.finished.wait(30) and after.state == "done"
    lane.stop(after)
    assert after.state == "done"


def test_a_failure_is_told_in_the_words_of_the_library_and_the_lane_goes_on(lane):
    refused, broken, died, late = (lane.submit("try", name, {"what": name}) for name in ("refuse", "break", "die", "a"))
    assert late.finished.wait(30) and late.state == "done"
    assert [job.state for job in (refused, broken, died)] == ["failed"] * 3
    assert refused.error == "The table has no rows."
    assert "should not have (ZeroDivisionError: by zero)" in broken.error
    assert "memory of this machine" in died.error


def test_a_job_that_takes_too_long_is_ended(lane):
    job = lane.submit("try", "sleep", {"what": "sleep"}, seconds_at_most=0.2)
    assert job.finished.wait(30) and job.state == "failed"
    assert job.error == "This took longer than 0.2 seconds and was ended."


def test_a_queue_that_is_full_says_so(lane):
    jobs = [lane.submit("try", "sleep", {"what": "sleep"})]
    with pytest.raises(SettingsError, match="20 jobs are waiting already"):
        for _ in range(25):
            jobs.append(lane.submit("try", "a", {"what": "a"}))
    for job in reversed(jobs):
        lane.stop(job)
    assert all(job.finished.wait(10) for job in jobs)


# ---- the server


@pytest.fixture(scope="module")
def session():
    return Session()


@pytest.fixture(scope="module")
def client(session):
    with TestClient(create_app(session, port=8080), base_url="http://127.0.0.1:8080") as client:
        client.base_url = f"http://127.0.0.1:8080/{session.token}/"
        yield client


@pytest.fixture(scope="module")
def table():
    series = simulated_plant(500, seed=3)
    frame = pd.DataFrame(series.values.T[:, :2], columns=["load", "=cmd|' /C calc'!A0"])
    frame.insert(0, "date", series.timestamps)
    frame.iloc[100:120, 1] = np.nan
    return frame.to_csv(index=False).encode()


def finished(client, number=None):
    """The data, or the job of this number, once it has ended."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        state = client.get("api/state").json()
        found = state["data"] if number is None else next(job for job in state["jobs"] if job["number"] == number)
        if found["state"] not in ("waiting", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError("the job never ended")


def uploaded(client, content, name="sales.csv"):
    answer = client.post("api/upload", params={"name": name}, content=content)
    assert answer.status_code == 200, answer.text
    return finished(client)


def trained(client, **wish):
    answer = client.post("api/train", json=wish)
    assert answer.status_code == 200, answer.text
    return finished(client, answer.json()["number"])


def test_only_who_has_the_token_sees_anything(client, session):
    outside = TestClient(client.app, base_url="http://127.0.0.1:8080")
    for path in ("/", "/api/state", f"/{'x' * len(session.token)}/", "/static/app.js", "/docs", "/openapi.json"):
        answer = outside.get(path)
        assert answer.status_code == 404 and session.token not in answer.text and "it ends in a token" in answer.text
    assert outside.get(f"/{session.token}", follow_redirects=False).headers["location"] == f"/{session.token}/"
    assert outside.get(f"/{session.token}/openapi.json").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:9", "localhost.evil.example:8080", "127.0.0.1", ""])
def test_a_request_that_names_another_host_is_refused(client, host):
    answer = client.get("api/state", headers={"host": host})
    assert answer.status_code == 403 and "127.0.0.1 and localhost alone" in answer.text


@pytest.mark.parametrize(
    ("header", "value"),
    [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site"),
     ("sec-fetch-site", "same-site")],
)  # fmt: skip
def test_another_page_may_ask_for_nothing_that_changes_something(client, header, value):
    answer = client.post("api/data", json={"simulated": "simulated_plant"}, headers={header: value})
    assert answer.status_code == 403 and "Another page" in answer.text


def test_the_page_of_the_studio_itself_may_ask(client):
    answer = client.post(
        "api/train", json={}, headers={"origin": "http://localhost:8080", "sec-fetch-site": "same-origin"}
    )
    assert answer.status_code == 400 and "no task named None" in answer.json()["error"]


def test_every_answer_forbids_scripts_from_elsewhere_and_to_be_kept(client):
    for path in ("", "api/state", "static/app.js", "api/jobs/999/sections", "nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
        assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"


def test_the_static_files_ship_with_the_package_and_nothing_else_is_served(client):
    folder = resources.files("prismts.serving").joinpath("static")
    assert sorted(file.name for file in folder.iterdir()) == sorted(STATIC)
    for name in STATIC:
        assert client.get(f"static/{name}").content == folder.joinpath(name).read_bytes()
    for path in ("static/../studio.py", "static/%2e%2e/studio.py", "static/nothing.js"):
        assert client.get(path).status_code == 404
    bundle = client.get("plotly.js")
    assert bundle.status_code == 200 and b"plotly.js" in bundle.content[:200]


def test_the_page_has_no_inline_script_or_style_and_never_writes_markup():
    folder = resources.files("prismts.serving").joinpath("static")
    page = folder.joinpath("index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:|https?://", page)
    for name in STATIC:
        text = folder.joinpath(name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
    labels = set(re.findall(r'<label[^>]*\bfor="(\w+)"', page))
    controls = re.findall(r"<(?:input|select)\b[^>]*>", page)
    loose = [one for one in controls if (found := re.search(r'id="(\w+)"', one)) and found.group(1) not in labels]
    inside = re.findall(r"<label\b.*?</label>", page, re.S)
    assert all(any(one in label for label in inside) for one in loose)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"task": "forcast"}, "There is no task named 'forcast'. Did you mean 'forecast'?"),
        ({"task": "forecast", "horzon": 3}, "Did you mean 'horizon'?"),
        ({"task": "forecast", "model": 3}, "model is a name, but got '3'"),
        ({"task": "forecast", "model": "ridge", "horizon": 0}, "Horizon lies from 1 to 10,000, but got 0."),
        ({"task": "forecast", "model": "ridge", "horizon": 1.5}, "Horizon is a whole number, but got '1.5'."),
        ({"task": "forecast", "model": "ridge", "horizon": True}, "Horizon is a whole number"),
        ({"task": "forecast", "model": "ridge", "seed": "x" * 500}, "Seed is a whole number"),
        ({"task": "forecast", "model": "ridge", "epochs": 10**6}, "Epochs lies from 1 to 1,000"),
        ({"task": "forecast", "model": "ridge", "validation": 0.5, "test": 0.5}, "too little to learn from"),
    ],
    ids=str,
)
def test_a_wish_that_cannot_be_is_refused_in_words(client, wish, words):
    answer = client.post("api/train", json=wish)
    assert answer.status_code == 400 and words in answer.json()["error"]


def test_a_request_that_is_no_json_object_is_refused_in_words(client):
    send = {"content-type": "application/json"}
    assert "no JSON" in client.post("api/train", content=b"{", headers=send).json()["error"]
    assert "no JSON object" in client.post("api/train", content=b"[1]", headers=send).json()["error"]
    assert "no JSON" in client.post("api/train", content=b"[" * 60_000, headers=send).json()["error"]
    assert "at most 65,536 bytes" in client.post("api/train", content=b" " * 70_000, headers=send).json()["error"]
    assert "Requests are JSON" in client.post("api/train", content=b"task=forecast").json()["error"]
    assert client.post("api/data", json={"file": "/etc/passwd"}).status_code == 400
    assert client.post("api/data", json={"dataset": "../ETTh1"}).status_code == 400
    assert "no job 999" in client.post("api/jobs/999/stop", json={}).json()["error"]


def test_what_was_read_comes_with_its_findings_and_a_proposal_that_fits(client, table):
    data = uploaded(client, table)
    assert data["state"] == "done" and data["proposal"]["task"] == "forecast" and data["proposal"]["missing"]
    assert data["proposal"]["horizon"] == 24 and 72 <= data["proposal"]["context_length"] <= 120
    assert [column["kind"] for column in data["progress"]["columns"]] == ["time", "number", "number"]
    sections = client.get(f"api/jobs/{data['number']}/sections").json()
    by_title = {section["title"]: section["blocks"] for section in sections}
    assert list(by_title) == ["", "Findings", "What the data are like", "Channels"]
    assert ["time steps", "500"] in by_title[""][0]["items"]
    assert "20 values of 500 missing" in by_title["Findings"][0]["text"]
    assert by_title["Channels"][0]["rows"][1][0] == "=cmd|' /C calc'!A0"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"time,x\n1,\0\n", "NUL byte"),
        ("a.csv", b"time,x\n1,2\n1,2,3\n", "line 3 has 3 cells"),
        ("a.csv", b"time,x\n2024-01-01,=1+1\n2024-01-02,=2+2\n", "=1+1"),
        ("a.npz", b"PK\x03\x04" + bytes(60), "no .npz file"),
        ("a.ts", b"1,2,3\n", "has no line @data"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_the_words_of_the_library(client, name, content, words):
    data = uploaded(client, content, name)
    assert data["state"] == "failed" and words in data["error"]
    answer = client.post("api/train", json={"task": "forecast", "model": "ridge"})
    assert answer.status_code == 400 and "The data were not read" in answer.json()["error"]


def test_an_upload_of_another_kind_is_refused_at_once_and_nothing_is_kept(client, session):
    answer = client.post("api/upload", params={"name": "../../virus.exe"}, content=b"MZ")
    assert answer.status_code == 400 and "virus.exe: the ending tells no format" in answer.json()["error"]
    assert not list(session.folder.rglob("*virus*"))
    assert "without a name" in client.post("api/upload", content=b"x").json()["error"]


def test_the_columns_of_a_long_table_are_chosen_after_it_was_read(client):
    shops = pd.DataFrame({"shop": ["a", "b"] * 60, "day": np.repeat(pd.date_range("2024-01-01", periods=60), 2),
                          "sold": np.arange(120.0) % 7, "kind": ["big", "small"] * 60})  # fmt: skip
    data = uploaded(client, shops.to_csv(index=False).encode(), "shops.csv")
    assert data["state"] == "failed" and [column["name"] for column in data["progress"]["columns"]] == list(shops)
    wrong = client.post("api/columns", json={"label": "kind"})
    assert wrong.status_code == 400 and "choose 'series' too" in wrong.json()["error"]
    assert client.post("api/columns", json={"series": "shop", "label": "kind"}).status_code == 200
    data = finished(client)
    assert data["state"] == "done" and data["proposal"]["n_series"] == 2 and data["proposal"]["task"] == "classify"


@pytest.mark.long
def test_a_forecaster_is_trained_told_and_taken_along(client, session, table, tmp_path):
    uploaded(client, table)
    job = trained(client, task="forecast", model="ridge", horizon=12, context_length=48)
    assert job["state"] == "done", job["error"]
    assert job["result"]["files"] == ["forecast.csv", "model.zip", "report.html"]
    sections = client.get(f"api/jobs/{job['number']}/sections").json()
    titles = [section["title"] for section in sections]
    assert {"Forecast", "Test windows", "Errors", "Scores"} <= set(titles)
    drawing = sections[titles.index("Forecast")]["blocks"][0]
    assert drawing["kind"] == "drawing" and any("0.1 to 0.9" in trace["name"] for trace in drawing["data"])
    answer = client.get(f"api/jobs/{job['number']}/files/forecast.csv")
    assert answer.headers["content-disposition"].startswith("attachment")
    frame = pd.read_csv(io.BytesIO(answer.content))
    assert len(frame) == 12 and not any(name.startswith("=") for name in frame.columns)
    folder = zipfile.ZipFile(io.BytesIO(client.get(f"api/jobs/{job['number']}/files/model.zip").content))
    folder.extractall(tmp_path)
    assert len(prismts.load(tmp_path / "model").predict()) == 12
    report = client.get(f"api/jobs/{job['number']}/files/report.html").text
    assert "src=" not in re.sub(r"<script.*?</script>", "", report, flags=re.S)
    for name in ("../../etc/passwd", "sections.json", "model"):
        assert client.get(f"api/jobs/{job['number']}/files/{name}").status_code in (400, 404)


@pytest.mark.slow
def test_two_forecasters_are_compared_on_the_same_windows(client, table):
    uploaded(client, table)
    one, other, longer = (
        trained(client, task="forecast", model=model, horizon=horizon, context_length=48, intervals=False)["number"]
        for model, horizon in (("ridge", 12), ("last_value", 12), ("last_value", 24))
    )
    assert "two different models" in client.post("api/compare", json={"a": one, "b": one}).json()["error"]
    job = finished(client, client.post("api/compare", json={"a": one, "b": other}).json()["number"])
    assert job["state"] == "done", job["error"]
    sections = client.get(f"api/jobs/{job['number']}/sections").json()
    table_of_scores = sections[-1]["blocks"][0]
    windows = table_of_scores["columns"].index("windows")
    assert [row[windows] for row in table_of_scores["rows"]] == ["89", "89"]
    failed = finished(client, client.post("api/compare", json={"a": one, "b": longer}).json()["number"])
    assert failed["state"] == "failed" and "forecasts 12 steps" in failed["error"] and "24" in failed["error"]


@pytest.mark.slow
def test_a_training_that_is_stopped_ends_and_the_server_answers_meanwhile(client, table):
    uploaded(client, table)
    wish = {"task": "forecast", "model": "convtimenet", "horizon": 12, "context_length": 48, "epochs": 1000}
    number = client.post("api/train", json=wish).json()["number"]
    until(lambda: _job(client, number)["progress"].get("history"), 120)
    before = _job(client, number)
    assert before["state"] == "running" and before["progress"]["n_epochs"] == 1000
    assert {"epoch", "train_loss", "val_loss", "seconds"} <= set(before["progress"]["history"][0])
    assert client.post(f"api/jobs/{number}/stop", json={}).json()["state"] == "stopped"
    answer = client.get(f"api/jobs/{number}/sections")
    assert answer.status_code == 400 and "stopped" in answer.json()["error"]


def _job(client, number):
    return next(job for job in client.get("api/state").json()["jobs"] if job["number"] == number)


@pytest.mark.slow
def test_a_model_that_does_not_exist_or_does_not_suit_fails_in_the_words_of_the_library(client, table):
    uploaded(client, table)
    job = trained(client, task="forecast", model="convtimnet", horizon=12, context_length=48)
    assert job["state"] == "failed" and "Did you mean 'convtimenet'?" in job["error"]
    job = trained(client, task="classify", model="convtimenet")
    assert job["state"] == "failed" and "every case needs a class" in job["error"]


def test_nothing_is_left_when_the_session_ends(tmp_path, table):
    session = Session()
    with TestClient(create_app(session, port=80), base_url="http://127.0.0.1") as client:
        client.base_url = f"http://127.0.0.1/{session.token}/"
        client.post("api/upload", params={"name": "sales.csv"}, content=table)
        assert [file.name for file in session.folder.rglob("*.csv")] == ["sales.csv"]
        assert session.folder.stat().st_mode & 0o077 == 0
    assert not session.folder.exists()
    with pytest.raises(SettingsError, match="session is ending"):
        session.read({"simulated": "simulated_plant"}, "again")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "wish", "file", "shown"),
    [
        ("planted_anomalies", {"task": "detect", "model": "convtimenet"}, "anomalies.csv", "Against the labels"),
        ("planted_anomalies", {"task": "detect", "model": "kmeans"}, "anomalies.csv", "What was found"),
        ("labeled_motions", {"task": "classify", "model": "convtimenet", "epochs": 1}, "classes.csv", "Probabilities"),
        ("labeled_motions", {"task": "embed", "model": "convtimenet", "epochs": 1}, "vectors.csv", "Map"),
        ("simulated_plant", {"task": "embed", "model": "convtimenet", "epochs": 1}, "vectors.csv", "Map"),
    ],
)
def test_every_task_is_trained_shown_and_taken_along(client, source, wish, file, shown):
    client.get("api/about")
    client.post("api/data", json={"simulated": source})
    assert finished(client)["state"] == "done"
    job = trained(client, **wish)
    assert job["state"] == "done", job["error"]
    assert file in job["result"]["files"]
    titles = [section["title"] for section in client.get(f"api/jobs/{job['number']}/sections").json()]
    assert shown in titles
    assert len(pd.read_csv(io.BytesIO(client.get(f"api/jobs/{job['number']}/files/{file}").content))) > 1


@pytest.mark.slow
def test_gaps_are_filled_and_what_was_observed_comes_back_as_it_was(client, table):
    uploaded(client, table)
    job = trained(client, task="impute", model="convtimenet", context_length=48, epochs=1)
    assert job["state"] == "done", job["error"]
    filled = pd.read_csv(io.BytesIO(client.get(f"api/jobs/{job['number']}/files/filled.csv").content))
    before = pd.read_csv(io.BytesIO(table))
    assert not filled["load"].isna().any()
    seen = before["load"].notna()
    np.testing.assert_allclose(filled["load"][seen], before["load"][seen], rtol=1e-5)


@pytest.mark.slow
def test_answers_bear_the_names_of_the_table(client):
    series = simulated_plant(300, seed=3)
    frame = pd.DataFrame(series.values.T[:, :3], columns=["series", "step", "time_"])
    frame.insert(0, "score", series.timestamps)
    frame.iloc[100:110, 1] = np.nan
    uploaded(client, frame.to_csv(index=False).encode())
    for wish, file, names in (
        ({"task": "impute", "model": "convtimenet", "context_length": 48, "epochs": 1}, "filled.csv", list(frame)),
        ({"task": "detect", "model": "kmeans"}, "anomalies.csv", ["score", "score_", "threshold", "alarm"]),
    ):
        job = trained(client, **wish)
        assert job["state"] == "done", job["error"]
        answer = pd.read_csv(io.BytesIO(client.get(f"api/jobs/{job['number']}/files/{file}").content))
        assert list(answer) == names and len(answer) == 300


# ---- a real browser


def chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("no Chromium was found on this machine")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def studio(tmp_path):
    """The command, running: its process and the address of its page."""
    command = [sys.executable, "-m", "prismts", "studio", "--no-browser"]
    place = tmp_path / "temporary"  # one test ends the command so that it cannot remove its folder
    place.mkdir()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(place)})
    try:
        line = process.stderr.readline()
        yield process, re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", line).group()
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


@pytest.fixture
def page(browser, studio):
    """The page, ready; whatever it complains about in the console is collected."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(120_000)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: page.complaints.append(request.url) if not request.url.startswith(
        ("http://127.0.0.1:", "data:", "blob:")) else None)  # fmt: skip
    page.goto(studio[1])
    page.wait_for_selector("#tasks input", state="attached")
    yield page
    page.close()


def hostile(folder):
    series = simulated_plant(400, seed=3)
    name = "<img src=x onerror=alert(1)>"
    frame = pd.DataFrame(series.values.T[:, :2], columns=["load", name])
    frame.insert(0, "date", series.timestamps)
    frame.iloc[50:60, 1] = np.nan
    frame.to_csv(folder / "sales.csv", index=False)
    return folder / "sales.csv", name


def drop(page, path):
    page.set_input_files("#file", str(path))


def holds(page, expression):
    """Wait until it is true; the page's policy forbids playwright's own way, which evaluates a text over there."""
    until(lambda: page.evaluate(expression), 120)


def problem(page, place="#problem"):
    page.wait_for_selector(f"{place} .note")
    return page.inner_text(f"{place} .note")


@pytest.mark.slow
def test_in_a_browser_a_table_is_dropped_looked_at_trained_on_and_forecast(page, tmp_path):
    path, name = hostile(tmp_path)
    drop(page, path)
    page.wait_for_selector("#look-body .note.flag")
    assert "10 values of 400 missing" in page.inner_text("#look-body")
    page.wait_for_selector("#look-body .drawing[data-drawn] .main-svg")
    assert name in page.text_content("#look-body")  # as text, not as an element
    assert page.locator("#look-body img").count() == 0
    page.fill("[name=horizon]", "12")
    page.fill("[name=context_length]", "48")
    page.fill("[name=epochs]", "1")
    page.click("#train-button")
    page.wait_for_selector(".pill.done")
    page.wait_for_selector("#result-body .downloads a")
    page.locator("#result-body .drawing").first.scroll_into_view_if_needed()
    page.wait_for_selector("#result-body .drawing[data-drawn] .main-svg")
    assert "0.1 to 0.9" in page.text_content("#result-body .drawing .legend")
    axis = "document.querySelector('#result-body .drawing')._fullLayout.xaxis.range.map(String).join()"
    before = page.evaluate(axis)
    page.locator("#result-body figure").first.get_by_label("Zoom in").click()
    holds(page, f"{axis} !== {before!r}")
    with page.expect_download() as download:
        page.click("text=Forecast (CSV)")
    assert len(pd.read_csv(download.value.path())) == 12
    assert page.complaints == []


@pytest.mark.slow
def test_in_a_browser_a_running_job_is_stopped(page, tmp_path):
    drop(page, hostile(tmp_path)[0])
    page.wait_for_selector("#train-button:enabled")
    page.fill("[name=epochs]", "1000")
    page.click("#train-button")
    page.wait_for_selector(".pill.running")
    holds(page, "document.querySelector('.job p').textContent.includes('epoch')")
    assert page.locator(".job progress").get_attribute("value") is not None
    page.get_by_role("button", name=re.compile("^Stop")).click()
    page.wait_for_selector(".pill.stopped")
    assert "goes on after the last finished epoch" in page.inner_text(".job")
    assert page.is_enabled("#train-button") and page.complaints == []


@pytest.mark.slow
def test_in_a_browser_every_error_is_a_sentence_on_the_page(page, studio, tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    drop(page, tmp_path / "a.xlsx")
    assert "the ending tells no format" in problem(page)
    (tmp_path / "b.csv").write_bytes(b"time,x\n1,\0\n")
    drop(page, tmp_path / "b.csv")
    holds(page, "document.querySelector('#problem').textContent.includes('NUL byte')")
    assert page.is_disabled("#train-button")
    drop(page, hostile(tmp_path)[0])
    page.wait_for_selector("#train-button:enabled")
    assert page.locator("#problem .note").count() == 0
    page.fill("[name=horizon]", "0")
    page.click("#train-button")
    assert "Horizon lies from 1" in problem(page, "#train-problem")
    page.fill("[name=horizon]", "")
    page.click("#train-button")
    holds(page, "document.querySelector('#train-problem').textContent.includes('a number is missing')")
    page.fill("[name=horizon]", "390")
    page.select_option("[name=model]", "ridge")
    page.click("#train-button")
    page.wait_for_selector(".pill.failed")
    assert "horizon" in page.inner_text(".job .note.alarm")
    studio[0].kill()
    studio[0].wait()
    page.click("#train-button")
    holds(page, "document.body.textContent.includes('The server does not answer')")


@pytest.mark.slow
def test_in_a_browser_the_page_fits_a_phone_and_works_by_keyboard(page, tmp_path):
    page.set_viewport_size({"width": 390, "height": 844})
    drop(page, hostile(tmp_path)[0])
    page.wait_for_selector("#train-button:enabled")
    page.select_option("[name=model]", "ridge")
    page.locator("#train-button").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#result-body .downloads a")
    for _ in range(20):
        page.mouse.wheel(0, 500)
        page.wait_for_timeout(60)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator(".skip").focus()
    reached = []
    for _ in range(45):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(
            "(() => { const e = document.activeElement; return e.id || e.name || e.textContent.trim().slice(0, 20) })()"
        ))  # fmt: skip
    order = ["theme", "Data", "file", "demo-choice", "task", "model", "horizon", "train-button"]
    assert set(order) <= set(reached), reached
    places = [reached.index(name) for name in order]
    assert places == sorted(places)
    page.locator("[name=task]:checked").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('[name=task]:checked').value") == "classify"
    assert page.get_attribute("#live", "aria-live") == "polite" and "done" in page.text_content("#live")


@pytest.mark.slow
def test_in_a_browser_the_theme_follows_the_system_until_it_is_chosen(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(paper)
    assert light != dark
    page.click("#theme")
    assert page.inner_text("#theme") == "Theme: light" and page.evaluate(paper) == light
    page.click("#theme")
    assert page.evaluate(paper) == dark


@pytest.mark.slow
@pytest.mark.parametrize("way", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_command_removes_its_folder_however_it_is_ended(tmp_path, way):
    if not hasattr(signal, way):
        pytest.skip(f"this system has no {way}")
    command = [sys.executable, "-m", "prismts", "studio", "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    process.stderr.readline()
    until(lambda: list(tmp_path.glob("prismts-studio-*")))
    time.sleep(1.0)  # until the server has begun to listen for signals
    process.send_signal(getattr(signal, way))
    process.wait(60)
    process.stderr.close()
    assert not list(tmp_path.glob("prismts-studio-*"))
