"""A corpus gives training parts only, packs any series into one row, and knows which sets are twins."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.data.catalog import load_dataset
from prismts.data.corpus import Corpus, Generated, Member
from prismts.data.generator import GeneratorConfig, generate, write_generated
from prismts.data.packing import Packed
from prismts.data.series import Collection, Series
from prismts.data.synthetic import labeled_motions, random_walk, sine_mixture
from prismts.errors import DataError, SettingsError

SMALL = GeneratorConfig(n_timepoints=(40, 60), n_channels=(1, 3))


def standard(x: np.ndarray) -> np.ndarray:
    return (x - np.nanmean(x, 1, keepdims=True)) / np.nanstd(x, 1, keepdims=True)


# ---- packing


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(2, 9)), min_size=1, max_size=5), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_any_window_of_any_series_is_found_again_as_slicing_gives_it(shapes, seed):
    rng = np.random.default_rng(seed)
    series = [rng.standard_normal(shape) * 50 + 1e5 for shape in shapes]
    halves = [Packed.of(series[:2], 0), Packed.of(series[2:], 1)]
    packed = Packed.joined(halves)
    assert packed.member.tolist() == [0] * len(series[:2]) + [1] * len(series[2:])
    n = 20
    which = rng.integers(len(series), size=n)
    channels = np.array([rng.integers(len(series[s]), size=2) for s in which])
    first = np.array([rng.integers(series[s].shape[1]) for s in which])
    found = packed.gather(which, channels, first, 6)
    for b in range(n):
        whole = standard(series[which[b]])[channels[b]]
        expected = np.full((2, 6), np.nan)
        part = whole[:, first[b] : first[b] + 6]
        expected[:, : part.shape[1]] = part
        np.testing.assert_allclose(found[b], expected, atol=2e-5)


def test_what_was_not_observed_stays_so_and_empty_ends_are_cut_off():
    values = np.array([[np.nan, 1.0, np.nan, 3.0, np.nan], [np.nan, np.nan, 7.0, 7.0, np.nan]])
    packed = Packed.of([values, np.full((1, 4), np.nan)], 0)
    assert len(packed) == 1 and packed.n_timepoints.tolist() == [3]
    found = packed.gather(np.array([0]), np.array([[0, 1]]), np.array([0]), 3)
    np.testing.assert_allclose(found[0], [[-1, np.nan, 1], [np.nan, 0, 0]])  # a flat channel is 0


# ---- members


def test_of_a_real_set_only_the_training_part_is_there(data_root):
    whole = load_dataset("ETTh2")
    corpus = Corpus.of("ETTh2")
    (member,) = corpus.members
    assert whole.borders.train_end == 8640 and len(member.data[0]) == 8640
    np.testing.assert_array_equal(member.data.values, whole.values[:, :8640])
    train, held = corpus.train(), corpus.validation()
    assert train.n_timepoints.tolist() == [7776] and held.n_timepoints.tolist() == [864]  # of it, the last tenth
    cases = load_dataset("Epilepsy")
    assert len(Corpus.of("EP").members[0].data) == cases.n_train


def test_test_parts_reach_a_corpus_by_no_way(data_root):
    poisoned = load_dataset("ETTh1")
    values = poisoned.values.copy()
    values[:, poisoned.borders.train_end :] = 1e9
    from dataclasses import replace

    one = Corpus.of(Member.of(replace(poisoned, values=values), name="a"))
    two = Corpus.of(Member.of(poisoned, name="a"))
    assert one.fingerprint == two.fingerprint
    np.testing.assert_array_equal(one.train().values, two.train().values)


def test_a_corpus_knows_which_sets_it_has_seen_at_another_rate(data_root):
    corpus = Corpus.of("ETTm1", "Exchange")
    assert corpus.has_seen("ETTm1") and corpus.has_seen("ETTh1") and corpus.has_seen("exchange_rate")
    assert not corpus.has_seen("ETTh2") and not corpus.has_seen("ETTm2") and not corpus.has_seen("Weather")
    assert corpus.notes == ["ETTh1 is every fourth row of ETTm1: a model that was trained on either has seen both."]
    assert corpus.notes[0] in str(corpus)


def test_a_corpus_knows_a_set_that_was_given_as_an_object_whatever_the_member_is_called(data_root):
    exchange = load_dataset("Exchange")
    many = Collection.of([exchange, replace(exchange, name="other")])
    for source in (exchange, Collection.of(exchange), many, Member.of(exchange, name="mine"), exchange.part(0, 900)):
        corpus = Corpus.of(source)
        assert corpus.has_seen("Exchange") and not corpus.has_seen("Weather")
    assert Corpus.of(replace(exchange, name="ETTm1")).has_seen("ETTh1")
    assert not Corpus.of(replace(exchange, name="mine")).has_seen("Exchange")


def test_a_collection_keeps_the_borders_of_its_series_and_gives_a_corpus_their_training_parts(data_root):
    exchange = load_dataset("Exchange")
    free = replace(exchange.part(0, 700), name="free")
    many = Collection.of([exchange, free])
    assert many.borders == (exchange.borders, None) and many[0].borders == exchange.borders
    assert many.cases(1, 2).borders == (None,) and Collection.of(exchange).borders == (exchange.borders,)
    assert Collection.of(free).borders == ()
    end = exchange.borders.train_end
    assert [len(one) for one in Member.of(many).data] == [end, 700]
    assert [len(one) for one in Member.of(Collection.of(exchange)).data] == [end]
    assert [len(one) for one in Member.of(many, train=0.5).data] == [end // 2, 350]


def test_every_row_of_the_hourly_twin_is_in_the_finer_one_and_both_training_parts_end_together(data_root):
    for hourly, fine in (("ETTh1", "ETTm1"), ("ETTh2", "ETTm2")):
        one, four = (Corpus.of(name).members[0].data[0] for name in (hourly, fine))
        np.testing.assert_allclose(four.values[:, ::4], one.values, rtol=1e-5)
        assert four.timestamps[-1] - one.timestamps[-1] == np.timedelta64(45, "m")


def test_ones_own_tables_files_and_arrays_are_members(tmp_path):
    table = pd.DataFrame({"time": pd.date_range("2024", periods=50, freq="h"), "a": range(50), "b": range(50)})
    table.to_csv(tmp_path / "plant.csv", index=False)
    corpus = Corpus.of(str(tmp_path / "plant.csv"), Member.of(np.ones((2, 3, 30)).cumsum(-1), name="cases"))
    assert [m.name for m in corpus.members] == ["plant", "cases"]
    assert corpus.members[0].data.n_channels == 2 and len(corpus.members[1].data) == 2
    first = Member.of(table, name="half", time="time", values=["a"], train=0.5)
    assert len(first.data[0]) == 25 and first.data.n_channels == 1 and "first 50%" in first.note
    written = write_generated(tmp_path / "g", 12, SMALL)
    assert sum(len(Member.of(path, series="series", time="step").data) for path in written) == 12


def test_few_series_hold_out_their_ends_and_many_hold_out_whole_series():
    few = Member.of(sine_mixture(100, n_channels=2).part(0, 100), name="few")
    train, held = few.parts(0.2)
    assert [v.shape for v in train] == [(2, 80)] and [v.shape for v in held] == [(2, 20)]
    np.testing.assert_array_equal(np.concatenate([train[0], held[0]], axis=1), few.data.values)
    many = Member.of(Collection.of([Series(np.full((1, 5), float(i))) for i in range(20)]), name="many")
    train, held = many.parts(0.1)
    assert [v[0, 0] for v in held] == [9.0, 19.0] and len(train) == 18
    assert many.parts(0.0)[1] == []


def test_a_series_with_borders_gives_its_training_part():
    walk = random_walk(100)
    assert len(Member.of(walk).data[0]) == walk.borders.train_end == 70
    assert len(Member.of(labeled_motions(30)).data) == 20


# ---- generated members


def test_generated_series_are_new_in_every_epoch_and_never_those_that_validate():
    member = Generated(config=SMALL, seed=3, per_epoch=4, n_validation=3)
    assert member.numbers(0) == [0, 1, 2, 3] and member.numbers(5) == [20, 21, 22, 23]
    np.testing.assert_array_equal(member.train(5)[1], generate(21, SMALL, seed=3).values)
    seen = {values.tobytes() for epoch in range(4) for values in member.train(epoch)}
    assert len(seen) == 16 and not seen & {values.tobytes() for values in member.validation()}


def test_a_corpus_may_hold_generated_series_alone():
    corpus = Corpus.of(Generated(config=SMALL, per_epoch=5, n_validation=2))
    assert len(corpus.train()) == 5 and len(corpus.validation()) == 2
    assert len(Corpus([Generated(config=SMALL)], held_out=0.0).validation()) == 0


def test_a_finite_number_of_generated_series_comes_round_again():
    member = Generated(config=SMALL, per_epoch=4, n_series=6)
    assert [member.numbers(epoch) for epoch in range(3)] == [[0, 1, 2, 3], [0, 1, 4, 5], [2, 3, 4, 5]]


# ---- the whole


def test_members_are_drawn_by_weight_times_the_root_of_their_size_and_series_by_their_own():
    sizes = {"a": [(1, 100)], "b": [(2, 100), (2, 100)], "c": [(1, 300), (1, 100)]}
    rng = np.random.default_rng(0)
    members = []
    for name, shapes in sizes.items():
        collection = Collection.of([Series(rng.standard_normal(shape)) for shape in shapes])
        members.append(Member(name, collection, weight=3.0 if name == "a" else 1.0))
    corpus = Corpus(members, held_out=0.0)
    expected = np.array([3 * 10, 20 / 2, 20 / 2, 20 * 0.75, 20 * 0.25])
    np.testing.assert_allclose(corpus.chances(corpus.train()), expected / expected.sum())
    rows = corpus.describe()
    assert [row["values"] for row in rows] == [100, 400, 400]
    assert [round(row["share"], 3) for row in rows] == [0.429, 0.286, 0.286]


def test_the_fingerprint_changes_with_what_is_learned_from_and_not_with_how_many_processes_make_it():
    walk = random_walk(100)
    base = Corpus([Member.of(walk), Generated(config=SMALL)])
    assert base.fingerprint == Corpus([Member.of(walk), Generated(config=SMALL, n_jobs=2)]).fingerprint
    others = [
        Corpus([Member.of(random_walk(100, seed=1)), Generated(config=SMALL)]),
        Corpus([Member.of(walk, weight=2.0), Generated(config=SMALL)]),
        Corpus([Member.of(walk), Generated(config=SMALL, seed=1)]),
        Corpus([Member.of(walk), Generated(config=SMALL)], held_out=0.2),
        Corpus([Member.of(walk)]),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_a_corpus_says_what_it_holds():
    corpus = Corpus([Member.of(random_walk(1000), name="walk"), Generated(config=SMALL, per_epoch=8)])
    told = str(corpus)
    assert told.splitlines()[0].split() == [
        "member", "series", "channels", "steps", "values", "share", "held", "out", "frequency", "note"
    ]  # fmt: skip
    assert "walk" in told and "steps 0 to 700 of 1000" in told and "8 new series an epoch" in told


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: Corpus([]), DataError, "at least one member"),
    (lambda: Corpus.of("ETTh3"), SettingsError, "no data set named 'ETTh3'. Did you mean 'ETTh"),
    (lambda: Corpus.of("missing.csv"), DataError, "missing.csv"),
    (lambda: Corpus([Generated(), Generated()]), SettingsError, "Two members of the corpus are called 'generated'"),
    (lambda: Corpus([Generated()], held_out=1.0), SettingsError, "from 0 to below 1"),
    (lambda: Generated(weight=0.0), SettingsError, "above 0, but got 0.0. Leave it out"),
    (lambda: Generated(per_epoch=0), SettingsError, "at least 1"),
    (lambda: Member.of(random_walk(50), weight=-1.0), SettingsError, "above 0, but got -1.0"),
    (lambda: Member.of(random_walk(50), train=1.5), SettingsError, "at most 1, but got 1.5"),
])  # fmt: skip
def test_what_cannot_be_a_corpus_is_refused_in_words(make, error, words):
    with pytest.raises(error, match=words):
        make()
