"""The service: trained models behind HTTP, whose answers are those of the library.

Reading and writing happen on a few threads, every model computes on one of its own, and the event loop only waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prismts.errors import DataError, MissingExtraError, PrismError, SettingsError, unknown_name
from prismts.serving.answers import Answer, answer_of, score_table, wanted, written
from prismts.serving.batching import Gather, GatherConfig, Worker
from prismts.serving.bodies import Body, Given, Limits, Reading, asked_of, receive, rows_of, series_of
from prismts.serving.openapi import PARAMETERS, as_bytes, describe, example_table
from prismts.serving.refusals import Refused, told
from prismts.serving.served import TASKS, Backend, Facts, like_training, load_engines
from prismts.serving.streams import Session, Streams

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["create_app"]

_READERS = 4  # threads that read bodies and write answers
_BODY_SECONDS = 60.0  # within which a body must have arrived
_PATHS = ("/health", "/models", "/metrics", "/openapi.json", *(f"/{task}" for task in TASKS), "/detect/streams")
_log = logging.getLogger("prismts.serving")


def create_app(
    models: Sequence[Path | str],
    *,
    token: str | None = None,
    backend: Backend = "torch",
    hosts: Sequence[str] | None = None,
    max_body_bytes: int = 16 * 2**20,
    max_rows: int = 200_000,
    max_series: int = 1_000,
    gather: Gather = "exact",
    batch_wait_ms: float = 0.0,
    max_batch: int = 16,
    max_waiting: int = 256,
    max_streams: int = 64,
    stream_idle_s: float = 900.0,
) -> FastAPI:
    """The service for some model folders, as an ASGI app.

    Args:
        models: model folders; with ``backend="onnx"`` also .onnx files. They are called by their names.
        token: what requests must bear (``Authorization: Bearer ...``), except for ``/health``; None asks for none.
        backend: "torch", or "onnx": each folder is exported once and run by ONNX Runtime.
        hosts: names that a Host header may bear, against pages that rebind their name to this machine; None: any.
        max_body_bytes: of a request; decoded, a table may take eight times as much.
        max_rows: time steps of one request, and of one stream.
        max_series: series, or cases, of one request.
        gather: "exact" answers those requests together that get the very bits each would get alone, "any" all of one
            shape, "off" none.
        batch_wait_ms: how long a free model waits for more requests.
        max_batch: requests answered together.
        max_waiting: requests that wait for one model; more get 503.
        max_streams, stream_idle_s: how many growing series are followed, and for how many seconds without rows.

    Raises:
        MissingExtraError: without ``prismts[serve]``.
        SettingsError, SavedModelError: a setting or a model folder cannot be used.
    """
    try:
        import python_multipart as _  # noqa: F401 - starlette reads forms with it
        from fastapi import FastAPI

        from prismts.serving.meters import Meters
    except ImportError as error:
        raise MissingExtraError(
            f"The service needs {error.name}, which is not installed. Run: pip install 'prismts[serve]'"
        ) from error
    from starlette.exceptions import HTTPException

    if token is not None and (not token or not token.isascii() or any(sign.isspace() for sign in token)):
        raise SettingsError("A token is ASCII text without spaces, such as python -c 'import secrets; "
                            "print(secrets.token_urlsafe())' prints.")  # fmt: skip
    limits = Limits(max_body_bytes=max_body_bytes, max_rows=max_rows, max_series=max_series)
    if min(max_body_bytes, max_rows, max_series) < 1:
        raise SettingsError(
            f"max_body_bytes, max_rows and max_series are at least 1, but got {max_body_bytes}, {max_rows} and "
            f"{max_series}."
        )
    config = GatherConfig(gather=gather, wait_ms=batch_wait_ms, max_batch=max_batch, max_waiting=max_waiting)
    streams = Streams(most=max_streams, idle_s=stream_idle_s, max_rows=max_rows)
    meters = Meters()
    workers = {name: Worker(engine, config, meters) for name, engine in load_engines(models, backend).items()}
    for worker in workers.values():
        facts = worker.engine.facts
        meters.models.labels(facts.name, facts.task, facts.architecture, facts.backend).set(1)
    service = _Service(workers, streams, limits, meters, needs_token=token is not None)

    app = FastAPI(
        title="PrismTS", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False,
        lifespan=service.lifespan,
    )  # fmt: skip
    app.state.service = service
    for path, method, handler in service.routes():
        app.add_api_route(path, handler, methods=[method], response_model=None)
    app.add_exception_handler(PrismError, service.refuse)
    app.add_exception_handler(HTTPException, service.no_route)
    app.add_middleware(_Door, token=token, hosts=hosts, meters=meters)
    return app


class _Service:
    """The handlers, and what they share."""

    def __init__(
        self, workers: dict[str, Worker], streams: Streams, limits: Limits, meters: Any, *, needs_token: bool
    ) -> None:
        self.workers, self.streams, self.limits, self.meters = workers, streams, limits, meters
        self._needs_token = needs_token
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="prism-read")
        self._document: bytes | None = None
        self._describing = asyncio.Lock()

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        """Every route with its method and handler."""
        from starlette.requests import Request

        def asks(task: str) -> Callable[..., Any]:
            async def handler(request: Request) -> Response:
                return await self._ask(task, request)

            return handler

        def reads(handle: Callable[[Request], Any]) -> Callable[..., Any]:
            async def handler(request: Request) -> Response:
                return await handle(request)

            handler.__annotations__["request"] = Request  # fastapi looks the name up where it cannot see it
            return handler

        found: list[tuple[str, str, Callable[..., Any]]] = [
            ("/health", "GET", reads(self._health)),
            ("/models", "GET", reads(self._models)),
            ("/metrics", "GET", reads(self._metrics)),
            ("/openapi.json", "GET", reads(self._openapi)),
            ("/detect/streams", "POST", reads(self._open_stream)),
            ("/detect/streams/{stream}", "POST", reads(self._feed_stream)),
            ("/detect/streams/{stream}", "GET", reads(self._read_stream)),
            ("/detect/streams/{stream}", "DELETE", reads(self._close_stream)),
        ]
        for task in TASKS:
            handler = asks(task)
            handler.__annotations__["request"] = Request
            found.append((f"/{task}", "POST", handler))
        return found

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncGenerator[None]:
        """Models take requests from here on; at the end they answer what still waits."""
        for worker in self.workers.values():
            worker.start()
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            for worker in self.workers.values():
                await worker.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(60.0, self.streams.idle_s))
            self.streams.forget_idle()
            self.meters.streams.set(len(self.streams))

    # ---- handlers

    async def _health(self, request: Request) -> Response:
        return _json(200, {"status": "ok", "models": len(self.workers)})

    async def _models(self, request: Request) -> Response:
        asked_of(request.query_params.multi_items(), ())
        return _json(200, {"models": [_told_of(worker.engine.facts) for worker in self.workers.values()]})

    async def _metrics(self, request: Request) -> Response:
        from starlette.responses import Response

        asked_of(request.query_params.multi_items(), ())
        self.meters.streams.set(len(self.streams))
        return Response(self.meters.text(), headers={"Content-Type": self.meters.content_type})

    async def _openapi(self, request: Request) -> Response:
        from starlette.responses import Response

        asked_of(request.query_params.multi_items(), ())
        async with self._describing:
            if self._document is None:
                examples = {task: await self._example(task) for task in TASKS}
                facts = [worker.engine.facts for worker in self.workers.values()]
                self._document = as_bytes(describe(facts, examples, needs_token=self._needs_token))
        return Response(self._document, media_type="application/json")

    async def _ask(self, task: str, request: Request) -> Response:
        asked = asked_of(request.query_params.multi_items(), PARAMETERS[task])
        form = wanted(request.headers.get("accept"))
        worker = self._worker(task, asked.get("model"))
        merge_gap = _whole(asked.get("merge_gap", "0"), "merge_gap")
        body = await self._body(request)
        answer = await self._answer(worker, body, asked, merge_gap)
        return _response(*await self._off_loop(written, answer, form))

    async def _answer(self, worker: Worker, body: Body, asked: dict[str, str], merge_gap: int) -> Answer:
        facts = worker.engine.facts
        given, data = await self._off_loop(_read, body, _reading(facts, asked), self.limits, facts)
        self.meters.rows.labels(facts.name).observe(int(data.offsets[-1]))
        result = await worker.ask(data)
        return await self._off_loop(answer_of, given, data, result, facts, merge_gap)

    async def _open_stream(self, request: Request) -> Response:
        asked = asked_of(request.query_params.multi_items(), ("model", "frequency"))
        worker = self._worker("detect", asked.get("model"))
        stream = await worker.call(worker.engine.stream)
        frequency = asked.get("frequency") or worker.engine.facts.reading.frequency
        session = self.streams.open(worker, stream, frequency)
        return _json(201, _told_of_stream(session))

    async def _feed_stream(self, request: Request) -> Response:
        asked = asked_of(request.query_params.multi_items(), ("time",))
        form = wanted(request.headers.get("accept"))
        session = self.streams.get(request.path_params["stream"])
        facts = session.worker.engine.facts
        body = await self._body(request)
        local = None if session.kind is None else session.kind.local  # as the first rows were read
        how = dataclasses.replace(_reading(facts, asked), series=None, frequency=session.frequency, local=local)
        rows, kind = await self._off_loop(rows_of, body, how, self.limits)
        async with session.lock:
            values, times = session.aligned(rows)
            session.kind = kind
            first = await session.worker.call(partial(session.update, values, times))
            return await self._scores(session, first, form)

    async def _read_stream(self, request: Request) -> Response:
        asked_of(request.query_params.multi_items(), ())
        form = wanted(request.headers.get("accept"))
        session = self.streams.get(request.path_params["stream"])
        async with session.lock:
            return await self._scores(session, 0, form)

    async def _close_stream(self, request: Request) -> Response:
        from starlette.responses import Response

        asked_of(request.query_params.multi_items(), ())
        self.streams.close(request.path_params["stream"])
        return Response(status_code=204)

    async def _scores(self, session: Session, first: int, form: Any) -> Response:
        facts, stream = session.worker.engine.facts, session.stream
        times = None if session.times is None else session.times[first:]
        table = score_table(first, stream.scores[first:], times, stream.n_final, facts, session.kind)
        answer = Answer(model=facts.name, task="detect", table=table)
        content, media_type = await self._off_loop(written, answer, form)
        if form == "json":
            whole = {"stream": session.id, "model": facts.name, "n_rows": len(session), "n_final": stream.n_final}
            return _json(200, whole | {"columns": json.loads(content)["columns"]})
        return _response(content, media_type)

    # ---- refusals

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Any error on purpose, in one form."""
        status, message, headers = told(error)
        return _json(status, {"error": _name(error), "message": message}, headers)

    async def no_route(self, request: Request, error: Any) -> Response:
        """An unknown route or method, in the same form."""
        path, headers = request.url.path[:80], dict(error.headers or {})
        if error.status_code == 404:
            message = f"There is no {path!r} here. There are {', '.join(_PATHS)}."
        elif error.status_code == 405:
            routes: list[Any] = [route for route in request.app.routes if route.path_regex.match(request.url.path)]
            headers["Allow"] = ", ".join(sorted({method for route in routes for method in route.methods}))
            message = f"{path!r} does not answer to {request.method}, but to {headers['Allow']}."
        else:
            message = str(error.detail)
        return _json(error.status_code, {"error": "Refused", "message": message}, headers)

    # ---- inside

    def _worker(self, task: str, name: str | None) -> Worker:
        loaded = {n: worker for n, worker in self.workers.items() if worker.engine.facts.task == task}
        if not loaded:
            others = ", ".join(f"{n} ({w.engine.facts.estimator})" for n, w in self.workers.items())
            raise Refused(404, f"No {TASKS[task]} is loaded, which /{task} needs. Loaded: {others}.")
        if name is None:
            if len(loaded) > 1:
                raise SettingsError(f"Several {TASKS[task]}s are loaded: {', '.join(loaded)}. Choose one with model=.")
            return next(iter(loaded.values()))
        if name not in loaded:
            raise Refused(404, str(unknown_name(TASKS[task], name[:80], loaded)))
        return loaded[name]

    async def _body(self, request: Request) -> Body:
        from starlette.requests import ClientDisconnect

        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await receive(request, self.limits)
        except TimeoutError as error:
            raise Refused(408, f"The body did not arrive within {_BODY_SECONDS:g} seconds.") from error
        except ClientDisconnect as error:
            raise Refused(400, "The connection ended before the body did.") from error

    async def _off_loop(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._readers, partial(function, *arguments))

    async def _example(self, task: str) -> dict[str, Any]:
        """A request that the first model of a task answers, and its answer."""
        worker = next((w for w in self.workers.values() if w.engine.facts.task == task), None)
        table = None if worker is None else example_table(worker.engine.facts)
        if worker is None or table is None:
            return {}
        facts = worker.engine.facts
        columns = {name: _plain(table[name]) for name in table.columns}
        body = Body(data=json.dumps({"columns": columns}).encode(), format="json")
        values = [columns[channel] for channel in facts.channels]
        example: dict[str, Any] = {
            "request": {"columns": columns, "values": [values] if facts.reading.rows_are_cases else values},
            "csv": table.to_csv(index=False),
        }
        try:
            answer = await self._answer(worker, body, {}, 0)
        except PrismError:
            _log.warning("no example was found that %s answers", facts.name, exc_info=True)
            return {}
        if answer.table.size <= 500:
            example["response"] = json.loads(written(answer, "json")[0])
        return example


class _Door:
    """What every request passes: its host and its token are checked, it is counted, and no error leaves as a trace."""

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Sequence[str] | None, meters: Any) -> None:
        self.app, self.meters = app, meters
        self._token = None if token is None else token.encode()
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.meters.in_flight.inc()
        try:
            headers: dict[bytes, bytes] = dict(scope["headers"])
            refusal = self._stopped(scope["path"], headers)
            if refusal is not None:
                await refusal(scope, receive, watched)
            else:
                await self._inside(scope, receive, watched)
        finally:
            self.meters.in_flight.dec()
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "other"
            self.meters.requests.labels(route, method, str(status)).inc()
            self.meters.seconds.labels(route).observe(time.perf_counter() - began)

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            _log.exception("a request failed")
            if begun:
                raise
            code, message, headers = told(error)
            await _json(code, {"error": _name(error), "message": message}, headers)(scope, receive, send)

    def _stopped(self, path: str, headers: dict[bytes, bytes]) -> Response | None:
        if self._hosts is not None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
            if name not in self._hosts:
                message = f"This service does not answer as {name[:80]!r}. It answers as {', '.join(self._hosts)}."
                return _json(421, {"error": "Refused", "message": message})
        if self._token is None or path == "/health":
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return None
        message = "This service needs a token: send the header Authorization: Bearer TOKEN."
        return _json(401, {"error": "Refused", "message": message}, {"WWW-Authenticate": "Bearer"})


def _read(body: Body, how: Reading, limits: Limits, facts: Facts) -> tuple[Given, Any]:
    given = series_of(body, how, limits)
    return given, like_training(given.data, facts)


def _reading(facts: Facts, asked: dict[str, str]) -> Reading:
    """How the model reads tables, and what this request says instead."""
    said = {name: asked[name] for name in ("time", "series", "frequency", "duplicates") if name in asked}
    return dataclasses.replace(facts.reading, **said)  # type: ignore[arg-type]


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= 10**9):
        raise DataError(f"{name} is a whole number from 0 to 1000000000, but got {text[:20]!r}.")
    return int(text)


def _told_of(facts: Facts) -> dict[str, Any]:
    hidden = ("reading", "levels")
    return {f.name: getattr(facts, f.name) for f in dataclasses.fields(facts) if f.name not in hidden}


def _told_of_stream(session: Session) -> dict[str, Any]:
    facts = session.worker.engine.facts
    return {
        "stream": session.id, "model": facts.name, "channels": facts.channels, "frequency": session.frequency,
        "threshold": facts.threshold, "delay": session.stream.delay, "n_rows": len(session),
        "n_final": session.stream.n_final,
    }  # fmt: skip


def _plain(column: Any) -> list[Any]:
    if column.dtype.kind == "M":
        return [stamp.isoformat() for stamp in column]
    return column.astype(object).where(column.notna(), None).tolist()


def _name(error: BaseException) -> str:
    return type(error).__name__ if isinstance(error, PrismError) else "InternalError"


def _response(content: bytes, media_type: str) -> Response:
    from starlette.responses import Response

    return Response(content, headers={"Content-Type": media_type, "Vary": "Accept"})


def _json(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    from starlette.responses import Response

    text = json.dumps(content, allow_nan=False)  # ASCII: a name of half a character can be told too
    return Response(text.encode(), status_code=status, headers=headers, media_type="application/json")
