"""One trial of a search: asked for, watched while it trains, and written down, wherever it is computed."""

from __future__ import annotations

import math
import socket
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prismts.analysis.shape import macs_of
from prismts.benchmark.search_space import Candidate, candidate, candidate_of, first_points
from prismts.benchmark.search_spec import SearchSpec
from prismts.benchmark.search_study import OTHER_NAME, counted, import_optuna, sampler, todo
from prismts.benchmark.search_trial import Ground, Judged, latency
from prismts.errors import PrismError, SettingsError

if TYPE_CHECKING:
    from optuna import Study, Trial

__all__ = ["FAILURES", "Tell", "Told", "Watch", "ask", "begin", "drawn", "told_of", "write_down"]

# what ends one trial as failed; any other error ends the search
FAILURES = (PrismError, ArithmeticError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Told:
    """What became of a trial, and how the search stands."""

    number: int
    outcome: str  # "complete", "pruned", "failed" or "lost"
    value: float | None  # the score on validation
    told: str  # the error, where there is one
    best: float | None
    n_done: int


Tell = Callable[[Told], None]


def begin(study: Study, spec: SearchSpec, data: Ground) -> None:
    """Note the data of a new search, or compare them, and queue what is known as its first trials.

    These are the points of the space nearest to the rule's proposal and to the recipe's own network.

    Raises:
        SettingsError: the data changed since the search began.
    """
    before = study.user_attrs.get("data_hash")
    if before is None:
        study.set_user_attr("data_hash", data.data_hash)
        study.set_user_attr("period", data.place.period)
    elif before != data.data_hash:
        raise SettingsError(
            "The data changed since this search began, so its scores cannot be compared with new ones. Give it another "
            f"folder (--out){OTHER_NAME}."
        )
    if "begun" in study.user_attrs:
        return
    macs = spec.budget.macs if spec.budget is not None else None
    for name, (point, model) in first_points(spec.space, data.place, macs).items():
        study.enqueue_trial(point, user_attrs={"from": name, "begins_as": model}, skip_if_exists=True)
    study.set_user_attr("begun", True)


def ask(study: Study, spec: SearchSpec, worker: str, *, salt: str = "") -> Trial | None:
    """The next trial, noted as that of a worker; None where none is missing.

    What is drawn follows from the number of the trial and the salt: without one a search that was broken draws what an
    unbroken one draws; those who ask at the same time have each their own, or they would draw the same.
    """
    if not (missing := todo(study, spec)):
        return None
    study.sampler = sampler(spec, f"{salt}{missing[0]}")
    trial = study.ask()
    trial.set_user_attr("worker", worker)
    trial.set_user_attr("host", socket.gethostname())
    return trial


def drawn(spec: SearchSpec, trial: Trial, data: Ground) -> Candidate:
    """Draw the values of a trial: what they mean, which is written into it."""
    optuna = import_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        values = {name: one.suggest(trial, name) for name, one in spec.space.items()}
    budget = spec.budget
    measured = budget is not None and budget.milliseconds is not None

    def price(settings: Mapping[str, Any]) -> float:
        return latency(settings, data.place.site) if measured else float(macs_of(settings, data.place.site))

    known: Mapping[str, Any] | None = trial.user_attrs.get("begins_as")
    cost = None if known is None or budget is None else price(known)
    if known is not None and (budget is None or (cost is not None and cost <= budget.most)):
        one = candidate_of(known, values, data.place, cost)
    else:
        one = candidate(
            values, data.place, budget=None if budget is None else budget.most, cost=price,
            unit="" if budget is None else budget.unit,
        )  # fmt: skip
    model = {name: list(value) if isinstance(value, tuple) else value for name, value in one.model.items()}
    for name, told in (
        ("model", model), ("fit", dict(one.fit)), ("macs", one.macs), ("n_tokens", one.n_tokens),
        ("taps", list(one.taps)), ("cost", one.cost), ("arguments", data.arguments(one)),
    ):  # fmt: skip
        trial.set_user_attr(name, told)
    return one


def write_down(study: Study, spec: SearchSpec, trial: Trial, outcome: Judged | str | None) -> Told:
    """End a trial with what it scored, with the error that its training ended with, or, given None, as pruned."""
    states, value = import_optuna().trial.TrialState, None
    if isinstance(outcome, Judged) and not math.isfinite(float(outcome.scores[spec.score])):
        outcome = f"SettingsError: The {spec.score} on validation is no number."
    if isinstance(outcome, Judged):
        state, value = states.COMPLETE, float(outcome.scores[spec.score])
        trial.set_user_attr("scores", {name: float(score) for name, score in outcome.scores.items()})
        trial.set_user_attr("n_scored", outcome.n_scored)
        trial.set_user_attr("counted", outcome.counted)
        trial.set_user_attr("seconds", outcome.seconds)
        trial.set_user_attr("best_epoch", outcome.best_epoch)
    elif outcome is None:
        state = states.PRUNED
    else:
        state = states.FAIL
        trial.set_user_attr("error", outcome)
    study.tell(trial.number, value, state=state)
    return told_of(study, spec, trial.number)


def told_of(study: Study, spec: SearchSpec, number: int) -> Told:
    """What became of a trial that has ended, and how the search stands."""
    one = study.get_trials(deepcopy=False)[number]
    outcome = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(one.state.name, "failed")
    outcome = "lost" if one.user_attrs.get("lost") else outcome
    value = one.value if one.state.name == "COMPLETE" else None
    done = [trial for trial in counted(study) if trial.state.is_finished()]
    values = [trial.value for trial in done if trial.state.name == "COMPLETE" and trial.value is not None]
    best = None if not values else min(values) if spec.direction == "minimize" else max(values)
    return Told(number, outcome, value, str(one.user_attrs.get("error", "")), best, len(done))


class Watch:
    """Report the validation loss after every epoch, and end a trial that is worse than the median of those before it.

    A trial may train several networks (folds, members). What is reported is the mean, over those begun so far, of the
    lowest loss of each, so that trials are compared at the same place of the same sequence. A trial that was lost and
    put back brings what had been reported of it, and goes on from there, if its training ``resumes`` from checkpoints.
    """

    def __init__(self, trial: Trial, spec: SearchSpec, *, resumes: bool = True) -> None:
        self.trial, self.resumes = trial, resumes
        self.sign, self.prune = -1.0 if spec.direction == "maximize" else 1.0, spec.prune != "none"
        self.lowest: list[float] = []
        self.last_epoch, self.epochs_before = 0, 0  # of this network; of those before it
        if resumes and (known := trial.user_attrs.get("watched")):
            self.lowest, self.last_epoch, self.epochs_before = list(known["lowest"]), *known["epochs"]
            for step, value in known["curve"]:
                trial.report(value, step)

    def __call__(self, entry: Mapping[str, float]) -> None:
        """Report an epoch as a training tells it; raise Optuna's TrialPruned where the trial need not go on."""
        loss = entry.get("val_loss")
        if loss is None:
            return
        epoch = int(entry["epoch"])
        if not self.lowest or epoch == 1:  # one that was resumed begins later than with its first
            self.epochs_before += self.last_epoch
            self.lowest.append(math.inf)
        self.last_epoch = epoch
        self.lowest[-1] = min(self.lowest[-1], loss)
        self.trial.report(self.sign * sum(self.lowest) / len(self.lowest), self.epochs_before + epoch)
        if self.resumes:
            self.trial.set_user_attr("progress", {"lowest": self.lowest, "epochs": [epoch, self.epochs_before]})
        self.trial.set_user_attr("sign_of_life", time.time())
        if self.prune and self.trial.should_prune():
            raise import_optuna().TrialPruned
