"""Distillation: losses that can be done by hand, a teacher that runs once, and a student that learns what it says."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn

import prismts
from prismts.cases import CaseBatch, Cases
from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection
from prismts.data.synthetic import labeled_motions, simulated_plant
from prismts.errors import DataError, SavedModelError, SettingsError, ShapeError
from prismts.estimators.distilling import _teachers, _WindowTeacher, distill, measured, smaller
from prismts.models.teachers import Teacher, TeacherForecast
from prismts.tasks.classify import Augmentation, Classify
from prismts.tasks.distill import AnswerCache, Distill, Projecting, Taught, TaughtBatch, soft_entropy
from prismts.tasks.forecast import Forecast
from prismts.windows import Batch, Windows

SHORT = {"max_epochs": 1, "batch_size": 64}


class Says(nn.Module):
    """A student that says one thing."""

    def __init__(self, said: torch.Tensor) -> None:
        super().__init__()
        self.said = nn.Parameter(said)

    def forward(self, x, observed=None):
        return self.said


class LastPlusOne:
    """A teacher that forecasts the last observed value plus one, and quantiles beside it."""

    levels = (0.1, 0.5, 0.9)
    fingerprint = "last plus one"
    context_length = 5

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, context: torch.Tensor, horizon: int) -> TeacherForecast:
        self.asked += len(context)
        seen = ~context.isnan()
        last = (seen * torch.arange(1, context.shape[-1] + 1)).argmax(-1, keepdim=True)
        mean = (context.nan_to_num(0.0).gather(-1, last) + 1).expand(-1, -1, horizon)
        return TeacherForecast(mean, torch.stack([mean - 1, mean, mean + 1], dim=1))


def batch_of(target: torch.Tensor, seen: torch.Tensor | None = None) -> Batch:
    context = torch.zeros(*target.shape[:2], 4)
    return Batch(context, target, None, seen, torch.zeros(len(target), dtype=torch.int64))


@pytest.fixture(scope="module")
def plant():
    return simulated_plant(700)


@pytest.fixture(scope="module")
def teacher(plant):
    return prismts.Forecaster(
        context_length=64, horizon=16, n_members=2, quantiles=(0.1, 0.5, 0.9), fit_settings=SHORT, progress=False
    ).fit(plant)


# ---- losses


def test_the_forecast_loss_by_hand() -> None:
    student = Says(torch.tensor([[[1.0, 2.0]]]))
    batch = TaughtBatch(batch_of(torch.tensor([[[0.0, 0.0]]])), torch.tensor([[[3.0, 2.0]]]), None)
    # truth: (1 + 4) / 2 = 2.5; teacher: (4 + 0) / 2 = 2
    loss = Distill(Forecast(2, line=None), weight=0.25).loss(student, batch)
    assert float(loss.detach()) == pytest.approx(0.75 * 2.5 + 0.25 * 2.0)


def test_squared_losses_of_truth_and_teacher_pull_towards_their_weighted_mean() -> None:
    torch.manual_seed(0)
    truth, said, told = torch.randn(3, 4, 2, 5)  # independent answer: one squared loss to the blended target
    student = Says(told.clone())
    Distill(Forecast(5, line=None), weight=0.3).loss(student, TaughtBatch(batch_of(truth), said, None)).backward()
    twin = told.clone().requires_grad_(True)
    (twin - (0.7 * truth + 0.3 * said)).square().mean().backward()
    torch.testing.assert_close(student.said.grad, twin.grad)


def test_the_teacher_speaks_also_where_the_truth_was_not_observed() -> None:
    seen = torch.tensor([[[True, False]]])
    batch = TaughtBatch(batch_of(torch.zeros(1, 1, 2), seen), torch.tensor([[[0.0, 4.0]]]), None)
    student = Says(torch.tensor([[[1.0, 1.0]]]))
    loss = Distill(Forecast(2, line=None), weight=0.5).loss(student, batch)
    assert float(loss.detach()) == pytest.approx(0.5 * 1.0 + 0.5 * (1.0 + 9.0) / 2)


def test_the_quantile_loss_by_hand() -> None:
    told = torch.tensor([[[[0.0]], [[2.0]]]])  # levels 0.1 and 0.9
    batch = TaughtBatch(batch_of(torch.tensor([[[1.0]]])), torch.tensor([[[[1.0]], [[2.0]]]]), None)
    loss = Distill(Forecast(1, quantiles=(0.1, 0.9), line=None), weight=0.5).loss(Says(told), batch)
    pinball = (0.1 * 1.0 + 0.1 * 1.0) / 2
    assert float(loss.detach()) == pytest.approx(0.5 * pinball + 0.5 * 0.5 / 2)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "relative_mse"])
def test_without_weight_the_loss_is_that_of_the_task(loss: str) -> None:
    torch.manual_seed(0)
    truth, said, told = torch.randn(3, 4, 2, 5)
    task, batch = Forecast(5, loss=loss, line=None), batch_of(truth)
    for weight, target in ((0.0, truth), (1.0, said)):
        found = Distill(task, weight=weight).loss(Says(told), TaughtBatch(batch, said, None))
        torch.testing.assert_close(found, task.loss(Says(told), batch._replace(target=target)))


def test_the_class_loss_is_the_entropies_that_scipy_gives() -> None:
    rng = np.random.default_rng(0)
    told, said, label = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)), rng.integers(0, 3, 6)
    batch = CaseBatch(torch.zeros(6, 1, 4), None, torch.from_numpy(label))
    taught = TaughtBatch(batch, torch.from_numpy(said).float(), None)
    loss = Distill(Classify(3), weight=0.4, temperature=3.0).loss(Says(torch.from_numpy(told).float()), taught)
    hard = -np.log(softmax(told, axis=1)[np.arange(6), label]).mean()
    soft = entropy(softmax(said / 3, axis=1), softmax(told / 3, axis=1), axis=1).mean() * 9
    assert float(loss.detach()) == pytest.approx(0.6 * hard + 0.4 * soft, rel=1e-5)


def test_equal_scores_and_shifted_ones_cost_nothing() -> None:
    scores = torch.randn(5, 4)
    assert float(soft_entropy(scores.softmax(1), scores + 3.0)) == pytest.approx(0.0, abs=1e-6)


def test_mixed_cases_have_a_mixed_teacher() -> None:
    task = Classify(2, augmentation=Augmentation(mix=0.5))
    label = torch.tensor([0, 1, 0, 1])
    batch = CaseBatch(torch.randn(4, 1, 8), None, label)
    sure = nn.functional.one_hot(label, 2).float().clamp(1e-9).log()  # a teacher that says the truth
    scores = torch.randn(4, 2)
    torch.manual_seed(3)
    taught = Distill(task, weight=1.0, temperature=1.0).loss(Says(scores), TaughtBatch(batch, sure, None))
    torch.manual_seed(3)
    _, other, share = task._varied(batch)
    mixed = share * nn.functional.one_hot(label, 2) + (1 - share) * nn.functional.one_hot(label[other], 2)
    expected = entropy(mixed.numpy(), scores.softmax(1).numpy(), axis=1).mean()
    assert float(taught.detach()) == pytest.approx(expected, rel=1e-4)


def test_features_add_the_distance_of_the_projection() -> None:
    task = Forecast(4, line=None)
    settings = {"patch_length": 8, "stride": 4, "width": 6, "feed_forward": 0, "kernel_sizes": (5,), "dropout": 0.0}
    student = Projecting(task.build("convtimenet", settings, n_channels=2, context_length=24), 3).eval()
    batch, features = batch_of(torch.randn(5, 2, 4)), torch.randn(5, 3)
    batch = batch._replace(context=torch.randn(5, 2, 24))
    taught = TaughtBatch(batch, torch.randn(5, 2, 4), features)
    distance = (student.both(batch.context, None)[1] - features).square().mean()
    alone, both = (Distill(task, weight=0.5, features=v).loss(student, taught) for v in (0.0, 2.0))
    torch.testing.assert_close(both, alone + 2 * distance)
    both.backward()
    assert student.projection.weight.grad.abs().max() > 0
    with pytest.raises(SettingsError, match="a Projecting student"):
        Distill(task, features=1.0).loss(student.student, taught)


def test_a_teacher_that_answers_in_another_form_is_told_so() -> None:
    with pytest.raises(ShapeError, match="but the teacher said"):
        Distill(Forecast(2, line=None)).loss(
            Says(torch.zeros(1, 1, 2)), TaughtBatch(batch_of(torch.zeros(1, 1, 2)), torch.zeros(1, 1, 3), None)
        )


# ---- the cache


def squares(index: np.ndarray) -> dict[str, np.ndarray]:
    return {"said": index[:, None] ** 2.0, "features": np.stack([index, -index], axis=1)}


def test_answers_on_disk_are_those_in_memory_and_the_teacher_is_asked_once(tmp_path) -> None:
    asked: list[int] = []

    def ask(index: np.ndarray) -> dict[str, np.ndarray]:
        asked.extend(index.tolist())
        return squares(index)

    key = {"teacher": "a", "data": "b"}
    memory = AnswerCache(None, key).arrays(10, ask, block=3)
    for _ in range(2):
        disk = AnswerCache(tmp_path, key).arrays(10, ask, block=4)
        for name in ("said", "features"):
            np.testing.assert_array_equal(disk[name], memory[name])
            assert isinstance(disk[name], np.memmap)
    assert asked == [*range(10), *range(10)]  # once in memory, once for the disk
    AnswerCache(tmp_path, {**key, "teacher": "c"}).arrays(10, ask)
    assert len(asked) == 30


def test_a_killed_teacher_goes_on_where_it_stopped(tmp_path) -> None:
    asked: list[int] = []

    def ask(index: np.ndarray) -> dict[str, np.ndarray]:
        if len(asked) == 6:
            asked.append(-1)
            raise KeyboardInterrupt
        asked.extend(index.tolist())
        return squares(index)

    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        AnswerCache(tmp_path, {}).arrays(10, ask, block=3, told=lambda n, _: done.append(n))
    found = AnswerCache(tmp_path, {}).arrays(10, ask, block=3, told=lambda n, _: done.append(n))
    assert asked == [*range(6), -1, *range(6, 10)]
    assert done == [3, 6, 9, 10]
    np.testing.assert_array_equal(found["said"], squares(np.arange(10))["said"])


def test_a_cache_of_something_else_or_a_damaged_one_is_refused(tmp_path) -> None:
    AnswerCache(tmp_path, {}).arrays(4, squares)
    with pytest.raises(SavedModelError, match="other answers"):
        AnswerCache(tmp_path, {}).arrays(5, squares)
    next(tmp_path.glob("*/note.json")).write_text("{")
    with pytest.raises(SavedModelError, match="is damaged"):
        AnswerCache(tmp_path, {}).arrays(4, squares)


def test_every_window_meets_its_own_answer_for_its_own_channels(plant) -> None:
    windows = Windows(Collection.of(plant), 8, 2, stride=7)
    said = np.arange(len(windows))[:, None, None] * 10.0 + np.arange(7)[None, :, None] + np.zeros((1, 1, 2))
    taught = Taught(windows, said)
    index = np.array([3, 0, 5])
    batch = taught.batch(index, slice(2, 4))
    np.testing.assert_array_equal(batch.said[..., 0].numpy(), [[32, 33], [2, 3], [52, 53]])
    torch.testing.assert_close(batch.batch.context, windows.batch(index, slice(2, 4)).context)
    with pytest.raises(ShapeError, match="an answer of the teacher each"):
        Taught(windows, said[:-1])
    cases = labeled_motions().train
    rows = np.array([4, 4, 1])
    again = Taught(Cases(cases, scaler=StandardScaler.identity(3), index=rows), np.arange(60.0)[:, None], rows=rows)
    assert again.batch(np.array([2, 0])).said[:, 0].tolist() == [1.0, 4.0]


# ---- what teachers say


def test_a_forecaster_says_as_a_teacher_what_it_says_in_a_backtest(teacher, plant) -> None:
    values = plant.values.copy()
    values[2, 100:140] = np.nan
    data = Collection.of(prismts.Series(values, plant.channels, plant.timestamps))
    scaler = StandardScaler.fit(data)
    windows = Windows(data, teacher.context_length, 12, scaler=scaler, end=300)
    asked = _WindowTeacher(teacher, windows, [0.1, 0.9], None)
    said = asked.ask(np.arange(len(windows)))  # [n, 2, C, 12] in the student's scale
    known = teacher.backtest(data, end=304, keep_forecasts=True)  # [n, 3, C, 16] in the data's own units
    expected = (known.forecasts[:, [0, 2], :, :12] - scaler.mean[:, None, :, None]) / scaler.scale[:, None, :, None]
    np.testing.assert_allclose(said, expected, rtol=1e-3, atol=1e-3)


def test_a_teacher_of_a_longer_past_is_asked_for_every_window_and_reads_channels_by_name(teacher, plant) -> None:
    turned = prismts.Series(plant.values[::-1].copy(), plant.channels[::-1], plant.timestamps)
    for series in (plant, turned):
        windows = Windows(Collection.of(series), 20, 16, end=200)
        said = _WindowTeacher(teacher, windows, None, None).ask(np.arange(len(windows)))
        assert said.shape == (len(windows), 7, 16)
        assert np.isfinite(said).all()
    whole = Windows(Collection.of(plant), 20, 16, end=200)
    straight = _WindowTeacher(teacher, whole, None, None).ask(np.array([50]))
    np.testing.assert_allclose(said[50][::-1], straight[0], rtol=1e-4, atol=1e-4)


def test_a_foreign_teacher_is_given_its_own_length_of_past_in_the_datas_units(plant) -> None:
    windows = Windows(Collection.of(plant), 20, 3, scaler=StandardScaler.fit(Collection.of(plant)))
    foreign = LastPlusOne()
    assert isinstance(foreign, Teacher)
    said = _WindowTeacher(foreign, windows, None, None).ask(np.array([0, 9]))
    expected = (plant.values[:, [19, 28]].T + 1 - windows.scaler.mean) / windows.scaler.scale
    np.testing.assert_allclose(said[..., 0], expected, rtol=1e-4, atol=1e-5)
    levels = _WindowTeacher(foreign, windows, [0.1, 0.9], None).ask(np.array([0]))
    assert levels.shape == (1, 2, 7, 3)
    assert (levels[:, 0] < levels[:, 1]).all()


# ---- students


def student_of(**settings) -> prismts.Forecaster:
    return prismts.Forecaster(
        context_length=32, horizon=12, model_settings={"width": 8}, fit_settings=SHORT, progress=False, **settings
    )


def test_a_student_learns_what_a_foreign_teacher_says_and_the_teacher_runs_once(plant, tmp_path) -> None:
    foreign = LastPlusOne()
    settings = {"max_epochs": 12, "learning_rate": 3e-2, "schedule": "constant", "batch_size": 64, "patience": 30}
    still = prismts.Series(np.cumsum(np.random.default_rng(0).normal(size=(2, 400)), axis=1).astype(np.float32))

    def fitted(weight: float) -> prismts.Forecaster:
        student = prismts.Forecaster(
            "dlinear", context_length=8, horizon=2, fit_settings=settings, progress=False, n_members=2
        )
        return distill(foreign, student, still, weight=weight, cache=tmp_path, validation=0.0)

    scale = StandardScaler.fit(Collection.of(still)).scale[0]
    context = still.values[:, 200:208]
    taught, alone = (np.asarray(fitted(weight).predict(context)) for weight in (1.0, 0.0))
    said = context[:, -1:] + 1  # what the teacher would say
    assert np.abs((taught - said) / scale[:, None]).max() < 0.1
    assert np.abs(taught - said).mean() < 0.7 * np.abs(alone - said).mean()
    assert foreign.asked == 391  # two members and two calls, but every window once


@pytest.mark.slow
def test_students_of_forecasters_and_of_several_learn_save_and_answer(teacher, plant, tmp_path) -> None:
    other = copy.deepcopy(teacher)
    student = distill([teacher, other], student_of(quantiles=(0.1, 0.9)), plant, cache=tmp_path / "said")
    assert [path.name for path in (tmp_path / "said").glob("*/*.npy")] == ["said.npy"]
    student.save(tmp_path / "m")
    again = prismts.load(tmp_path / "m")
    assert again.predict().equals(student.predict())
    assert measured(student, plant, begin=500).n_parameters < measured(teacher, plant, begin=500).n_parameters / 2


@pytest.mark.slow
def test_several_equal_teachers_say_what_one_of_them_says(teacher, plant) -> None:
    one = distill(teacher, student_of(), plant)
    two = distill([teacher, teacher], student_of(), plant)
    np.testing.assert_allclose(one.predict().iloc[:, 1:], two.predict().iloc[:, 1:], rtol=1e-4, atol=1e-4)


def test_a_student_with_features_is_the_student_alone_afterwards(teacher, plant) -> None:
    student = distill(teacher, student_of(), plant, features=0.1)
    plain = student_of().fit(plant)
    assert list(student.model_.state_dict()) == list(plain.model_.state_dict())
    ours, theirs = student.members_[0].blocks[0].conv.long.weight, plain.members_[0].blocks[0].conv.long.weight
    assert not torch.equal(ours, theirs)


def test_tokens_are_taught_by_members_that_read_as_much_as_each_was_trained_on(plant) -> None:
    teacher = prismts.Forecaster(
        setting="two_contexts", line="ridge", context_length=350, horizon=12, fit_settings=SHORT, progress=False,
        model_settings={"width": 8, "kernel_sizes": (3,)},
    ).fit(plant)  # fmt: skip
    student = distill(teacher, student_of(), plant, features=0.1)
    assert np.isfinite(student.predict(plant.values)).all()
    proposed = smaller(teacher, share=0.5)  # one network, with no line
    assert (proposed.setting, proposed.line, proposed.n_members) == ("published", None, 1)


def test_without_weight_a_student_is_the_student_alone(teacher, plant) -> None:
    taught, alone = distill(teacher, student_of(), plant, weight=0.0), student_of().fit(plant)
    np.testing.assert_allclose(taught.predict().iloc[:, 1:], alone.predict().iloc[:, 1:], rtol=1e-6)


def test_a_classifier_teaches_by_name_of_the_class(tmp_path) -> None:
    cases = labeled_motions().train
    settings = {"setting": "network", "validation": 2, "progress": False}
    teacher = prismts.Classifier(fit_settings=SHORT, **settings).fit(cases)
    student = prismts.Classifier(model_settings={"width": 16}, fit_settings=SHORT, **settings)
    distill(teacher, student, cases, features=0.1, cache=tmp_path)
    assert student.predict_proba(cases).shape == (len(cases), 3)
    said = np.load(next(tmp_path.glob("*/said.npy")))
    np.testing.assert_allclose(said, teacher.predict_proba(cases), atol=1e-5)
    few = Collection(cases.values, cases.offsets, cases.names, cases.channels, labels=np.array(["x", "y"] * 30))
    with pytest.raises(DataError, match="tell other classes apart"):
        distill(teacher, student, few)


def test_who_cannot_teach_is_told_why(teacher, plant) -> None:
    with pytest.raises(SettingsError, match="fewer than the student's 20"):
        distill(teacher, prismts.Forecaster(context_length=32, horizon=20, progress=False), plant)
    with pytest.raises(SettingsError, match="does not know: it gives the levels"):
        distill(teacher, student_of(quantiles=(0.25,)), plant)
    with pytest.raises(SettingsError, match="taught by its like"):
        distill(teacher, prismts.Classifier(), labeled_motions().train)
    with pytest.raises(SettingsError, match="teach itself"):
        distill(teacher, teacher, plant)
    with pytest.raises(SettingsError, match="has levels, fingerprint and predict"):
        distill(object(), student_of(), plant)
    with pytest.raises(SettingsError, match="Forecasters and classifiers are taught"):
        distill(teacher, prismts.Imputer(), plant)
    with pytest.raises(SettingsError, match="share of the loss"):
        distill(teacher, student_of(), plant, weight=1.5)
    with pytest.raises(SettingsError, match="no teacher"):
        _teachers([], student_of())
    fewer = prismts.Series(plant.values[:3], plant.channels[:3], plant.timestamps)
    with pytest.raises(DataError, match="see other channels"):
        distill(teacher, student_of(), fewer)
