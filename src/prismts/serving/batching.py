"""Requests wait for their model here, and those that wait together are answered together.

Every model has one thread. While it is busy, requests gather; when it is free, it takes those it can answer in one go.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from prismts.data.series import Collection
from prismts.errors import SettingsError, unknown_name
from prismts.serving.refusals import Refused
from prismts.serving.served import Engine

if TYPE_CHECKING:
    from prismts.serving.meters import Meters

__all__ = ["Gather", "GatherConfig", "Worker"]

Gather = Literal["exact", "any", "off"]
_SHAPES = 256  # kinds of requests whose exact sizes are remembered


@dataclass(frozen=True, kw_only=True)
class GatherConfig:
    """How requests are gathered.

    ``gather="exact"`` answers together only as many as get the very bits that each would get alone (found out once for
    every shape); ``"any"`` as many as wait, where the last bit of single precision may differ; ``"off"`` none.
    """

    gather: Gather = "exact"
    wait_ms: float = 0.0  # how long a free model waits for company; a busy one gathers anyway
    max_batch: int = 16  # requests answered together
    max_waiting: int = 256  # requests that wait for one model; more are sent away

    def __post_init__(self) -> None:
        if self.gather not in get_args(Gather):
            raise unknown_name("way to gather", self.gather, get_args(Gather))
        if not 0 <= self.wait_ms <= 60_000:
            raise SettingsError(f"batch_wait_ms is from 0 to 60000 milliseconds, but got {self.wait_ms}.")
        if self.max_batch < 1 or self.max_waiting < 1:
            raise SettingsError(
                f"max_batch and max_waiting count requests, at least 1, but got {self.max_batch} and "
                f"{self.max_waiting}."
            )


@dataclass(eq=False)
class _Job:
    """One request for the thread: series to compute, or something else to call."""

    answer: asyncio.Future[Any]
    data: Collection | None = None
    key: Hashable | None = None
    call: Callable[[], Any] | None = None


class Worker:
    """One model, its thread, and the requests that wait for it. ``start`` it on the event loop."""

    def __init__(self, engine: Engine, config: GatherConfig, meters: Meters) -> None:
        self.engine, self.config, self._meters = engine, config, meters
        self._name = engine.facts.name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"prism-{self._name}")
        self._sizes: OrderedDict[Hashable, frozenset[int]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take requests."""
        self._queue: asyncio.Queue[_Job | None] = asyncio.Queue()
        self._waiting, self._closed = 0, False
        self._task = asyncio.create_task(self._serve())

    async def ask(self, data: Collection) -> Any:
        """What the model makes of the series of one request: see ``Engine.compute``.

        Raises:
            Refused: 503, too many are waiting, or the service is going down.
        """
        key = None if self.config.gather == "off" else self.engine.key(data)
        return await self._put(_Job(asyncio.get_running_loop().create_future(), data, key))

    async def call(self, function: Callable[[], Any]) -> Any:
        """Something else that needs the model, on its thread."""
        return await self._put(_Job(asyncio.get_running_loop().create_future(), call=function))

    async def close(self) -> None:
        """Answer what waits, then end."""
        if self._task is None:
            return
        self._closed = True
        self._queue.put_nowait(None)
        await self._task
        self._task = None
        self._thread.shutdown()

    # ---- inside, on the event loop

    async def _put(self, job: _Job) -> Any:
        if self._task is None or self._closed:
            raise Refused(503, "The service is going down. Send the request to another one.", {"Retry-After": "5"})
        if self._waiting >= self.config.max_waiting:
            raise Refused(
                503,
                f"{self._waiting} requests are waiting for {self._name!r}. Send this one again a little later.",
                {"Retry-After": "1"},
            )
        self._count(1)
        self._queue.put_nowait(job)
        try:
            return await job.answer
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._waiting += change
        self._meters.waiting.labels(self._name).set(self._waiting)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while (first := await self._queue.get()) is not None:
            jobs, more = await self._company(first)
            outcomes = await loop.run_in_executor(self._thread, self._work, jobs)
            for job, (found, error) in zip(jobs, outcomes, strict=True):
                if job.answer.done():  # whoever asked has gone
                    continue
                if error is None:
                    job.answer.set_result(found)
                else:
                    job.answer.set_exception(error)
            if not more:
                break

    async def _company(self, first: _Job) -> tuple[list[_Job], bool]:
        """The first request with those that may be answered with it, and whether more may come after them."""
        jobs, config = [first], self.config
        until = time.monotonic() + config.wait_ms / 1e3
        while len(jobs) < config.max_batch:
            try:
                job = self._queue.get_nowait()
            except asyncio.QueueEmpty:
                left = until - time.monotonic()
                if left <= 0 or first.key is None:
                    break
                try:
                    job = await asyncio.wait_for(self._queue.get(), left)
                except TimeoutError:
                    break
            if job is None:
                return jobs, False
            jobs.append(job)
        return jobs, True

    # ---- inside, on the thread

    def _work(self, jobs: Sequence[_Job]) -> list[tuple[Any, BaseException | None]]:
        found: dict[int, tuple[Any, BaseException | None]] = {}
        groups: dict[Hashable, list[int]] = {}
        for i, job in enumerate(jobs):
            groups.setdefault(("alone", i) if job.key is None else job.key, []).append(i)
        with np.errstate(all="ignore"):  # what is no finite number is refused in words afterwards
            for key, members in groups.items():
                while members:
                    n = self._size(key, len(members), jobs[members[0]])
                    part, members = members[:n], members[n:]
                    found |= zip(part, self._answers([jobs[i] for i in part]), strict=True)
        return [found[i] for i in range(len(jobs))]

    def _size(self, key: Hashable, n: int, job: _Job) -> int:
        """How many of ``n`` alike are answered together."""
        if n == 1 or job.data is None or self.config.gather == "any":
            return n
        if key not in self._sizes:
            try:
                self._sizes[key] = self.engine.exact_sizes(job.data, self.config.max_batch)
            except Exception:  # data that the model refuses: each request is told so itself
                self._sizes[key] = frozenset({1})
            while len(self._sizes) > _SHAPES:
                self._sizes.popitem(last=False)
        return max(size for size in self._sizes[key] if size <= n)

    def _answers(self, jobs: Sequence[_Job]) -> list[tuple[Any, BaseException | None]]:
        began = time.perf_counter()
        try:
            if jobs[0].call is not None:
                return [(jobs[0].call(), None)]
            found = self.engine.compute([job.data for job in jobs if job.data is not None])
            return [(one, None) for one in found]
        except Exception as error:
            if len(jobs) == 1:
                return [(None, error)]
            return [self._answers([job])[0] for job in jobs]  # each its own answer, or its own sentence
        finally:
            self._meters.together.labels(self._name).observe(len(jobs))
            self._meters.compute_seconds.labels(self._name).observe(time.perf_counter() - began)
