"""The catalog: names and their neighbors, where files are looked for, and what comes out of them."""

import gzip
import hashlib
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prismts import Forecaster
from prismts.data import catalog
from prismts.data.catalog import DATASETS, DatasetFile, dataset, find_dataset_file, list_datasets, load_dataset, where
from prismts.data.series import Collection, Series
from prismts.errors import DataError, SettingsError

FORECASTING = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "Exchange", "ILI", "Weather")


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
    """No data folder, an empty cache, no net: the folder given back is free for a test to use."""
    monkeypatch.delenv("PRISMTS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PRISMTS_OFFLINE", "1")
    return tmp_path


def no_request(*_: object, **__: object) -> None:
    raise AssertionError("the net was asked")


# --- names -----------------------------------------------------------------------------------------------------------


def test_the_seven_forecasting_sets_are_there_under_their_usual_names_and_one_as_it_is_published():
    assert tuple(entry.name for entry in list_datasets("forecast")) == (*FORECASTING, "Weather_raw")


def test_the_paper_abbreviations_lead_to_the_archive_names():
    names = {short: dataset(short).name for short in ("AWR", "EP", "FM", "JV", "SRS2")}
    assert names == {
        "AWR": "ArticularyWordRecognition", "EP": "Epilepsy", "FM": "FingerMovements", "JV": "JapaneseVowels",
        "SRS2": "SelfRegulationSCP2",
    }  # fmt: skip


def test_capitals_do_not_matter():
    assert dataset("etth2") is DATASETS["ETTh2"]


def test_an_alias_never_hides_another_name():
    names = [key.casefold() for entry in DATASETS.values() for key in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))


def test_a_misspelled_name_is_answered_with_its_nearest_neighbor():
    with pytest.raises(SettingsError, match=r"no data set named 'Wether'. Did you mean 'Weather'"):
        load_dataset("Wether")
    with pytest.raises(SettingsError, match=r"Did you mean 'SMD/machine-1-6'"):
        load_dataset("SMD/machine-1-5")
    with pytest.raises(SettingsError, match=r"no collection named 'SMAD'. Did you mean 'S"):
        list_datasets(collection="SMAD")
    with pytest.raises(SettingsError, match=r"no task named 'detection'. Did you mean 'detect'"):
        list_datasets("detection")  # type: ignore[arg-type]


def test_a_collection_is_listed_series_by_series():
    assert [entry.name for entry in list_datasets(collection="SMD")] == [
        f"SMD/machine-{machine}" for machine in ("1-6", "2-1", "2-7", "3-3", "3-4")
    ]


def test_loading_a_whole_collection_for_detection_says_how_to_get_at_its_series():
    with pytest.raises(DataError, match=r"'SMD' is a collection of 5 series.*'SMD/machine-1-6'.*list_datasets"):
        load_dataset("SMD")


def test_every_entry_can_be_read_and_cut_by_a_rule_that_exists():
    for entry in DATASETS.values():
        assert entry.layout in catalog.LAYOUTS
        assert entry.borders in catalog.BORDERS or entry.borders in ("of the source", "none"), entry.name
        assert entry.task in ("forecast", "classify", "detect", "other")
        assert entry.license and entry.source.startswith("https://github.com/")
        assert (entry.collection is None) == ("/" not in entry.name)


def test_every_url_names_a_full_commit_and_what_its_bytes_hash_to():
    for file in (file for entry in DATASETS.values() for file in entry.files):
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert (file.url is None) == (file.url_sha256 is None)
        if file.url is not None:
            assert re.fullmatch(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/\S+", file.url)
            assert re.fullmatch(r"[0-9a-f]{64}", file.url_sha256 or "")


def test_every_forecasting_set_can_be_downloaded():
    assert all(file.url for name in FORECASTING for file in DATASETS[name].files)


@pytest.mark.parametrize(
    ("name", "horizon", "n_windows"),
    [("ETTh1", 96, 2785), ("ETTm1", 96, 11425), ("Exchange", 96, 1422), ("Weather", 96, 10444), ("ILI", 24, 170)],
)
def test_the_borders_leave_as_many_test_windows_as_the_usual_protocol_counts(name, horizon, n_windows):
    entry = DATASETS[name]
    empty = Series(np.zeros((1, entry.n_timepoints)), frequency=entry.frequency)
    begin, end = catalog.BORDERS[entry.borders](empty).test
    assert end - begin - horizon + 1 == n_windows


# --- where files lie -------------------------------------------------------------------------------------------------


def planted_file(folder: Path, content: bytes, **settings: str) -> DatasetFile:
    path = folder / "forecasting" / "small.csv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return DatasetFile(path="forecasting/small.csv.gz", sha256=hashlib.sha256(content).hexdigest(), **settings)


def test_the_data_folder_comes_before_the_cache(alone, monkeypatch):
    file = planted_file(alone / "data", b"content")
    planted_file(alone / "cache" / "prismts", b"content")
    assert find_dataset_file(file) == alone / "cache" / "prismts" / file.path
    monkeypatch.setenv("PRISMTS_DATA", str(alone / "data"))
    assert find_dataset_file(file) == alone / "data" / file.path


def test_a_file_that_was_changed_is_refused_and_is_taken_again_once_it_is_restored(alone, monkeypatch):
    monkeypatch.setenv("PRISMTS_DATA", str(alone / "data"))
    file = planted_file(alone / "data", b"content")
    path = find_dataset_file(file)
    path.write_bytes(b"altered")
    with pytest.raises(DataError, match=rf"small.csv.gz is not the file .* expected {file.sha256}"):
        find_dataset_file(file)
    path.write_bytes(b"content")
    assert find_dataset_file(file) == path


def test_a_file_found_nowhere_names_the_three_places_and_the_remedy(alone):
    with pytest.raises(DataError) as error:
        load_dataset("ETTh2")
    words = str(error.value)
    assert "PRISMTS_DATA (not set)" in words
    assert str(alone / "cache" / "prismts") in words
    assert "PRISMTS_OFFLINE is set" in words
    assert "Set PRISMTS_DATA to a folder that holds forecasting/ETTh2.csv.gz, or connect" in words


def test_a_file_without_a_download_does_not_advise_to_connect(alone):
    with pytest.raises(DataError, match="its source keeps another format") as error:
        load_dataset("SMD/machine-1-6")
    assert "connect" not in str(error.value)


def test_offline_means_that_the_net_is_not_asked(alone, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", no_request)
    monkeypatch.setattr("requests.get", no_request)
    with pytest.raises(DataError, match="PRISMTS_OFFLINE"):
        load_dataset("ETTh2")


@pytest.mark.long
def test_without_a_network_the_search_ends_in_seconds_even_where_looking_up_a_name_hangs(alone, monkeypatch):
    monkeypatch.setenv("PRISMTS_OFFLINE", "0")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: time.sleep(30))
    begin = time.monotonic()
    with pytest.raises(DataError, match="there seems to be no network"):
        load_dataset("ETTh2")
    assert time.monotonic() - begin < 6


class Answer:
    """What requests.get gives back, as far as a download looks at it."""

    def __init__(self, content: bytes):
        self.content, self.headers = content, {"content-length": str(len(content))}

    def raise_for_status(self) -> None: ...

    def iter_content(self, chunk_size: int) -> list[bytes]:
        return [self.content]

    def close(self) -> None: ...

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None: ...


def downloadable(content: bytes) -> DatasetFile:
    return DatasetFile(
        path="forecasting/small.csv.gz",
        sha256=hashlib.sha256(gzip.compress(content)).hexdigest(),
        url="https://raw.githubusercontent.com/owner/name/0000/small.csv",
        url_sha256=hashlib.sha256(content).hexdigest(),
    )


def test_a_download_is_kept_in_the_cache_in_the_source_wrapping_and_is_not_repeated(alone, monkeypatch):
    monkeypatch.setenv("PRISMTS_OFFLINE", "0")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    monkeypatch.setattr("requests.get", lambda *_, **__: Answer(b"plain text"))
    path = find_dataset_file(downloadable(b"plain text"))
    assert path == alone / "cache" / "prismts" / "forecasting" / "small.csv"
    assert path.read_bytes() == b"plain text"
    monkeypatch.setattr("requests.get", no_request)
    assert find_dataset_file(downloadable(b"plain text")) == path


def test_a_download_with_other_bytes_is_refused_and_leaves_nothing_behind(alone, monkeypatch):
    monkeypatch.setenv("PRISMTS_OFFLINE", "0")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    monkeypatch.setattr("requests.get", lambda *_, **__: Answer(b"something else"))
    with pytest.raises(DataError, match=r"small.csv failed \(ValueError"):
        find_dataset_file(downloadable(b"plain text"))
    assert not [path for path in (alone / "cache").rglob("*") if path.is_file()]


def test_where_tells_the_place_without_reading(alone, monkeypatch):
    assert where("ETTh2") == "missing"
    monkeypatch.setenv("PRISMTS_OFFLINE", "0")
    assert where("ETTh2") == "download"
    assert where("SMD/machine-1-6") == "missing"  # its source keeps another format
    kept = alone / "cache" / "prismts" / "forecasting"
    kept.mkdir(parents=True)
    (kept / "ETTh2.csv").touch()
    assert where("ETTh2") == "cache"
    (alone / "forecasting").mkdir()
    (alone / "forecasting" / "ETTh2.csv.gz").touch()
    monkeypatch.setenv("PRISMTS_DATA", str(alone))
    assert where("ETTh2") == "PRISMTS_DATA"


# --- what comes out --------------------------------------------------------------------------------------------------


def test_etth2_comes_with_its_channels_times_and_borders(data_root):
    series = load_dataset("ETTh2")
    assert isinstance(series, Series)
    assert series.name == "ETTh2"
    assert series.values.shape == (7, 17420)
    assert series.channels == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    assert series.frequency == "h"
    assert series.timestamps[0] == np.datetime64("2016-07-01T00:00")
    assert series.values[0, 0] == np.float32(41.13000106811523)
    assert str(series.borders) == "train [0, 8640), validation [8640, 11520), test [11520, 14400)"


def test_weather_keeps_every_row_of_the_file_and_says_where_the_clock_was_wrong(data_root):
    weather = load_dataset("Weather")
    assert isinstance(weather, Series)
    assert weather.values.shape == (21, 52696)
    missing = dict(zip(weather.channels, (~weather.observed).sum(axis=1).tolist(), strict=True))
    assert {name: n for name, n in missing.items() if n} == {"wv (m/s)": 1, "max. PAR (�mol/m�/s)": 30, "OT": 50}
    assert any("2 of 52695 steps are not of the usual 0 days 00:10:00" in str(finding) for finding in weather.findings)
    assert weather.future_timestamps(1)[0] == np.datetime64("2021-01-01T00:10")
    begin, end = weather.borders.test
    assert end - begin - 96 + 1 == 10444
    raw = load_dataset("Weather_raw")  # as published results read it
    assert raw.observed.all() and int((raw.values == -9999).sum()) == 81
    np.testing.assert_array_equal(
        np.where(weather.observed, raw.values, 0), np.where(weather.observed, weather.values, 0)
    )


@pytest.mark.parametrize("name", (*FORECASTING, "Weather_raw"))
def test_every_set_to_forecast_can_be_learned_from_as_it_comes(name, data_root):
    """Weather counts rows as steps, though its clock jumps twice; nothing else may say so without reporting it."""
    series = load_dataset(name)
    short = series.part(0, 20_000)  # the clock of Weather jumps in row 19,044
    ridge = Forecaster("ridge", context_length=24, horizon=4, progress=False).fit(short)
    assert np.isfinite(ridge.predict().select_dtypes("number").to_numpy()).all()
    if name.startswith("Weather"):
        with pytest.raises(DataError, match="not one step of it apart"):
            ridge.fit(replace(short, findings=()))


def test_ili_counts_weeks(data_root):
    ili = load_dataset("ILI")
    assert isinstance(ili, Series)
    assert ili.values.shape == (7, 966)
    assert ili.future_timestamps(1)[0] - ili.timestamps[-1] == np.timedelta64(7, "D")


def test_japanese_vowels_come_with_their_own_lengths_and_the_archive_split(data_root):
    vowels = load_dataset("JV")
    assert isinstance(vowels, Collection)
    assert (len(vowels), len(vowels.train), len(vowels.test)) == (640, 270, 370)
    assert vowels.n_channels == 12
    assert (vowels.lengths.min(), vowels.lengths.max()) == (7, 29)
    assert len(set(vowels.labels)) == 9


def test_a_training_case_is_the_first_line_of_the_training_file(data_root):
    motions = load_dataset("BasicMotions")
    with gzip.open(data_root / "classification/BasicMotions/BasicMotions_TRAIN.ts.gz", "rt") as lines:
        line = next(line for line in lines if line[0] not in "@#\n")
    *channels, label = line.strip().split(":")
    np.testing.assert_allclose(motions[0].values, [[float(v) for v in c.split(",")] for c in channels], rtol=1e-6)
    assert motions.labels[0] == label


def test_a_server_machine_is_cut_where_its_test_file_begins(data_root):
    machine = load_dataset("SMD/machine-1-6")
    assert machine.values.shape == (38, 23688 + 23689)
    assert machine.borders.train == (0, 23688)
    assert machine.borders.test == (23688, 47377)
    assert machine.labels[:23688].sum() == 0
    with np.load(data_root / "anomaly/SMD/machine-1-6.npz") as arrays:
        np.testing.assert_array_equal(machine.values[:, 23688:], arrays["test"].T)
        np.testing.assert_array_equal(machine.labels[23688:], arrays["test_label"])


def test_a_web_service_curve_keeps_its_training_labels_and_its_clock(data_root):
    curve = load_dataset("WSD/23")
    begin, end = curve.borders.test
    assert (curve.labels[:begin].sum(), curve.labels[begin:end].sum()) == (27, 199)
    assert (np.diff(curve.timestamps) == np.timedelta64(60, "s")).all()
    assert curve.frequency == "min"


def test_a_ucr_curve_has_the_one_anomaly_its_file_name_tells(data_root):
    curve = load_dataset("UCR/DISTORTED1sddb40")
    assert curve.borders.train == (0, 35000)
    assert np.flatnonzero(curve.labels).tolist() == list(range(52000, 52621))


def test_nab_labels_are_the_published_windows_and_training_is_the_probation_of_750_steps(data_root):
    taxi = load_dataset("NAB/nyc_taxi")
    assert taxi.values.shape == (1, 10320)
    assert taxi.frequency == "30min"
    assert taxi.borders.train == (0, 750)  # 15 % of 10320 would be 1548
    assert (np.diff(taxi.labels) == 1).sum() == 5
    marked = taxi.timestamps[taxi.labels == 1]
    assert marked[0] == np.datetime64("2014-10-30T15:30")


def test_a_nab_series_whose_clock_jumps_back_keeps_its_rows_and_has_no_frequency(data_root):
    machine = load_dataset("NAB/machine_temperature_system_failure")
    assert len(machine) == 22695
    assert (np.diff(machine.timestamps) < np.timedelta64(0)).any()
    assert machine.frequency is None


def test_skab_takes_its_first_400_steps_for_training(data_root):
    valve = load_dataset("SKAB/valve1/0")
    assert valve.values.shape == (8, 1147)
    assert valve.labels.sum() == 401
    assert valve.borders.train == (0, 400)
    assert "anomaly" not in valve.channels


def test_the_electrocardiograms_have_labels_and_no_borders(data_root):
    beats = load_dataset("MBA_ECG/805")
    assert beats.borders is None
    assert 0 < beats.labels.sum() < len(beats)


def test_beijing_takes_its_time_from_four_columns_and_keeps_what_is_missing_missing(data_root):
    beijing = load_dataset("beijing_pm25")
    assert beijing.channels[0] == "pm2.5"
    assert (~beijing.observed).sum(axis=1).tolist() == [2067, 0, 0, 0, 0, 0, 0]
    assert beijing.timestamps[-1] == np.datetime64("2014-12-31T23:00")


@pytest.mark.parametrize(
    ("name", "frequency", "after"), [("AirPassengers", "MS", "1961-01-01"), ("ausbeer", "QS", "2008-10-01")]
)
def test_months_and_quarters_continue_on_their_first_day(data_root, name, frequency, after):
    series = load_dataset(name)
    assert series.frequency.startswith(frequency)
    assert series.future_timestamps(1)[0] == np.datetime64(after)


def test_every_file_of_the_folder_has_a_name_but_for_those_left_out_on_purpose(data_root):
    named = {file.path for entry in DATASETS.values() for file in entry.files}
    there = {path.relative_to(data_root).as_posix() for path in data_root.glob("*/**/*") if path.is_file()}
    labels_of_others = {"anomaly/SMAP_MSL_labeled_anomalies.csv", "anomaly/NAB/combined_labels.json"}
    competitions = {f"misc/{name}.csv.gz" for name in ("M1", "M3", "M4_Hourly_train", "M4_Hourly_test")}
    pieces = {"misc/electricity_hourly_part.npz", "misc/solar_10_minutes_part.npz", "misc/hospital_dataset.tsf.gz"}
    assert there - named <= labels_of_others | competitions | pieces


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_of_the_folder_loads_in_the_shape_the_catalog_tells(data_root, name):
    entry = DATASETS[name]
    if where(name) != "PRISMTS_DATA":
        pytest.skip("not in this folder")
    loaded = load_dataset(name)
    assert loaded.n_channels == entry.n_channels
    if isinstance(loaded, Collection):
        assert len(loaded) == entry.n_cases
        assert loaded.lengths.max() == entry.n_timepoints
        assert len(set(loaded.labels)) == int(re.search(r"(\d+) classes", entry.description)[1])
        return
    assert len(loaded) == entry.n_timepoints
    assert entry.frequency in (None, loaded.frequency)
    assert (loaded.borders is None) == (entry.borders == "none")
    assert (loaded.labels is not None) == (entry.task == "detect")


@pytest.mark.slow
def test_every_labeled_point_that_the_folder_counts_is_found(data_root):
    readme = (data_root / "README.md").read_text(encoding="utf-8")
    by_path = {entry.files[0].path: entry.name for entry in list_datasets("detect")}
    counted = re.findall(r"`(anomaly/\S+\.npz)`.*?; (?:anomalous (\d+) of \d+ and )?(\d+) of \d+ ", readme)
    assert len(counted) > 80
    for path, in_train, in_test in counted:
        labels = load_dataset(by_path[path]).labels
        assert labels.sum() == int(in_train or 0) + int(in_test), path
