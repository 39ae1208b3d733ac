"""Generated series: number i is always the same one, its law is the one named, and files hold what memory does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.data.generator import (
    KERNELS,
    KINDS,
    GeneratorConfig,
    generate,
    generate_many,
    sample_process,
    write_generated,
)
from prismts.data.readers import read
from prismts.data.series import Collection
from prismts.errors import SavedModelError, SettingsError

SMALL = GeneratorConfig(n_timepoints=(32, 64), n_channels=(1, 3))


@given(st.integers(0, 10_000), st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_a_series_depends_on_seed_and_number_alone(i, seed):
    alone = generate(i, SMALL, seed=seed)
    among = generate_many([i + 1, i, i + 2], SMALL, seed=seed)[1]
    np.testing.assert_array_equal(alone.values, among.values)
    assert not np.array_equal(alone.values, generate(i, SMALL, seed=seed + 1).values)


@pytest.mark.parametrize("kind", list(KINDS))
@given(st.integers(0, 10_000), st.integers(8, 80), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_every_kind_gives_finite_moving_series_of_the_size_asked_for(kind, i, n, n_channels):
    config = GeneratorConfig(n_timepoints=n, n_channels=n_channels, kinds={kind: 1.0}, spikes=0.5, steps=0.5)
    values = generate(i, config).values
    assert values.shape == (n_channels, n) and values.dtype == np.float32
    assert np.isfinite(values).all() and (values.std(axis=1) > 0).all()


def test_lengths_and_widths_lie_between_their_ends_and_reach_both():
    made = generate_many(range(300), GeneratorConfig(n_timepoints=(8, 11), n_channels=(1, 3)))
    assert {len(one) for one in made} == {8, 9, 10, 11}
    assert {one.n_channels for one in made} == {1, 2, 3}


@pytest.mark.parametrize("name", list(KERNELS))
def test_samples_of_a_process_have_the_covariance_that_the_kernel_says(name):
    n = 64
    kernel = KERNELS[name](np.random.default_rng(3), n)
    samples = sample_process(np.random.default_rng(0), kernel, 8_000, n)
    expected = kernel(np.abs(np.arange(n)[:, None] - np.arange(n)).astype(float))
    # a covariance of 8,000 samples of unit variance is off by less than 0.06 with all but certainty
    np.testing.assert_allclose(samples.T @ samples / len(samples), expected, atol=0.06)
    assert np.abs(samples.mean(0)).max() < 0.06


def test_a_child_of_a_graph_follows_its_parent_with_a_delay():
    best = []
    for i in range(40):
        values = generate(
            i, GeneratorConfig(n_timepoints=400, n_channels=4, kinds={"causal_graph": 1}, spikes=0)
        ).values
        x = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
        lagged = [abs(np.mean(x[a, : 400 - lag] * x[b, lag:])) for a in range(4) for b in range(4) if a != b
                  for lag in range(1, 48)]  # fmt: skip
        best.append(max(lagged))
    assert np.median(best) > 0.5


def test_regimes_change_the_law_and_the_level():
    def spread_of_levels(kind):
        made = generate_many(range(60), GeneratorConfig(
            n_timepoints=512, n_channels=1, kinds={kind: 1}, spikes=0, steps=0))  # fmt: skip
        return np.median([np.abs(np.diff(one.values[0])).max() / np.abs(np.diff(one.values[0])).mean() for one in made])

    assert spread_of_levels("regimes") > spread_of_levels("gaussian_process")


def test_spikes_and_steps_come_to_the_share_asked_for():
    def made(**shares):
        return GeneratorConfig(n_timepoints=256, n_channels=1, kinds={"gaussian_process": 1}, **shares)

    for name in ("spikes", "steps"):
        nothing = {"spikes": 0.0, "steps": 0.0}
        none, all_, half = (generate_many(range(80), made(**{**nothing, name: share})) for share in (0.0, 1.0, 0.5))
        changed = [not np.array_equal(a.values, b.values) for a, b in zip(none, half, strict=True)]
        assert 20 < sum(changed) < 60
        assert sum(np.ptp(b.values) > np.ptp(a.values) for a, b in zip(none, all_, strict=True)) > 50


@pytest.mark.slow
def test_processes_share_the_work_and_give_the_same_series():
    one, two = (generate_many(range(9), SMALL, seed=4, n_jobs=n) for n in (1, 2))
    assert [series.name for series in one] == [series.name for series in two]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.values, b.values)


def test_parquet_files_hold_the_same_series_and_are_written_once(tmp_path):
    paths = write_generated(tmp_path, 25, SMALL, seed=2, per_file=10)
    found = {}
    for path in paths:
        data = read(path, series="series", time="step")
        assert isinstance(data, Collection) and f"c{data.n_channels}-" in path.name
        found |= {int(one.name): one.values for one in data}
    assert sorted(found) == list(range(25))
    for i, values in found.items():
        np.testing.assert_array_equal(values, generate(i, SMALL, seed=2).values)
    before = {path: path.stat().st_mtime_ns for path in paths}
    assert {
        path: path.stat().st_mtime_ns for path in write_generated(tmp_path, 25, SMALL, seed=2, per_file=10)
    } == before
    with pytest.raises(SavedModelError, match="another seed or other settings"):
        write_generated(tmp_path, 25, SMALL, seed=3, per_file=10)


@pytest.mark.parametrize(("settings_", "words"), [
    ({"n_timepoints": 4}, "n_timepoints is at least 8"),
    ({"n_channels": (3, 1)}, "rising pair"),
    ({"n_channels": (3, 1, 2)}, "two of them"),
    ({"kinds": {"gausian_process": 1.0}}, "Did you mean 'gaussian_process'"),
    ({"kinds": {"regimes": 0.0}}, "one at least above 0"),
    ({"spikes": 2.0}, "from 0 to 1, but got 2.0"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused_in_words(settings_, words):
    with pytest.raises(SettingsError, match=words):
        GeneratorConfig(**settings_)
    with pytest.raises(SettingsError, match="numbered from 0"):
        generate(-1)
