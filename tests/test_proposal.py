"""The rule: taps by hand, costs to the last digit, proposals that always build and never exceed their budget."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prismts.analysis.macs import count
from prismts.analysis.proposal import Proposal, period_of, period_of_cases, proportions, propose
from prismts.analysis.shape import Shape, Site, TapUse, fitted, macs_of, settings_of, tap_use, used_taps
from prismts.data.series import Collection, Series
from prismts.data.synthetic import labeled_motions
from prismts.errors import SettingsError
from prismts.estimators.case_recipes import CLASSIFY_SETTINGS
from prismts.estimators.classifier import Classifier
from prismts.estimators.forecaster import Forecaster
from prismts.estimators.recipes import FORECAST_SETTINGS
from prismts.layers.convolve import conv_depthwise_plain
from prismts.models import make_settings
from prismts.models.convtimenet import ConvTimeNet, ConvTimeNetConfig
from prismts.tasks.classify import Classify
from prismts.tasks.forecast import Forecast

WINDOW = Site(n_timepoints=336, n_channels=7, n_outputs=96)
NO_PAIR = {"feed_forward": 0}


# ---- taps


def test_taps_that_meet_tokens_by_hand():
    assert used_taps(7, 1) == 1  # a single token meets the middle only
    assert used_taps(7, 3) == 5  # two to either side
    assert used_taps(4, 2) == 3  # torch pads an even kernel by 1 on the left and 2 on the right
    assert used_taps(7, 50) == 7


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@given(st.integers(1, 40), st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_a_tap_is_used_exactly_if_it_can_change_the_output(kernel_size, n_tokens):
    one_tap_each = torch.eye(kernel_size)  # [D=k, k]
    y = conv_depthwise_plain(torch.ones(kernel_size, 1, n_tokens), one_tap_each, None)  # [k, 1, N]
    assert used_taps(kernel_size, n_tokens) == int((y.abs().sum((1, 2)) > 0).sum()) <= 2 * n_tokens - 1


def test_the_authors_setting_for_fm_uses_6_of_78_taps():
    model = dict(CLASSIFY_SETTINGS["published/FM"].model)
    n_tokens = make_settings(ConvTimeNetConfig, model).n_tokens(50)
    assert n_tokens == 1
    assert tap_use(model["kernel_sizes"], n_tokens) == (6, 78)
    assert str(tap_use(model["kernel_sizes"], n_tokens)) == "6 of 78 taps"


def test_the_authors_setting_for_ili_uses_about_half_of_its_taps():
    model = dict(FORECAST_SETTINGS["published/ILI"].model)
    n_tokens = make_settings(ConvTimeNetConfig, model).n_tokens(104)
    assert n_tokens == 6  # so 11 taps of each kernel: 9 + 5 * 11 of 9 + 11 + 15 + 21 + 29 + 39
    assert tap_use(model["kernel_sizes"], n_tokens) == (64, 124)


# ---- costs


@pytest.mark.parametrize(
    ("site", "model"),
    [
        (WINDOW, {"kernel_sizes": (7, 13), "feed_forward": 0, "width": 8}),
        (WINDOW, {"kernel_sizes": (5,), "feed_forward": 32, "width": 8, "patches": "uniform"}),
        (Site(n_timepoints=150, n_channels=2, n_outputs=3), {"kernel_sizes": (5, 9), "patches": "points", "width": 4}),
        (Site(n_timepoints=20, n_channels=3, channels="mixed", n_outputs=4),
         {"kernel_sizes": (3, 1), "channels": "mixed", "patch_length": 4, "stride": 3, "width": 4}),
    ],
)  # fmt: skip
def test_the_cost_of_a_forecaster_is_what_the_model_itself_says(site, model):
    with torch.device("meta"):
        net = Forecast(site.n_outputs, line=None).build(
            "convtimenet", model, n_channels=site.n_channels, context_length=site.n_timepoints
        )
    assert macs_of(model, site) == count(net, torch.empty(1, site.n_channels, site.n_timepoints)).total


@pytest.mark.parametrize("pooling", ["max", "both"])
def test_the_cost_of_a_classifier_is_what_the_model_itself_says(pooling):
    n_pooled = 2 if pooling == "both" else 1
    site = Site(n_timepoints=60, n_channels=3, channels="mixed", n_outputs=5, n_pooled=n_pooled)
    model = {"channels": "mixed", "patch_length": 6, "stride": 3, "kernel_sizes": (3, 7), "width": 8}
    net = Classify(5, pooling=pooling).build("convtimenet", model, n_channels=3, context_length=60)
    assert macs_of(model, site) == count(net, torch.empty(1, 3, 60)).total


def test_the_largest_network_within_a_budget_is_found():
    def cost(shape):
        return shape.depth * shape.width * shape.n_tokens

    start = Shape(n_tokens=32, depth=3, width=64)
    shape, scale = fitted(start, cost, 10_000)
    assert cost(shape) <= 10_000 < cost(start.scaled(scale + 0.25))
    assert shape == start.scaled(scale)
    assert fitted(start, cost, 1e12, largest=0) == (start, 0)  # only ever smaller, where that was asked for


def test_scaling_keeps_the_reach_and_changes_the_rest_together():
    shape = Shape(n_tokens=20, depth=2, width=40, reach=0.7).scaled(2)
    assert (shape.depth, shape.width, shape.n_tokens, shape.reach) == pytest.approx((2.88, 48.4, 26.45, 0.7))


def test_a_budget_that_nothing_meets_says_what_the_least_is():
    with pytest.raises(SettingsError, match=r"budget of 1,000 multiply-accumulates is too small.*smallest.*costs"):
        propose(WINDOW, 60_000, base=NO_PAIR, max_macs=1000)


# ---- the rule


@pytest.mark.parametrize(
    ("n_timepoints", "period", "patch_and_stride"),
    [
        (336, 24, (24, 12)),  # 10.5 steps a token are wanted; 12 divides the day
        (104, 52, (8, 4)),  # 3.25 are wanted; 4 divides the year of weeks
        (336, None, (20, 10)),
        (336, 141, (20, 10)),  # 3 and 47 divide it, and both are too far
        (2048, 8, (64, 32)),  # a whole number of short periods
    ],
)
def test_patches_follow_the_period_where_one_is_near(n_timepoints, period, patch_and_stride):
    site = Site(n_timepoints=n_timepoints, n_channels=1, n_outputs=96)
    proposed = propose(site, 60_000, period=period, base=NO_PAIR).settings
    assert (proposed["patch_length"], proposed["stride"]) == patch_and_stride


def test_over_32_tokens_the_rule_gives_the_kernels_of_the_default():
    proposed = propose(Site(n_timepoints=320, n_channels=7, n_outputs=96), 60_000, base=NO_PAIR)
    assert proposed.n_tokens == 32
    assert proposed.settings["kernel_sizes"] == (7, 13, 19)
    assert (proposed.settings["width"], proposed.settings["feed_forward"]) == (64, 0)


@pytest.mark.parametrize(
    "base, pairs", [({}, [128, 256]), ({"feed_forward": 128}, [64, 128]), ({"width": 32, "feed_forward": 32}, [32, 64])]
)
def test_the_pair_keeps_the_proportion_it_has_in_the_recipe(base, pairs):
    shapes = [propose(WINDOW, n, base=base).settings for n in (1000, 600_000)]
    assert [shape["width"] for shape in shapes] == [32, 64]
    assert [shape["feed_forward"] for shape in shapes] == pairs


def test_a_tenfold_of_data_is_a_block_more():
    depths = [proportions(WINDOW, n).depth for n in (60_000, 600_000, 6_000_000, 60_000_000, 10**12)]
    assert depths == [3, 4, 5, 6, 6]
    assert proportions(WINDOW, 100).depth == 2


def test_short_cases_keep_kernels_that_meet_tokens():
    site = Site(n_timepoints=50, n_channels=28, channels="mixed", n_outputs=2, n_pooled=2)
    proposed = propose(site, 316 * 50 * 28, base={"channels": "mixed"})  # the size of FM
    assert proposed.taps.used == proposed.taps.total
    assert proposed.n_tokens == 16


@pytest.mark.parametrize(("n_timepoints", "patch_and_stride"), [(144, (18, 9)), (512, (64, 32)), (640, (64, 32))])
def test_cases_have_about_16_tokens_or_one_for_32_steps(n_timepoints, patch_and_stride):
    site = Site(n_timepoints=n_timepoints, n_channels=9, channels="mixed", n_outputs=25, n_pooled=2)
    proposed = propose(site, 300_000, base={"channels": "mixed"}).settings
    assert (proposed["patch_length"], proposed["stride"]) == patch_and_stride


def test_what_the_user_fixes_stays_and_the_rest_is_proposed_around_it():
    fixed = {"patch_length": 64, "width": 20, "patches": "uniform"}
    proposed = propose(WINDOW, 60_000, period=24, base={**NO_PAIR, "dropout": 0.3}, fixed=fixed)
    assert {**proposed.settings, **fixed} == proposed.settings
    assert proposed.settings["stride"] == 32
    assert proposed.settings["dropout"] == 0.3
    assert proposed.n_tokens == (336 + 32 - 64) // 32 + 1
    assert "as was asked for" in proposed.reasons[0]
    points = propose(WINDOW, 60_000, fixed={"patches": "points"}, base=NO_PAIR)
    assert points.n_tokens == 336


def test_the_rule_says_why():
    told = str(propose(WINDOW, 60_480, period=24, base=NO_PAIR))
    assert "Proposed: patch_length 24, stride 12, kernel_sizes (7, 13, 17)" in told
    assert "repeats itself every 24 steps, which are 2 strides" in told
    assert "past 55 taps meet no token; 37 of 37 taps are used" in told
    assert "about 5,760 tokens to learn from" in told
    single = propose(Site(n_timepoints=1, n_channels=1, n_outputs=1), 50, base=NO_PAIR)
    assert "a single token has no neighbors" in str(single)


def test_a_proposal_survives_json():
    proposed = propose(WINDOW, 60_000, period=24, base=NO_PAIR)
    again = Proposal.from_dict(proposed.as_dict())
    assert again == proposed
    assert isinstance(again.taps, TapUse)


def test_an_unknown_fixed_setting_offers_the_nearest():
    with pytest.raises(SettingsError, match=r"no setting 'widht'\. Did you mean 'width'"):
        propose(WINDOW, 1000, fixed={"widht": 3})


lengths = st.integers(1, 3000)
periods = st.one_of(st.none(), st.integers(1, 400))
sites = st.builds(
    Site, n_timepoints=lengths, n_channels=st.integers(1, 60), channels=st.sampled_from(["independent", "mixed"]),
    n_outputs=st.integers(1, 800), n_pooled=st.integers(0, 2),
)  # fmt: skip


@given(sites, periods, st.integers(1, 10**9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_proposed_settings_build_for_any_window_and_waste_no_tap(site, period, n_values, pair):
    proposed = propose(site, n_values, period=period, base={} if pair else NO_PAIR)
    config = make_settings(ConvTimeNetConfig, proposed.settings)
    with torch.device("meta"):
        model = ConvTimeNet(config, n_channels=site.n_channels, context_length=site.n_timepoints)
    assert model.n_tokens == proposed.n_tokens
    assert proposed.taps.used == proposed.taps.total
    assert max(config.kernel_sizes) <= 2 * proposed.n_tokens - 1
    assert proposed.macs == macs_of(config, site)


@given(sites, periods, st.floats(4, 9))
@settings(max_examples=60, deadline=None)
def test_a_proposal_stays_within_its_budget_or_says_that_nothing_does(site, period, magnitude):
    most = 10**magnitude
    try:
        proposed = propose(site, 100_000, period=period, max_macs=most)
    except SettingsError as error:
        assert "too small" in str(error)
        smallest = settings_of(Shape(n_tokens=1, depth=1, width=4, expansion=4), site, period=period)
        assert macs_of(smallest, site) > most
    else:
        assert proposed.macs <= most


@pytest.mark.parametrize("n_timepoints", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("channels", ["independent", "mixed"])
def test_the_shortest_windows_answer(n_timepoints, channels):
    site = Site(n_timepoints=n_timepoints, n_channels=2, channels=channels, n_outputs=3)
    model = Forecast(3, line=None).build(
        "convtimenet", propose(site, 100).settings, n_channels=2, context_length=n_timepoints
    )
    assert model.eval()(torch.randn(4, 2, n_timepoints)).shape == (4, 2, 3)


# ---- periods


def wave(n, period, noise=0.1, seed=0):
    return np.sin(2 * np.pi * np.arange(n) / period) + noise * np.random.default_rng(seed).normal(size=n)


def test_the_period_is_that_of_the_training_part():
    values = np.concatenate([wave(500, 20), wave(500, 50)])[None]
    data = Collection.of(Series(values))
    assert period_of(data, np.array([500])) == 20


def test_a_multiple_of_the_season_of_the_calendar_is_that_season():
    slow = wave(2000, 72, 0.0) + 0.2 * wave(2000, 24, 0.0)
    hourly = Collection.of(Series(slow[None], frequency="h"))
    assert period_of(hourly, np.array([2000])) == 24
    assert period_of(Collection.of(Series(slow[None])), np.array([2000])) == 72  # nobody said that it is hourly


def test_noise_and_very_short_series_have_no_period():
    noise = np.random.default_rng(0).normal(size=(1, 600))
    assert period_of(Collection.of(Series(noise)), np.array([600])) is None
    assert period_of(Collection.of(Series(noise)), np.array([8])) is None


def test_cases_have_the_period_they_share():
    cases = [Series(wave(length, 15, seed=length)[None], name=str(length)) for length in range(90, 120, 3)]
    assert period_of_cases(Collection.of(cases)) == 15
    assert period_of_cases(Collection.of([case.part(0, 6) for case in cases])) is None


def test_a_shape_has_numbers_above_zero():
    with pytest.raises(SettingsError, match="numbers above 0"):
        Shape(width=0)
    with pytest.raises(SettingsError, match="at least 1 step and 1 channel, but got 0"):
        Site(n_timepoints=0, n_channels=1)


# ---- model="auto"


TINY = {"fit_settings": {"max_epochs": 1}, "progress": False}


def two_waves(n=400):
    return np.stack([wave(n, 24, seed=1), wave(n, 24, seed=2)])


@pytest.fixture(scope="module")
def proposed_forecaster():
    return Forecaster("auto", context_length=72, horizon=8, **TINY).fit(two_waves())


def test_auto_is_a_convtimenet_with_the_settings_that_were_proposed(proposed_forecaster):
    proposal = proposed_forecaster.proposal_
    assert proposal.settings["stride"] in (2, 3)  # a part of the period of 24
    assert "24 steps" in proposal.reasons[0]
    by_hand = Forecaster(context_length=72, horizon=8, model_settings=dict(proposal.settings), **TINY).fit(two_waves())
    assert by_hand.proposal_ is None
    np.testing.assert_array_equal(by_hand.predict(), proposed_forecaster.predict())


def test_the_rule_reads_the_training_part_alone():
    x = two_waves()
    spoiled = np.concatenate([x[:, :280], 100 * np.random.default_rng(0).normal(size=(2, 120))], axis=1)
    one, other = (Forecaster("auto", context_length=72, horizon=8, **TINY).fit(y, test=0.3) for y in (x, spoiled))
    assert one.proposal_ == other.proposal_


def test_a_saved_forecaster_remembers_why(proposed_forecaster, tmp_path):
    proposed_forecaster.save(tmp_path / "model")
    again = Forecaster.load(tmp_path / "model")
    assert again.model == "auto"
    assert again.proposal_ == proposed_forecaster.proposal_
    np.testing.assert_array_equal(again.predict(), proposed_forecaster.predict())


def test_settings_of_the_user_stand_beside_auto():
    forecaster = Forecaster("auto", context_length=72, horizon=8, model_settings={"width": 12, "stride": 8}, **TINY)
    settings = forecaster.fit(two_waves()).proposal_.settings
    assert (settings["width"], settings["stride"], settings["patch_length"]) == (12, 8, 16)
    with pytest.raises(SettingsError, match=r"no setting 'widht'\. Did you mean 'width'"):
        forecaster.set_params(model_settings={"widht": 3}).fit(two_waves())


def test_a_warm_start_keeps_the_form_that_was_proposed():
    forecaster = Forecaster("auto", context_length=72, horizon=8, warm_start=True, **TINY).fit(two_waves())
    first = forecaster.proposal_
    assert forecaster.fit(two_waves(4000)[:, :900]).proposal_ == first


def test_auto_classifies_and_is_kept(tmp_path):
    cases = labeled_motions()
    options = {"setting": "network", "validation": 2, "fit_settings": {"max_epochs": 1}, "progress": False}
    classifier = Classifier("auto", **options).fit(cases.train)
    assert classifier.proposal_.settings["channels"] == "mixed"
    by_hand = Classifier(model_settings=dict(classifier.proposal_.settings), **options).fit(cases.train)
    np.testing.assert_array_equal(by_hand.predict_proba(cases.test), classifier.predict_proba(cases.test))
    classifier.save(tmp_path / "model")
    again = Classifier.load(tmp_path / "model")
    assert again.proposal_ == classifier.proposal_
    np.testing.assert_array_equal(again.predict(cases.test), classifier.predict(cases.test))
