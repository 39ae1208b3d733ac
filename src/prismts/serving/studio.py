"""The local page: drop a table, see what it is like, train, look, compare, take the result along.

    app = create_app(port=8080)          # a FastAPI app that any ASGI server runs
    run_studio("sales.csv")              # what ``prism studio sales.csv`` does

The page is for the one person at this machine. It listens on the loopback address alone; every address begins with a
random token, so that other pages and programs cannot find it; the Host header, and where a request comes from, are
checked besides. Nothing of a request is believed: names of files become safe ones, files are looked through before they
are read, and reading and training go on in processes beside the server. What is uploaded and trained lies in one
temporary folder, which is removed at the end.
"""

# Annotations are not postponed here: FastAPI reads those of functions that stand inside another one.
import asyncio
import atexit
import contextlib
import hmac
import json
import math
import mimetypes
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from importlib import resources
from pathlib import Path
from typing import Any

from prismts.errors import DataError, MissingExtraError, PrismError, SettingsError, unknown_name
from prismts.serving.jobs import Job, Lane
from prismts.serving.uploads import ENDINGS, Limits, received

__all__ = ["Session", "create_app", "run_studio"]

TASKS = ("forecast", "classify", "detect", "impute", "embed")
STATIC = ("index.html", "studio.css", "figures.css", "app.js", "api.js", "figures.js", "sections.js")
_WORK = "prismts.serving.studio_work:work"
_READ_AT_MOST = 180.0  # seconds
_READ_MEMORY = 8 * 2**30  # bytes of address space of the process that reads uploads
_BODY_AT_MOST = 64 * 1024  # bytes of a request that is no upload
_WARM = (
    "prismts.estimators.forecaster", "prismts.estimators.classifier", "prismts.estimators.detector",
    "prismts.estimators.imputer", "prismts.estimators.embedder", "prismts.report.forecast", "plotly.graph_objects",
)  # fmt: skip
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
# what may be asked of a training: the least and the most, or None for text
_WISHES: dict[str, tuple[type, float, float, Any]] = {
    "horizon": (int, 1, 10_000, 24),
    "context_length": (int, 4, 20_000, 96),
    "epochs": (int, 1, 1_000, None),
    "seed": (int, 0, 2**31 - 1, 0),
    "validation": (float, 0, 0.5, 0.1),
    "test": (float, 0, 0.5, 0.2),
    "false_alarm_rate": (float, 1e-6, 0.5, 0.001),
}
_OPTIONS = ("time", "series", "label", "values", "frequency", "duplicates")
_LONGEST_TEXT = 200

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Session:
    """What one run of the studio holds: its folder, the data, the jobs and what came of them.

    Args:
        limits: of uploads.

    Attributes:
        folder: temporary, and removed by :meth:`close`.
        token: that every address begins with.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.token = secrets.token_urlsafe(24)
        self.folder = Path(tempfile.mkdtemp(prefix="prismts-studio-"))
        self.reading = Lane(_WORK, memory=_READ_MEMORY)
        self.training = Lane(_WORK, imports=_WARM)
        self.jobs: dict[int, Job] = {}
        self.data: dict[str, Any] | None = None  # source, options and number of the job that read it
        self._number = 0
        self._lock = threading.RLock()
        self.about = self.training.submit("about", "what there is", {"do": "about"})
        atexit.register(self.close)

    def close(self) -> None:
        """Stop what is running and remove the folder."""
        self.reading.close()
        self.training.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def place(self, kind: str) -> Path:
        """A new folder for an upload or a job."""
        with self._lock:
            self._number += 1
            used = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
            if used > self.limits.session_bytes:
                raise SettingsError(
                    f"This session keeps {used / 2**20:,.0f} MB of uploads and models, more than the limit of "
                    f"{self.limits.session_bytes / 2**20:,.0f} MB. Download what you need, then start prism studio "
                    "again."
                )
            return self.folder / f"{kind}-{self._number}"

    def read(self, source: Mapping[str, Any], shown: str, options: Mapping[str, Any] | None = None) -> Job:
        """Begin to read data; what was read before is no longer what is trained on."""
        options = dict(options or {})
        request = {"do": "read", "source": dict(source), "options": options}
        with self._lock:
            for job in self.jobs.values():
                if job.kind == "read" and job.state in ("waiting", "running"):
                    self.reading.stop(job)
            job = self.reading.submit("read", shown, request, seconds_at_most=_READ_AT_MOST)
            self.jobs[job.number] = job
            self.data = {"source": dict(source), "options": options, "job": job.number, "shown": shown}
        return job

    def train(self, wish: Mapping[str, Any]) -> Job:
        """Put a training into the queue, on the data as they were read last."""
        data = self._ready()
        request = {"do": "train", **wish, "source": data["source"], "options": data["options"]}
        title = f"{wish['task']}: {wish['model']} on {self.jobs[data['job']].result['name']}"
        return self._work("train", title, {**request, "title": title, "folder": str(self.place("train"))})

    def compare(self, first: int, second: int) -> Job:
        """Put a comparison of two trained models into the queue."""
        if first == second:
            raise SettingsError("Choose two different models to compare.")
        jobs = [self.job(number) for number in (first, second)]
        for job in jobs:
            if job.kind != "train" or job.state != "done":
                raise SettingsError(f"{job.title} is no trained model yet. Choose one that is done.")
        a, b = (job.request for job in jobs)
        if a["task"] != b["task"]:
            raise SettingsError(f"One model can {a['task']} and the other {b['task']}: only like can be compared.")
        if (a["source"], a["options"]) != (b["source"], b["options"]):
            raise SettingsError("The two models learned from different data. Train both on the same table first.")
        title = f"compare {jobs[0].number} and {jobs[1].number}"
        request = {
            "do": "compare", "task": a["task"], "source": a["source"], "options": a["options"],
            "folder": str(self.place("compare")),
            **{
                which: {"folder": job.request["folder"], "title": f"{job.request['model']} ({job.number})"}
                for which, job in zip("ab", jobs, strict=True)
            },
        }  # fmt: skip
        return self._work("compare", title, request)

    def job(self, number: int) -> Job:
        """The job of this number."""
        if number not in self.jobs:
            raise SettingsError(f"There is no job {number} in this session. Reload the page.")
        return self.jobs[number]

    def stop(self, number: int) -> Job:
        """End a job; it is over when this returns, or a moment later."""
        job = self.job(number)
        (self.reading if job.kind == "read" else self.training).stop(job)
        return job

    def told(self) -> dict[str, Any]:
        """Everything the page shows that changes: the data, and every job."""
        with self._lock:  # jobs may come in meanwhile
            known, current = list(self.jobs.values()), self.data
        jobs = [
            {**job.told(), "result": job.result if job.kind != "read" else None, **_asked(job)}
            for job in known if job.kind != "read"
        ]  # fmt: skip
        data = None
        if current is not None:
            job = self.jobs[current["job"]]
            data = {
                **job.told(), "shown": current["shown"], "options": current["options"],
                "is_file": "file" in current["source"],
                "proposal": job.result["proposal"] if job.state == "done" else None,
                "name": job.result["name"] if job.state == "done" else None,
            }  # fmt: skip
        return {"ready": self.about.state == "done", "problem": self.about.error, "data": data, "jobs": jobs}

    def _ready(self) -> dict[str, Any]:
        if self.data is None:
            raise SettingsError("There are no data yet. Drop a table or pick a demo data set first.")
        if self.jobs[self.data["job"]].state != "done":
            raise SettingsError("The data were not read, so nothing can be learned from them. See what is said there.")
        return self.data

    def _work(self, kind: str, title: str, request: Mapping[str, Any]) -> Job:
        job = self.training.submit(kind, title, request)
        with self._lock:
            self.jobs[job.number] = job
        return job


def create_app(session: Session | None = None, *, port: int = 8080, file: str | Path | None = None) -> Any:
    """The page as a FastAPI app; its addresses begin with ``/{session.token}/``.

    Args:
        session: holds the state, and is closed with the app; a new one if None.
        port: that the server listens on: requests that name another host are refused.
        file: a table to read at once.

    Raises:
        MissingExtraError: FastAPI is not installed.
    """
    try:
        from fastapi import FastAPI, Request
        from fastapi.responses import FileResponse, JSONResponse, Response
    except ImportError as error:
        raise MissingExtraError("prism studio needs FastAPI. Install it: pip install 'prismts[serve]'.") from error

    own = session or Session()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await asyncio.to_thread(own.close)

    app = FastAPI(title="PrismTS studio", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.session = own
    if file is not None:
        own.read({"file": str(Path(file).expanduser().absolute())}, Path(file).name)

    async def refused(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)

    app.add_exception_handler(PrismError, refused)

    @app.get("/")
    def page() -> Response:
        return _static("index.html", Response)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            return JSONResponse({"error": "There is nothing at this address."}, status_code=404)
        return _static(name, Response)

    @app.get("/plotly.js")
    def plotly() -> FileResponse:
        import plotly as package  # the bundle that stands in the installed package: nothing comes from the net

        place = Path(str(package.__file__)).parent / "package_data" / "plotly.min.js"
        return FileResponse(place, media_type="text/javascript", headers={"cache-control": "private, max-age=86400"})

    @app.get("/api/about")
    async def about() -> JSONResponse:
        while not await asyncio.to_thread(own.about.finished.wait, 20):
            pass
        if own.about.state != "done":
            raise SettingsError(own.about.error or "The session is ending.")
        return JSONResponse(
            {
                **own.about.result,
                "limits": own.limits.told(),
                "most_bytes": own.limits.file_bytes,
                "endings": list(ENDINGS),
            }
        )

    @app.get("/api/state")
    def state() -> JSONResponse:
        return JSONResponse(_without_nan(own.told()))

    @app.post("/api/upload")
    async def upload(request: Request, name: str = "") -> JSONResponse:
        length = request.headers.get("content-length", "")
        announced = int(length) if length.isdecimal() else None
        path = await received(request.stream(), own.place("upload"), name, own.limits, announced=announced)
        return JSONResponse(own.read({"file": str(path)}, path.name).told())

    @app.post("/api/data")
    async def data(request: Request) -> JSONResponse:
        body = await _body(request)
        kind, name = next(iter(body.items()), ("", ""))
        known = {
            "dataset": {entry["name"] for entry in (own.about.result or {}).get("datasets", ())},
            "simulated": {entry["name"] for entry in (own.about.result or {}).get("simulated", ())},
        }  # fmt: skip
        if kind not in known or len(body) != 1:
            raise SettingsError('Say which data set: {"dataset": name} or {"simulated": name}.')
        if name not in known[kind]:
            raise unknown_name("data set on this machine", name, known[kind])
        return JSONResponse(own.read({kind: name}, name).told())

    @app.post("/api/columns")
    async def columns(request: Request) -> JSONResponse:
        options = _options(await _body(request))
        if own.data is None or "file" not in own.data["source"]:
            raise SettingsError("Columns are chosen of a table that was dropped; the demo data sets have theirs.")
        return JSONResponse(own.read(own.data["source"], own.data["shown"], options).told())

    @app.post("/api/train")
    async def train(request: Request) -> JSONResponse:
        wish = _wish(await _body(request))
        return JSONResponse((await asyncio.to_thread(own.train, wish)).told())

    @app.post("/api/compare")
    async def compare(request: Request) -> JSONResponse:
        body = await _body(request)
        a, b = body.get("a"), body.get("b")
        if not (isinstance(a, int) and isinstance(b, int)):
            raise SettingsError('Name two trained models by their numbers: {"a": 1, "b": 2}.')
        return JSONResponse((await asyncio.to_thread(own.compare, a, b)).told())

    @app.post("/api/jobs/{number}/stop")
    async def stop(number: int) -> JSONResponse:
        job = own.stop(number)
        await asyncio.to_thread(job.finished.wait, 10)
        return JSONResponse(job.told())

    @app.get("/api/jobs/{number}/sections")
    def sections(number: int) -> Response:
        job = own.job(number)
        if job.state != "done":
            raise SettingsError(f"{job.title} is {job.state}: there is nothing to show of it.")
        if job.kind == "read":
            return JSONResponse(_without_nan(job.result["sections"]))
        return FileResponse(Path(job.request["folder"]) / "sections.json", media_type="application/json")

    @app.get("/api/jobs/{number}/files/{name}")
    def files(number: int, name: str) -> Response:
        job = own.job(number)
        if job.state != "done" or not isinstance(job.result, dict) or name not in job.result.get("files", ()):
            raise SettingsError(f"{job.title} has no file {name!r} to download.")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return FileResponse(Path(job.request["folder"]) / name, media_type=kind, filename=f"{number}-{name}")

    _ = (page, static, plotly, about, state, upload, data, columns, train, compare, stop, sections, files)
    app.add_middleware(_Guard, token=own.token, port=port)  # pyright: ignore[reportArgumentType]
    return app


class _Guard:
    """Let in only who has the token, names this machine as the host, and does not come from another site's page."""

    def __init__(self, app: Asgi, token: str, port: int) -> None:
        self.app, self.token = app, token
        names = ("127.0.0.1", "localhost")
        self.hosts = {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set[str]())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # nothing else is spoken here
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        path: str = scope["path"]
        inner = path[len(self.token) + 1 :]
        if not inner:
            await _answer(send, 307, "The page is one stroke further.", {"location": f"/{self.token}/"})
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in given]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await self.app({**scope, "path": inner, "raw_path": inner.encode(), "root_path": ""}, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            if key == "host" and key in headers:
                return 400, "A request names one host."
            headers[key] = value.decode("latin-1")
        if headers.get("host", "").lower() not in self.hosts:
            return 403, "This page answers to 127.0.0.1 and localhost alone."
        first = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not hmac.compare_digest(first.encode(), self.token.encode()):
            return 404, "This is prism studio. Open the address that it printed on the terminal: it ends in a token."
        if scope["method"] not in ("GET", "HEAD"):
            origin, site = headers.get("origin"), headers.get("sec-fetch-site")
            if origin is not None and origin.lower() not in {f"http://{host}" for host in self.hosts}:
                return 403, "Another page may not ask this of the studio."
            if site not in (None, "same-origin", "none"):
                return 403, "Another page may not ask this of the studio."
        return None


async def _answer(send: Send, status: int, words: str, more: Mapping[str, str] | None = None) -> None:
    body = json.dumps({"error": words}).encode()
    headers = {**_HEADERS, "content-type": "application/json", "content-length": str(len(body)), **(more or {})}
    packed = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": packed})
    await send({"type": "http.response.body", "body": body})


# ---- what a request asks


async def _body(request: Any) -> dict[str, Any]:
    """The JSON object of a request, up to a limit."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise SettingsError("Requests are JSON: send content-type: application/json.")
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _BODY_AT_MOST:
            raise SettingsError(f"A request is at most {_BODY_AT_MOST:,} bytes.")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"The request is no JSON ({error}).") from error
    if not isinstance(value, dict):
        raise SettingsError("The request is no JSON object.")
    return value


def _wish(body: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be trained, every setting checked; what was left out gets its usual value."""
    known = ("task", "model", "setting", "intervals", *_WISHES)
    for name in body:
        if name not in known:
            raise unknown_name("setting of a training", name, known)
    if body.get("task") not in TASKS:
        raise unknown_name("task", body.get("task"), TASKS)
    wish: dict[str, Any] = {"task": body["task"], "intervals": body.get("intervals", True) is True}
    for name, usual in (("model", None), ("setting", "default")):
        text = body.get(name) or usual
        if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
            raise SettingsError(f"{name} is a name, but got {str(text)[:40]!r}.")
        wish[name] = text
    for name, (kind, least, most, usual) in _WISHES.items():
        value = body.get(name, usual)
        if value is None and usual is None:
            wish[name] = None
            continue
        numbers = (int,) if kind is int else (int, float)
        if not isinstance(value, numbers) or isinstance(value, bool) or not math.isfinite(value):
            what = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{_spoken(name)} is {what}, but got {str(value)[:40]!r}.")
        if not least <= value <= most:
            raise SettingsError(f"{_spoken(name)} lies from {least:,} to {most:,}, but got {value:,}.")
        wish[name] = value
    if wish["validation"] + wish["test"] > 0.8:
        raise SettingsError("Validation and test leave too little to learn from: together they are at most 0.8.")
    return wish


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    """Which columns of a table are what."""
    options: dict[str, Any] = {}
    for name, value in body.items():
        if name not in _OPTIONS:
            raise unknown_name("choice of columns", name, _OPTIONS)
        if value in (None, "", []):
            continue
        texts = value if name == "values" else [value]
        if not isinstance(texts, list) or not all(isinstance(x, str) and len(x) <= 10_000 for x in texts):
            raise SettingsError(f"{name} takes names of columns, but got {str(value)[:40]!r}.")
        options[name] = value
    if options.get("label") and not options.get("series"):
        raise SettingsError("A column of classes needs the column that tells the cases apart: choose 'series' too.")
    return options


def _spoken(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _asked(job: Job) -> dict[str, Any]:
    """What the page tells of a job's request."""
    names = ("task", "model", "setting", "horizon", "context_length", "epochs", "seed")
    return {"asked": {name: job.request[name] for name in names if name in job.request}}


def _without_nan(value: Any) -> Any:
    """The same with None for numbers that JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value


def _static(name: str, response: Any) -> Any:
    content = resources.files("prismts.serving").joinpath("static", name).read_bytes()
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    return response(content, media_type=f"{kinds[Path(name).suffix]}; charset=utf-8")


# ---- running


def run_studio(file: str | Path | None = None, *, port: int = 0, browser: bool = True) -> None:
    """Serve the page until Ctrl-C.

    Args:
        file: a table to read at once.
        port: to listen on; 0 takes a free one.
        browser: whether to open the page.

    Raises:
        SettingsError: the port is taken.
        DataError: there is no such file.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("prism studio needs uvicorn. Install it: pip install 'prismts[serve]'.") from error
    if file is not None and not Path(file).expanduser().is_file():
        raise DataError(f"There is no file {file}.")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))  # this machine alone
        listener.listen()  # who opens the address at once waits for the server instead of being turned away
    except (OSError, OverflowError) as error:
        listener.close()
        raise SettingsError(
            f"Port {port} cannot be listened on ({error}). Choose another, or leave --port out."
        ) from error
    number = int(listener.getsockname()[1])
    session = Session()
    hangup: Any = None
    try:
        app = create_app(session, port=number, file=file)
        address = f"http://127.0.0.1:{number}/{session.token}/"
        sys.stderr.write(f"prism studio: {address}\nCtrl-C ends it; what was uploaded is removed then.\n")
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
        server = uvicorn.Server(config)
        if hasattr(signal, "SIGHUP"):  # a closed terminal ends the session as Ctrl-C does
            hangup = signal.signal(signal.SIGHUP, lambda *_: setattr(server, "should_exit", True))
        if browser:
            threading.Timer(0.8, webbrowser.open, [address]).start()
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn has closed everything and passes the signal on
        pass
    finally:
        if hangup is not None:
            signal.signal(signal.SIGHUP, hangup)
        session.close()
        listener.close()
