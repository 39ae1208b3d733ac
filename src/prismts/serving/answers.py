"""What goes out: the answer to a request as the kind of table its Accept header asks for."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from prismts.data.series import Collection
from prismts.data.tables import TableKind, to_table
from prismts.estimators.answer import check_finite, forecast_table, free_name
from prismts.evaluation.thresholds import Event, events
from prismts.serving.bodies import Given
from prismts.serving.refusals import Refused
from prismts.serving.served import Facts, Verdict

__all__ = ["ANSWER_FORMATS", "Answer", "answer_of", "score_table", "wanted", "written"]

Format = Literal["json", "csv", "parquet", "arrow"]
ANSWER_FORMATS: dict[str, Format] = {
    "application/json": "json",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """A table, and what JSON says beside it; nested ``values`` stand in JSON where nested arrays were asked about."""

    model: str
    task: str
    table: pd.DataFrame
    values: NDArray[np.floating] | list[NDArray[np.floating]] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


def wanted(accept: str | None) -> Format:
    """The format that an Accept header prefers; JSON where it leaves the choice.

    Raises:
        Refused: 406, it accepts none of them.
    """
    best: tuple[float, Format] | None = None
    for place, part in enumerate((accept or "*/*").split(",")):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = _quality(parameters)
        found = _format_of(kind)
        if found is not None and quality > 0 and (best is None or quality > best[0]):
            best = quality - place * 1e-9, found
    if best is None:
        raise Refused(406, f"The answer comes as one of {', '.join(ANSWER_FORMATS)}. Name one of them in Accept.")
    return best[1]


def _format_of(kind: str) -> Format | None:
    """The first format of a media type or of a range of them, such as text/*."""
    for known, form in ANSWER_FORMATS.items():
        if kind in (known, "*/*", "") or (kind.endswith("/*") and known.startswith(kind[:-1])):
            return form
    return None


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


# ---- what a result of ``Engine.compute`` means


def answer_of(given: Given, data: Collection, result: Any, facts: Facts, merge_gap: int = 0) -> Answer:
    """The answer for series ``data`` (as the model read them) that came as ``given``.

    Raises:
        DataError: it is no finite number, which values far outside single precision lead to.
    """
    check_finite(_by_series(result, data, facts.task), data)  # ONNX Runtime does not check its own
    return _MAKERS[facts.task](given, data, result, facts, merge_gap)


def _forecast(given: Given, data: Collection, result: NDArray[np.float32], facts: Facts, _: int) -> Answer:
    levels = None if facts.quantiles is None else list(facts.quantiles)
    kind = replace(given.kind, backend="pandas")
    table = forecast_table(result, data, kind, np.zeros(len(data), np.int64), facts.channels, levels)
    more: dict[str, Any] = {"channels": list(facts.channels), "horizon": facts.horizon, "quantiles": levels}
    values = None
    if given.kind.backend == "array":
        values = result[0] if given.single else result
    return _answer(given, facts, table, values, more)


def _classes(given: Given, data: Collection, result: NDArray[np.float64], facts: Facts, _: int) -> Answer:
    classes = facts.classes or ()
    columns: dict[str, Any] = {"case": list(data.names), "class": [classes[k] for k in result.argmax(1)]}
    columns |= {f"p({name})": result[:, k] for k, name in enumerate(classes)}
    return _answer(given, facts, pd.DataFrame(columns), None, {"classes": list(classes)})


def _verdicts(given: Given, data: Collection, result: list[Verdict], facts: Facts, merge_gap: int) -> Answer:
    several = len(data) > 1 or given.kind.series is not None
    scores = np.concatenate([verdict.scores for verdict in result])
    table, time = _table(given, data, _scored(scores, facts))
    found: list[dict[str, Any]] = []
    for case, verdict, first in zip(data, result, data.offsets, strict=False):
        if verdict.blame is None:
            continue
        alarms = verdict.scores > (facts.threshold or 0.0)
        stamps = table[time].iloc[first : first + len(case)]
        for event in events(alarms, verdict.scores, verdict.blame, facts.channels, merge_gap=merge_gap):
            found.append(({"series": case.name} if several else {}) | _event(event, stamps))
    return _answer(given, facts, table, None, {"threshold": facts.threshold, "events": found})


def _table(
    given: Given, data: Collection, columns: Mapping[str, NDArray[Any]], *, counted: bool = True
) -> tuple[pd.DataFrame, str]:
    """Columns [total] behind those that say which series and step a row is of, and what the latter is called.

    Times stand in the zone, and names of series have the type, of what came. Steps without times may go ``counted``.
    """
    series = free_name(given.kind.series or "series", list(columns))
    time = free_name((given.kind.time if data.timestamps is not None else None) or "step", list(columns))
    first: dict[str, NDArray[Any]] = {}
    if len(data) > 1 or given.kind.series is not None:
        first[series] = np.repeat(np.array(data.names, dtype=object), data.lengths)
    if data.timestamps is not None:
        first[time] = data.timestamps
    elif counted:
        first[time] = np.concatenate([np.arange(n) for n in data.lengths])
    kind = replace(given.kind, backend="pandas", time=time, series=series, time_is_index=False)
    return to_table(kind, {**first, **columns}), time


def _scored(scores: NDArray[np.float64], facts: Facts) -> dict[str, Any]:
    threshold = facts.threshold or 0.0
    return {
        "score": scores,
        "threshold": np.full(len(scores), threshold),
        "alarm": (scores > threshold).astype(np.int64),
    }


def score_table(
    first: int, scores: NDArray[np.float64], times: Any, final: int, facts: Facts, kind: TableKind | None = None
) -> pd.DataFrame:
    """Scores of the steps ``first`` and after of a stream, of which those before ``final`` will not change.

    ``times`` are told as in tables of that ``kind``.
    """
    step = np.arange(first, first + len(scores))
    columns: dict[str, Any] = {"step": step}
    if times is not None:
        columns["time"] = times
    columns |= _scored(scores, facts) | {"final": (step < final).astype(np.int64)}
    return to_table(replace(kind or TableKind("pandas"), backend="pandas", time="time", time_is_index=False), columns)


def _event(event: Event, stamps: pd.Series[Any]) -> dict[str, Any]:
    begin, end = _cells(stamps.iloc[[event.start, event.end - 1]])
    return {"begin": begin, "end": end, "score": event.score, "channels": list(event.channels)}


def _filled(given: Given, data: Collection, result: NDArray[np.floating], facts: Facts, _: int) -> Answer:
    read = given.data
    if data.channels != read.channels and set(data.channels) == set(read.channels):  # in the order they came
        result = result[[data.channels.index(name) for name in read.channels]]
        data = read
    parts = [result[:, a:b] for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True)]
    values = None
    if given.kind.backend == "array":
        parts = [_kept(old, new) for old, new in zip(given.arrays, parts, strict=True)]
        values = parts[0] if given.single else parts
    else:
        parts = [_kept(old, _shortest(new)) for old, new in zip(given.arrays, parts, strict=True)]
    columns = dict(zip(data.channels, np.concatenate(parts, axis=1), strict=True))
    filled = _table(given, data, columns, counted=False)[0]
    return _answer(given, facts, filled, values, {"channels": list(data.channels)})


def _kept(old: NDArray[np.float64], filled: NDArray[np.floating]) -> NDArray[np.float64]:
    """What was observed exactly as it came; a code for a missing value was none."""
    near = np.isclose(old, filled, rtol=1e-5, atol=0)
    return np.where(np.isnan(old) | ~near, filled.astype(old.dtype), old)


def _vectors(given: Given, data: Collection, result: NDArray[np.float32], facts: Facts, _: int) -> Answer:
    columns: dict[str, Any] = {"case": list(data.names)}
    columns |= {f"e{i}": result[:, i] for i in range(result.shape[1])}
    return _answer(given, facts, pd.DataFrame(columns), None, {"n_features": int(result.shape[1])})


def _answer(given: Given, facts: Facts, table: pd.DataFrame, values: Any, more: Mapping[str, Any]) -> Answer:
    findings = tuple(str(finding) for finding in given.findings)
    return Answer(model=facts.name, task=facts.task, table=table, values=values, more=more, findings=findings)


_MAKERS: dict[str, Callable[[Given, Collection, Any, Facts, int], Answer]] = {
    "forecast": _forecast, "classify": _classes, "detect": _verdicts, "impute": _filled, "embed": _vectors,
}  # fmt: skip


def _by_series(result: Any, data: Collection, task: str) -> Sequence[NDArray[np.floating]]:
    """What the result says of each series."""
    if task == "detect":
        return [verdict.scores for verdict in result]
    return np.split(result, data.offsets[1:-1], axis=1) if task == "impute" else result


# ---- to bytes


def written(answer: Answer, form: Format) -> tuple[bytes, str]:
    """The answer as bytes, and their media type."""
    media_type = next(kind for kind, f in ANSWER_FORMATS.items() if f == form)
    if form == "csv":
        return answer.table.to_csv(index=False).encode(), f"{media_type}; charset=utf-8"
    if form == "parquet":
        out = io.BytesIO()
        answer.table.to_parquet(out, index=False)
        return out.getvalue(), media_type
    if form == "arrow":
        table = pa.Table.from_pandas(answer.table, preserve_index=False)
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue(), media_type
    whole: dict[str, Any] = {"model": answer.model, "task": answer.task}
    if answer.values is None:
        whole["columns"] = {str(name): _cells(answer.table[name]) for name in answer.table.columns}
    elif isinstance(answer.values, list):
        whole["values"] = [_cells(one) for one in answer.values]
    else:
        whole["values"] = _cells(answer.values)
    whole |= {**answer.more, "findings": list(answer.findings)}
    return json.dumps(whole, allow_nan=False).encode(), media_type


def _cells(column: NDArray[Any] | pd.Series[Any]) -> list[Any]:
    """Plain values for JSON: times in ISO 8601, single precision as the shortest number that reads back the same."""
    if isinstance(column, pd.Series) and isinstance(column.dtype, pd.DatetimeTZDtype):
        offsets: list[str] = column.dt.strftime("%z").tolist()  # +0100
        times = _cells(column.dt.tz_localize(None))
        return [f"{time}{offset[:3]}:{offset[3:]}" for time, offset in zip(times, offsets, strict=True)]
    cells: NDArray[Any] = np.asarray(column)
    if cells.dtype.kind == "M":
        nanoseconds = cells.astype("datetime64[ns]")
        whole = bool((nanoseconds.astype(np.int64) % 10**9 == 0).all())
        return np.datetime_as_string(nanoseconds, unit="s" if whole else "ns").tolist()
    if cells.dtype.kind == "f":
        return _shortest(cells).tolist()
    return cells.tolist()


def _shortest(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Single precision as the double that has the fewest digits among those that read back the same."""
    if values.dtype != np.float32:
        return values
    text = pa.array(values.reshape(-1)).cast(pa.string())  # what numpy's astype(str) gives, ten times as fast
    return text.cast(pa.float64()).to_numpy().reshape(values.shape)
