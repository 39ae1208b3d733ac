"""Training: resumed runs, several processes, best epochs, schedules, and checkpoints that hold no code."""

import itertools
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prismts.data.scaling import StandardScaler
from prismts.data.series import Collection
from prismts.data.synthetic import sine_mixture
from prismts.errors import SavedModelError, SettingsError
from prismts.tasks.forecast import Forecast
from prismts.training.batches import Batches
from prismts.training.checkpoint import read_tree, write_tree
from prismts.training.fit import FitConfig, TrainingDiverged, fit
from prismts.training.schedules import make_schedule
from prismts.windows import Windows

HERE = str(Path(__file__).parent)
SMALL = {"patch_length": 8, "stride": 4, "width": 8, "feed_forward": 16, "kernel_sizes": (3, 5), "dropout": 0.2}


def windows(n: int = 400, context_length: int = 32, horizon: int = 8) -> tuple[Windows, Windows]:
    data = Collection.of(sine_mixture(n, seed=0))
    scaler = StandardScaler.fit(data)
    cut = int(0.8 * n)
    return (
        Windows(data, context_length, horizon, scaler=scaler, end=cut),
        Windows(data, context_length, horizon, scaler=scaler, begin=cut),
    )


def small_model(task: Forecast, n_channels: int, context_length: int = 32, **settings) -> nn.Module:
    torch.manual_seed(0)
    return task.build("convtimenet", {**SMALL, **settings}, n_channels=n_channels, context_length=context_length)


RUN = textwrap.dedent(
    """
    import sys, time
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import torch
    from test_training import windows, small_model
    from prismts.tasks.forecast import Forecast
    from prismts.training.fit import FitConfig, fit
    from prismts.training.checkpoint import write_tree

    torch.set_num_threads(1)
    folder, out, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])

    class Slow(Forecast):
        def losses(self, model, batch):
            time.sleep(pause)
            return super().losses(model, batch)

    train, check = windows()
    task = Slow(8, line=None)
    model = small_model(task, train.n_channels)
    result = fit(model, task, train, check, config=FitConfig(max_epochs=5, batch_size=32, schedule="one_cycle"),
                 seed=3, folder=folder, progress=False)
    write_tree({{"weights": model.state_dict(), "resumed": result.resumed_from, "best": result.best_epoch,
                "losses": [[h["epoch"], h["train_loss"], h["val_loss"]] for h in result.history]}}, Path(out))
    """
)


@pytest.mark.long
def test_a_run_killed_with_sigkill_resumes_and_reaches_the_result_of_the_unbroken_run_bit_for_bit(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN.format(tests=HERE))

    def start(folder, out, pause):
        return subprocess.Popen([sys.executable, str(script), str(tmp_path / folder), str(tmp_path / out), str(pause)])

    whole = start("whole", "whole.safetensors", 0)
    broken = start("broken", "broken.safetensors", 0.05)
    last = tmp_path / "broken" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not (last.exists() and read_tree(last)["epoch"] >= 1):  # two epochs are finished, the third is under way
        assert broken.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    assert not (tmp_path / "broken.safetensors").exists()
    again = start("broken", "broken.safetensors", 0)
    assert again.wait(120) == 0 and whole.wait(120) == 0

    one, two = read_tree(tmp_path / "whole.safetensors"), read_tree(tmp_path / "broken.safetensors")
    assert one["resumed"] is None and two["resumed"] >= 2
    assert one["best"] == two["best"] and one["losses"] == two["losses"]
    for name, value in one["weights"].items():
        assert torch.equal(value, two["weights"][name]), name


WORSE = itertools.count(1.0)


def never_better(folder: Path, max_epochs: int = 6, patience: int = 2):
    """A run whose validation gets worse from the first epoch on."""

    class Worse(Forecast):
        def errors(self, model, batch):
            return torch.tensor(next(WORSE)), torch.tensor(1)

    train, check = windows(200)
    task = Worse(8, line=None)
    config = FitConfig(max_epochs=max_epochs, patience=patience, batch_size=128)
    return fit(small_model(task, train.n_channels), task, train, check, config=config, folder=folder, progress=False)


def test_a_checkpoint_is_written_after_every_epoch_also_where_it_was_not_the_best(tmp_path):
    result = never_better(tmp_path, max_epochs=3, patience=9)
    assert result.best_epoch == 1 and len(result.history) == 3
    assert read_tree(tmp_path / "last.safetensors")["epoch"] == 2


def test_a_run_whose_folder_was_moved_goes_on_with_the_best_epoch_it_had(tmp_path):
    from prismts.training.watch import watching

    class Enough(Exception):
        pass

    def stop(entry):
        if entry["epoch"] == 3:
            raise Enough

    with pytest.raises(Enough), watching(stop):
        never_better(tmp_path / "here", max_epochs=4, patience=9)
    (tmp_path / "here").rename(tmp_path / "there")
    result = never_better(tmp_path / "there", max_epochs=4, patience=9)
    assert result.resumed_from == 2 and len(result.history) == 4 and result.best_epoch == 1
    assert [path.name for path in (tmp_path / "there").glob("best*")] == ["best-epoch=0.safetensors"]
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    again = never_better(tmp_path / "elsewhere", max_epochs=4, patience=9)
    assert again.best_epoch == 1 and again.history == result.history


def test_a_run_that_patience_has_ended_is_not_trained_on_when_it_is_called_again(tmp_path):
    first = never_better(tmp_path)
    again = never_better(tmp_path)
    assert len(first.history) == 3 and again.history == first.history
    assert again.resumed_from == 3 and again.best_epoch == first.best_epoch == 1
    assert again.best_loss == first.best_loss


def test_a_refused_folder_says_what_differs_unless_its_note_is_of_before_there_were_parts(tmp_path):
    train, check = windows(200)
    task = Forecast(8, line=None)

    def run(n_epochs: int, **more):
        model = small_model(task, train.n_channels)
        config = FitConfig(max_epochs=n_epochs, batch_size=64)
        return fit(model, task, train, check, config=config, folder=tmp_path, progress=False, **more)

    run(1, fingerprint="a", parts={"model": "small", "data": "a" * 64})
    with pytest.raises(
        SavedModelError, match=r"other data \(max_epochs: 1 then, 2 now; seed: 0 then, 1 now; data\)\. D"
    ):
        run(2, fingerprint="b", parts={"model": "small", "data": "b" * 64}, seed=1)
    with pytest.raises(SavedModelError, match=r'other data \(model: "small" then, "large" now\)'):
        run(1, fingerprint="c", parts={"model": "large", "data": "a" * 64})
    note = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint": note["fingerprint"]}))
    with pytest.raises(SavedModelError, match=r"other settings or other data\. Delete"):
        run(2, fingerprint="a")
    assert run(1, fingerprint="a").resumed_from == 1


def test_a_folder_of_another_run_is_refused_instead_of_mixed_up(tmp_path):
    train, check = windows(200)
    task = Forecast(8, line=None)
    config = FitConfig(max_epochs=1, batch_size=64)
    fit(small_model(task, train.n_channels), task, train, check, config=config, folder=tmp_path, progress=False)
    with pytest.raises(SavedModelError, match="other settings or other data"):
        fit(
            small_model(task, train.n_channels),
            task,
            train,
            check,
            config=config,
            seed=1,
            folder=tmp_path,
            progress=False,
        )


DISTRIBUTED = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import torch
    from test_training import windows, small_model
    from prismts.tasks.forecast import Forecast
    from prismts.training.fit import FitConfig, fit
    from prismts.training.checkpoint import write_tree

    if __name__ == "__main__":
        torch.set_num_threads(1)
        train, check = windows()
        task = Forecast(8, line=None)
        model = small_model(task, train.n_channels, dropout=0.0, norm="layer").double()
        train._values, check._values = train._values.double(), check._values.double()
        n = int(sys.argv[2])
        result = fit(model, task, Double(train), Double(check), progress=False, config=FitConfig(
            max_epochs=2, batch_size=32, drop_last=True, accelerator="cpu", devices=n,
            strategy="ddp" if n > 1 else "auto"),
            folder=sys.argv[3])
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            sys.exit()
        write_tree({{"weights": model.state_dict(),
                    "losses": [[h["train_loss"], h["val_loss"]] for h in result.history]}}, Path(sys.argv[1]))
    """
).replace(
    'if __name__ == "__main__":',
    textwrap.dedent(
        """
        class Double:
            def __init__(self, source):
                self.source, self.n_channels = source, source.n_channels
            def __len__(self):
                return len(self.source)
            def batch(self, index, channels=slice(None)):
                batch = self.source.batch(index, channels)
                return batch._replace(context=batch.context.double(), target=batch.target.double())

        if __name__ == "__main__":"""
    ),
)


@pytest.mark.long
def test_two_processes_take_the_same_steps_as_one(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(DISTRIBUTED.format(tests=HERE))
    for n in (1, 2):
        command = [sys.executable, str(script), str(tmp_path / f"{n}.safetensors"), str(n), str(tmp_path / f"run{n}")]
        done = subprocess.run(command, timeout=240, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (read_tree(tmp_path / f"{n}.safetensors") for n in (1, 2))
    np.testing.assert_allclose(np.array(one["losses"]), np.array(two["losses"]), rtol=1e-6)
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, rtol=1e-5, atol=1e-8, msg=name)


def test_the_validation_loss_does_not_depend_on_the_batch_size(tmp_path):
    losses = []
    for batch_size in (7, 64):
        train, check = windows(250)
        task = Forecast(8, line=None)
        model = small_model(task, train.n_channels)
        total = count = 0.0
        model.eval()
        with torch.no_grad():
            for batch in Batches(check, batch_size, whole=True):
                one, n = task.errors(model, batch)
                total, count = total + float(one), count + int(n)
        losses.append(total / count)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_best_epoch_is_kept_and_training_stops_when_validation_stops_improving():
    train, check = windows()

    class Worse(Forecast):
        """Validation improves once and then gets worse by itself."""

        calls = 0

        def errors(self, model, batch):
            total, count = super().errors(model, batch)
            if not model.training:
                Worse.calls += 1
                total = total * 0 + count * abs(Worse.calls - 2)
            return total, count

    task = Worse(8, line=None)
    model = small_model(task, train.n_channels)
    result = fit(model, task, train, check, config=FitConfig(max_epochs=9, patience=2, batch_size=1000), progress=False)
    assert [h["val_loss"] for h in result.history] == [1.0, 0.0, 1.0, 2.0]
    assert result.best_epoch == 2 and result.best_loss == 0.0
    assert not model.training


def test_training_lowers_the_loss_and_bf16_does_too():
    train, check = windows()
    for precision in ("float32", "bf16"):
        task = Forecast(8, line=None)
        model = small_model(task, train.n_channels)
        result = fit(
            model, task, train, check, progress=False,
            config=FitConfig(max_epochs=4, batch_size=32, learning_rate=3e-3, precision=precision),
        )  # fmt: skip
        losses = [h["train_loss"] for h in result.history]
        assert losses[-1] < 0.8 * losses[0], precision


def test_a_loss_that_is_no_number_is_an_error_with_advice():
    train, check = windows(200)

    class Broken(Forecast):
        def loss(self, model, batch):
            return super().loss(model, batch) * float("nan")

    task = Broken(8, line=None)
    with pytest.raises(TrainingDiverged, match=r"Lower learning_rate.*The offsets of the patches are no numbers"):
        fit(small_model(task, train.n_channels), task, train, check, config=FitConfig(max_epochs=1), progress=False)


def test_training_leaves_the_random_state_of_the_caller_alone():
    train, check = windows(200)
    task = Forecast(8, line=None)
    model = small_model(task, train.n_channels)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(model, task, train, check, config=FitConfig(max_epochs=1, batch_size=64), progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_averaged_weights_are_what_is_kept():
    train, check = windows()
    results = {}
    for averaging in (None, 0.9):
        task = Forecast(8, line=None)
        model = small_model(task, train.n_channels)
        fit(
            model, task, train, check, progress=False,
            config=FitConfig(max_epochs=2, batch_size=32, averaging=averaging, learning_rate=3e-3),
        )  # fmt: skip
        results[averaging] = {name: value.clone() for name, value in model.state_dict().items()}
    assert not torch.equal(results[None]["embed.weight"], results[0.9]["embed.weight"])


# ---- batches


class Numbers:
    """Items that are their own numbers."""

    n_channels = 10

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def batch(self, index, channels=slice(None)):
        return [(int(i), c) for i in index for c in range(self.n_channels)[channels]]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("channels", [None, 4, 10])
def test_an_epoch_meets_every_window_and_channel_once_over_all_processes(world, channels):
    seen = []
    lengths = set()
    for rank in range(world):
        batches = Batches(Numbers(23), 6, seed=1, channels_at_once=channels, rank=rank, world=world)
        parts = list(batches)
        assert len(parts) == len(batches)
        lengths.add(len(parts))
        seen += [item for part in parts for item in part]
    assert len(lengths) == 1  # all processes make the same number of steps
    assert sorted(seen) == [(i, c) for i in range(23) for c in range(10)]


def test_a_last_batch_too_small_to_share_out_is_left_out_of_training_with_several_processes():
    parts = [list(Batches(Numbers(19), 6, rank=rank, world=3)) for rank in range(3)]
    assert [[len(batch) // 10 for batch in part] for part in parts] == [[2, 2, 2]] * 3
    assert sum(len(b) // 10 for r in range(3) for b in Batches(Numbers(19), 6, rank=r, world=3, whole=True)) == 19


def test_in_validation_every_batch_goes_to_one_process():
    parts = [list(Batches(Numbers(23), 6, rank=rank, world=2, whole=True)) for rank in range(2)]
    assert [len(p) for p in parts] == [2, 2]
    assert sorted({i for part in parts for batch in part for i, _ in batch}) == list(range(23))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(**kwargs):
        return [item for batch in Batches(Numbers(50), 8, **kwargs) for item in batch]

    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert order(seed=1, epoch=2) != order(seed=1, epoch=3)
    assert order(seed=1, epoch=2) != order(seed=2, epoch=2)
    assert order() == sorted(order())


def test_few_data_get_more_epochs_until_the_least_number_of_steps_is_made():
    train, check = windows()  # 281 windows
    task = Forecast(8, line=None)
    for min_steps, n_epochs in ((0, 1), (20, 3)):  # nine batches of 32 an epoch
        config = FitConfig(max_epochs=1, min_steps=min_steps, patience=9, batch_size=32)
        result = fit(small_model(task, train.n_channels), task, train, check, config=config, progress=False)
        assert len(result.history) == n_epochs


def test_the_last_partial_batch_is_left_out_only_on_request():
    assert [len(b) // 10 for b in Batches(Numbers(23), 6)] == [6, 6, 6, 5]
    assert [len(b) // 10 for b in Batches(Numbers(23), 6, drop_last=True)] == [6, 6, 6]
    assert [len(b) // 10 for b in Batches(Numbers(3), 6, drop_last=True)] == [3]  # never nothing at all


# ---- schedules and settings


def test_the_papers_schedule_is_that_of_its_code_constant_for_four_epochs_and_then_falling_by_a_tenth_each():
    rate = make_schedule("paper", steps_per_epoch=10, max_epochs=6)
    assert [round(rate(step), 4) for step in (0, 19, 39, 40, 55)] == [1, 1, 1, 0.9, 0.81]


def test_warm_cosine_rises_for_a_tenth_of_all_steps_and_is_at_half_in_the_middle_of_the_rest():
    rate = make_schedule("warm_cosine", steps_per_epoch=10, max_epochs=10)
    assert [rate(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert rate(55) == pytest.approx(0.5) and rate(100) == pytest.approx(0.0, abs=1e-12)


def test_one_cycle_rises_to_the_top_and_ends_near_nothing():
    rate = make_schedule("one_cycle", steps_per_epoch=10, max_epochs=10)
    assert rate(0) == pytest.approx(0.1) and rate(20) == pytest.approx(1.0) and rate(100) == pytest.approx(0.001)
    assert max(rate(step) for step in range(101)) == pytest.approx(1.0)


def test_wrong_settings_are_refused_in_words():
    with pytest.raises(SettingsError, match="one_cycle"):
        FitConfig(schedule="one_cylce")
    with pytest.raises(SettingsError, match="max_epochs is at least 1"):
        FitConfig(max_epochs=0)
    with pytest.raises(SettingsError, match="learning_rate"):
        FitConfig(learning_rate=-1.0)


# ---- checkpoints


def test_a_tree_of_plain_values_and_tensors_comes_back_as_it_was(tmp_path):
    tree = {"a": [1, 2.5, None, True, "x"], 3: (torch.arange(4), {"b": torch.ones(2, 2).T}), "inf": float("inf")}
    write_tree(tree, tmp_path / "t.safetensors")
    back = read_tree(tmp_path / "t.safetensors")
    assert back["a"] == tree["a"] and back["inf"] == float("inf")
    assert (
        isinstance(back[3], tuple)
        and torch.equal(back[3][0], torch.arange(4))
        and torch.equal(back[3][1]["b"], torch.ones(2, 2))
    )


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tree({"a": 1}, path)
    with pytest.raises(TypeError, match="plain values"):
        write_tree({"a": object()}, path)
    assert read_tree(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(SavedModelError, match="no readable checkpoint"):
        read_tree(path)


def test_nothing_in_the_package_loads_pickles():
    import prismts

    forbidden = ("torch.load(", "torch.save(", "import pickle", "pickle.", "joblib.load", "allow_pickle=True")
    for file in Path(prismts.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not [word for word in forbidden if word in text], file.name


def test_run_notes_are_json(tmp_path):
    train, check = windows(200)
    task = Forecast(8, line=None)
    fit(small_model(task, train.n_channels), task, train, check, config=FitConfig(max_epochs=1), folder=tmp_path,
        progress=False)  # fmt: skip
    assert set(json.loads((tmp_path / "run.json").read_text())) == {"fingerprint", "parts"}
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}


# ---- compiled


def compiled_run(mode: str | None) -> tuple[list[float], nn.Module]:
    train, validation = windows()
    task = Forecast(8)
    model = small_model(task, train.n_channels, dropout=0.0, kernel_sizes=(3,))
    config = FitConfig(max_epochs=2, batch_size=64, accelerator="cpu", compile_mode=mode)
    result = fit(model, task, train, validation, config=config, progress=False)
    return [entry["val_loss"] for entry in result.history], model


@pytest.mark.slow
def test_a_compiled_training_learns_the_same_and_leaves_a_plain_model():
    (expected, _), (got, model) = compiled_run(None), compiled_run("default")
    np.testing.assert_allclose(got, expected, rtol=1e-3)
    assert "_compiled_call_impl" not in vars(model)


def test_compiling_without_a_compiler_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SettingsError, match=r"needs a C\+\+ compiler"):
        compiled_run("default")


def test_an_unknown_way_to_compile_offers_its_neighbor():
    with pytest.raises(SettingsError, match="Did you mean 'reduce-overhead'"):
        FitConfig(compile_mode="reduce_overhead")


def test_how_a_run_is_compiled_does_not_part_it_from_its_folder(tmp_path, monkeypatch):
    train, validation = windows()
    task = Forecast(8)
    for mode in (None, "default"):
        monkeypatch.setattr(nn.Module, "compile", lambda self, **how: setattr(self, "_compiled_call_impl", None))
        config = FitConfig(max_epochs=1, batch_size=64, accelerator="cpu", compile_mode=mode)
        model = small_model(task, train.n_channels)
        result = fit(model, task, train, validation, config=config, folder=tmp_path / "run", progress=False)
    assert result.resumed_from == 1
