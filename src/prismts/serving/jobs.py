"""Work that takes time, done one job after the other in a process beside the server: it can be watched and stopped.

    with Lane("prismts.serving.studio_work:work") as lane:
        job = lane.submit("train", "ridge on sales", {"do": "train", ...})
        job.told()          # state, progress, error: plain values, at any time
        lane.stop(job)      # ends at once, whatever it was doing

The process is started anew after a stop or a crash. What passes between the two are plain values; a result that is
large belongs into a file.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal, Self

from prismts.errors import PrismError, SettingsError

__all__ = ["Job", "Lane", "Tell", "listening"]

State = Literal["waiting", "running", "done", "failed", "stopped"]
Tell = Callable[[Mapping[str, Any]], None]
_LOOK = 0.1  # seconds between two looks at whether a job is to stop
_PATIENCE = 5.0  # seconds until a process that was told to end is taken for dead
_MOST_WAITING = 20
_numbers = itertools.count(1)


@dataclass(eq=False)
class Job:
    """One piece of work: what was asked, how far it is, what came of it."""

    kind: str
    title: str
    request: Mapping[str, Any]
    seconds_at_most: float | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    state: State = "waiting"
    progress: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: str = ""
    began: float | None = None
    ended: float | None = None
    finished: threading.Event = field(default_factory=threading.Event, repr=False)
    _to_stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def told(self) -> dict[str, Any]:
        """Everything a page shows of it, as plain values."""
        until = time.monotonic() if self.ended is None else self.ended
        return {
            "number": self.number, "kind": self.kind, "title": self.title, "state": self.state,
            "progress": dict(self.progress), "error": self.error,
            "seconds": 0.0 if self.began is None else round(until - self.began, 1),
        }  # fmt: skip

    def _end(self, state: State, *, result: Any = None, error: str = "") -> None:
        self.result, self.error, self.ended = result, error, time.monotonic()
        self.state = state  # last: whoever reads it in another thread finds the rest
        self.finished.set()


class Lane:
    """A queue of jobs, and the process that does them one at a time.

    Args:
        work: the function that does a job, as "module:name", called with the request and a function to tell progress
            with; what it returns is the result. A ``PrismError`` of its is a failure in its words.
        memory: bytes of address space the process may take, where the system can bound it; None for no bound.
        imports: modules the process loads while there is nothing to do, so that no job waits for them.
    """

    def __init__(self, work: str, *, memory: int | None = None, imports: Sequence[str] = ()) -> None:
        self.work, self.memory, self.imports = work, memory, tuple(imports)
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._running: Job | None = None
        self._process: Any = None
        self._pipe: Connection | None = None
        self._thread = threading.Thread(target=self._go, name=f"lane {work}", daemon=True)
        self._thread.start()

    def submit(self, kind: str, title: str, request: Mapping[str, Any], *, seconds_at_most: float | None = None) -> Job:
        """Put a job at the end of the queue."""
        job = Job(kind, title, dict(request), seconds_at_most)
        with self._changed:
            if self._closed:
                raise SettingsError("The session is ending; nothing new is begun.")
            if len(self._waiting) >= _MOST_WAITING:
                raise SettingsError(f"{_MOST_WAITING} jobs are waiting already. Wait for one, or stop one.")
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def stop(self, job: Job) -> None:
        """End a job, or take it out of the queue; one that has ended stays as it is."""
        with self._changed:
            job._to_stop.set()  # pyright: ignore[reportPrivateUsage] - the two belong together
            if job in self._waiting:
                self._waiting.remove(job)
                job._end("stopped")  # pyright: ignore[reportPrivateUsage]

    def close(self) -> None:
        """Stop everything and end the process."""
        with self._changed:
            self._closed = True
            for job in [*self._waiting, *([self._running] if self._running else [])]:
                job._to_stop.set()  # pyright: ignore[reportPrivateUsage]
            self._changed.notify_all()
        self._thread.join(2 * _PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the thread that hands jobs over

    def _go(self) -> None:
        self._start()  # at once: what it imports is there when the first job comes
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    for job in self._waiting:
                        job._end("stopped")  # pyright: ignore[reportPrivateUsage]
                    break
                self._running = job = self._waiting.popleft()
            self._do(job)
            self._running = None
        self._kill()

    def _do(self, job: Job) -> None:
        end = job._end  # pyright: ignore[reportPrivateUsage]
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._pipe is not None
        job.began, job.state = time.monotonic(), "running"
        try:
            self._pipe.send(dict(job.request))
            while True:
                if job._to_stop.is_set():  # pyright: ignore[reportPrivateUsage]
                    self._kill()
                    return end("stopped")
                if job.seconds_at_most is not None and time.monotonic() - job.began > job.seconds_at_most:
                    self._kill()
                    return end("failed", error=f"This took longer than {job.seconds_at_most:g} seconds and was ended.")
                if not self._pipe.poll(_LOOK):
                    continue
                what, value = self._pipe.recv()
                if what == "progress":
                    job.progress.update(value)
                elif what == "done":
                    return end("done", result=value)
                else:
                    return end("failed", error=str(value))
        except (EOFError, OSError):  # the process is gone
            self._kill()
            return end(
                "failed", error="The process that did the work ended: most likely the memory of this machine was not "
                "enough. Try fewer channels, a shorter context, or fewer rows.",
            )  # fmt: skip

    def _start(self) -> None:
        self._kill()
        context = multiprocessing.get_context("spawn")  # a fork would share the server's sockets and threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.work, self.memory, self.imports), daemon=True)
        self._process.start()
        theirs.close()

    def _kill(self) -> None:
        """End the process at once: it keeps nothing but what lies in the session's folder."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_PATIENCE)
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


@contextlib.contextmanager
def listening(tell: Tell) -> Generator[None]:
    """Within it, a training tells its epochs, steps and losses to ``tell`` instead of drawing a bar on the terminal."""
    from prismts.training import fit as training

    usual = training.TrainingBar
    training.TrainingBar = _reporter(tell)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        training.TrainingBar = usual  # type: ignore[misc]


def _reporter(tell: Tell) -> type:
    """A training bar that tells its state."""
    from prismts.training.progress import TrainingBar

    parts = itertools.count(1)

    class Reporter(TrainingBar):
        """What the bar on the terminal knows, as plain values."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self._part, self._told, self._began = next(parts), 0.0, time.monotonic()
            self._begun_at = trainer.current_epoch * self.per_epoch
            epochs = self.total // max(1, self.per_epoch)
            tell({
                "stage": "training", "what": self.title, "part": self._part, "epoch": trainer.current_epoch + 1,
                "n_epochs": epochs, "done": self._begun_at / max(1, self.total), "seconds_left": None,
                "history": _told_epochs(pl_module.history),
            })  # fmt: skip

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            now = time.monotonic()
            if now - self._told < 0.2:
                return
            self._told = now
            done = trainer.current_epoch * self.per_epoch + batch_idx + 1
            speed = (done - self._begun_at) / max(1e-9, now - self._began)
            tell({
                "epoch": trainer.current_epoch + 1, "done": done / max(1, self.total),
                "seconds_left": round((self.total - done) / max(1e-9, speed), 1),
                "history": _told_epochs(pl_module.history),
            })  # fmt: skip

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            """The loss stands in the history a moment later."""

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            tell({"done": 1.0, "seconds_left": 0.0, "history": _told_epochs(pl_module.history)})

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            """Nothing to close."""

    return Reporter


def _told_epochs(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in entry.items()} for entry in history]


# ---- the process


def _serve(pipe: Connection, work: str, memory: int | None, imports: Sequence[str]) -> None:
    """Do one request after the other until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process itself
    module, _, name = work.partition(":")
    try:
        function = getattr(__import__(module, fromlist=[name]), name)
        _bound(memory)
        waiting = list(imports)
        while True:
            while waiting and not pipe.poll():
                __import__(waiting.pop(0))
            request = pipe.recv()
            try:
                answer = "done", function(request, lambda value: pipe.send(("progress", dict(value))))
            except PrismError as error:
                answer = "failed", " ".join(str(error).split())
            except MemoryError:
                answer = "failed", "The memory of this machine is not enough for this. Take fewer rows or columns."
            except (BrokenPipeError, EOFError):
                return
            except Exception as error:  # a mistake of ours must not look like a stuck page
                sys.stderr.write(traceback.format_exc())
                told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                answer = "failed", f"Something went wrong that should not have ({told}). The terminal shows where."
            pipe.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the server is gone


def _bound(memory: int | None) -> None:
    """Bound the address space of this process, where the system knows how."""
    if memory is None or sys.platform == "win32":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
