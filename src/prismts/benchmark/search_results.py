"""What a search found: trials in order, the best of them as a file of settings, the front of score against cost.

``best.yaml`` holds ``arguments``, exactly those of the estimator::

    import yaml
    from prismts import Forecaster
    Forecaster(**yaml.safe_load(open("best.yaml"))["arguments"]).fit(table)

and ``found``, which says on what data, by which score and after how many trials they were chosen, and whether the test
part was read.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismts.analysis.shape import TapUse
from prismts.benchmark.lines import read_lined
from prismts.benchmark.search_space import Candidate
from prismts.benchmark.search_spec import SearchSpec
from prismts.benchmark.search_study import count_trials, open_study, shown, storage_url
from prismts.benchmark.search_trial import ground
from prismts.errors import SettingsError
from prismts.writing import write_whole

if TYPE_CHECKING:
    from optuna import Study

    from prismts.estimators.classifier import Classifier
    from prismts.estimators.forecaster import Forecaster

__all__ = ["Found", "TrialResult", "estimator_of", "importances", "pareto", "read_found", "test_best", "write_best"]


@dataclass(frozen=True)
class TrialResult:
    """One trial, as it was written."""

    number: int
    state: str  # "complete", "pruned", "failed" or "running"
    value: float | None  # the score on validation
    values: Mapping[str, Any]  # by dimension, as a reader would write them
    curve: Mapping[int, float]  # validation loss by epoch, over all networks of the trial
    macs: int | None
    n_tokens: int | None
    taps: TapUse | None
    cost: float | None  # in the unit of the budget
    seconds: float | None
    scores: Mapping[str, float]
    arguments: Mapping[str, Any]
    is_rule: bool = False  # the first one: the rule's proposal
    error: str = ""
    attempt: int = 1


@dataclass(frozen=True)
class Found:
    """A search so far."""

    spec: SearchSpec
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    counts: Mapping[str, int]
    period: int | None  # steps
    tests: tuple[Mapping[str, Any], ...]  # every reading of the test part

    @property
    def complete(self) -> tuple[TrialResult, ...]:
        """Trials with a score."""
        return tuple(trial for trial in self.trials if trial.value is not None)


def read_found(spec: SearchSpec, folder: str | Path) -> Found:
    """What a folder, or the storage of the specification, holds."""
    study = open_study(spec, folder, create=False)
    sign = -1.0 if spec.direction == "maximize" else 1.0  # curves are kept so that Optuna can compare them
    trials: list[TrialResult] = []
    for one in study.get_trials(deepcopy=False):
        kept = one.user_attrs
        if one.state.name == "WAITING" or kept.get("lost"):
            continue
        state = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "running"}.get(one.state.name, "failed")
        values = {name: json.loads(value) if isinstance(value, str) else value for name, value in one.params.items()}
        trials.append(TrialResult(
            number=one.number, state=state, value=one.value if state == "complete" else None, values=values,
            curve={step: sign * value for step, value in sorted(one.intermediate_values.items())},
            macs=kept.get("macs"), n_tokens=kept.get("n_tokens"),
            taps=TapUse(*kept["taps"]) if "taps" in kept else None, cost=kept.get("cost"),
            seconds=kept.get("seconds"), scores=kept.get("scores", {}), arguments=kept.get("arguments", {}),
            is_rule=kept.get("from") == "rule", error=str(kept.get("error", "")), attempt=int(kept.get("attempt", 1)),
        ))  # fmt: skip
    done = [trial for trial in trials if trial.value is not None]
    best = min(done, key=lambda trial: sign * (trial.value or 0.0), default=None)  # the earliest of equals
    return Found(
        spec, tuple(trials), best, count_trials(study), study.user_attrs.get("period"),
        tuple(study.user_attrs.get("tests", ())),
    )  # fmt: skip


def importances(spec: SearchSpec, folder: str | Path) -> dict[str, float]:
    """The share of each dimension in what makes trials good, largest first; empty with fewer than four scored
    trials, or if all scores are equal.

    Source: PED-ANOVA (Watanabe et al., IJCAI 2023), Optuna's own evaluator. With few trials it is a hint, no more.
    """
    import optuna

    study = open_study(spec, folder, create=False)
    scores = [one.value for one in study.get_trials(deepcopy=False) if one.state.name == "COMPLETE"]
    if len(scores) < 4 or len(set(scores)) == 1:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError):  # all scores are equal, or a dimension never varied
        return {}
    known = {name: float(share) for name, share in found.items() if math.isfinite(share)}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def pareto(found: Found) -> tuple[TrialResult, ...]:
    """Trials that no other one beats in both score and multiply-accumulates, cheapest first."""
    sign = -1.0 if found.spec.direction == "maximize" else 1.0
    front: list[TrialResult] = []
    for trial in sorted(found.complete, key=lambda one: (one.macs or 0, sign * (one.value or 0.0))):
        if not front or sign * (trial.value or 0.0) < sign * (front[-1].value or 0.0):
            front.append(trial)
    return tuple(front)


def test_best(spec: SearchSpec, folder: str | Path) -> Mapping[str, Any]:
    """Train the best trial once more and score the test part: read once for it, and kept with the study.

    Asked again for the same trial, the answer is the one that was kept. Reading it for another trial, after the search
    went on, is allowed and counted: the numbers are then no longer those of a part that was read once.
    """
    study = open_study(spec, folder, create=False)
    found = read_found(spec, folder)
    if found.best is None:
        raise SettingsError("No trial has a score yet, so there is nothing to test. Run the search first.")
    for before in found.tests:
        if before["trial"] == found.best.number:
            return before
    judged = ground(spec).test(_candidate_of(study, found.best))
    reading = {
        "trial": found.best.number, "validation": found.best.value, "scores": dict(judged.scores),
        "n_scored": judged.n_scored, "counted": judged.counted, "trials_before": len(found.complete),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    study.set_user_attr("tests", [*found.tests, reading])
    return reading


def write_best(path: str | Path, found: Found, *, folder: str | Path) -> Path:
    """Write the best settings as YAML, atomically: see the top of this file."""
    import yaml

    if found.best is None:
        raise SettingsError("No trial has a score yet, so there are no best settings. Run the search first.")
    spec, best = found.spec, found.best
    told: dict[str, Any] = {
        "data": spec.data, "trial": best.number, "trials": {k: v for k, v in found.counts.items() if v},
        "chosen_by": f"{spec.score} on validation ({spec.direction}d)", "validation": best.value,
        "macs_per_window": best.macs, "n_tokens": best.n_tokens,
        "taps_used": None if best.taps is None else str(best.taps), "seconds": best.seconds,
        "storage": shown(storage_url(spec, folder)), "test": _test_told(found),
    }  # fmt: skip
    if spec.budget is not None:
        told["budget"] = f"{spec.budget.most:g} {spec.budget.unit}, {best.cost:g} spent"
    columns = {name: getattr(spec, name) for name in ("time", "series", "values", "label")} if spec.is_file else {}
    if spec.task == "forecast":
        columns.pop("label", None)
    if columns.get("values") is not None and not isinstance(columns["values"], str):
        columns["values"] = list(columns["values"])
    known = {**best.arguments, **columns}
    content = {
        "estimator": "Forecaster" if spec.task == "forecast" else "Classifier",
        "arguments": {name: value for name, value in known.items() if value is not None},
        "found": told,
    }
    path = Path(path)
    head = "# The best settings of a search. In Python: estimator_of(path), or the estimator with these arguments.\n"
    write_whole(path, head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))
    return path


def estimator_of(path: str | Path, **changes: Any) -> Forecaster | Classifier:
    """The unfitted estimator that a file of best settings describes, with some arguments replaced."""
    from prismts.estimators.classifier import Classifier
    from prismts.estimators.forecaster import Forecaster

    content = read_lined(path, "that a search wrote, best.yaml").content
    kinds: dict[str, Any] = {"Forecaster": Forecaster, "Classifier": Classifier}
    if not isinstance(content, Mapping) or content.get("estimator") not in kinds or "arguments" not in content:
        raise SettingsError(f"{path} holds no settings of a search: it needs the entries estimator and arguments.")
    return kinds[content["estimator"]](**{**content["arguments"], **changes})


def _test_told(found: Found) -> Any:
    if not found.tests:
        return "not read"
    kept: list[Mapping[str, Any]] = [dict(one) for one in found.tests]
    own = next((one for one in kept if found.best is not None and one["trial"] == found.best.number), None)
    if own is not None and len(kept) == 1:
        return {"read": "once, after the search", **own}
    note = f"read {len(kept)} times in this study: no longer the score of a part that was read once"
    return {"read": note if len(kept) > 1 else "once, for an earlier best trial", "readings": kept}


def _candidate_of(study: Study, trial: TrialResult) -> Candidate:
    kept = next(one for one in study.get_trials(deepcopy=False) if one.number == trial.number).user_attrs
    model = {name: _tuple(value) for name, value in kept["model"].items()}
    assert trial.n_tokens is not None and trial.macs is not None and trial.taps is not None
    return Candidate(
        model=model, fit=kept["fit"], n_tokens=trial.n_tokens, macs=trial.macs, taps=trial.taps, cost=trial.cost
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
