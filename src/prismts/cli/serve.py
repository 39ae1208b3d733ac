"""Trained models behind HTTP: ``prism serve``."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from prismts.cli.app import app
from prismts.cli.options import Quiet, Whole
from prismts.errors import MissingExtraError, SettingsError

__all__ = ["serve"]

_SHUTDOWN_SECONDS = 30  # that requests on their way may still take


@app.command
def serve(
    *models: Path,
    host: str = "127.0.0.1",
    port: Whole = 8000,
    token: Annotated[str | None, Parameter(env_var="PRISMTS_TOKEN")] = None,
    backend: Literal["torch", "onnx"] = "torch",
    max_body: Whole = 16,
    max_rows: Whole = 200_000,
    gather: Literal["exact", "any", "off"] = "exact",
    batch_wait: float = 0.0,
    max_batch: Whole = 16,
    max_streams: Whole = 64,
    stream_idle: float = 900.0,
    quiet: Quiet = False,
) -> None:
    """Answer over HTTP with saved models: forecasts, classes, anomalies, filled gaps, vectors.

    Routes: /forecast, /classify, /detect (and /detect/streams for series that grow), /impute, /embed, /models, /health,
    /metrics, and /openapi.json, which describes them with examples. Ctrl-C, or SIGTERM, lets requests on their way
    finish. Needs prismts[serve].

    Args:
        models: Model folders, called by their names; with --backend onnx also .onnx files.
        host: The address to listen on. Any but this machine's own needs a token.
        port: The port; 0 takes a free one.
        token: What requests must bear, as Authorization: Bearer TOKEN. Others on this machine can read a command line,
            so give it in PRISMTS_TOKEN.
        backend: What runs the models: torch, or onnx (each folder is exported once, and kept in the cache).
        max_body: Megabytes of one request.
        max_rows: Time steps of one request, and of one stream.
        gather: Which requests are answered together: exact (those that get the very bits each would get alone), any,
            off.
        batch_wait: Milliseconds that a free model waits for more requests; a busy one gathers them anyway.
        max_batch: Requests answered together.
        max_streams: Growing series followed at once.
        stream_idle: Seconds without rows after which a stream is closed.
    """
    alone = _is_loopback(host)
    if not alone and token is None:
        raise SettingsError(
            f"Listening on {host}, the service answers everyone who reaches this machine, so it needs a token: set "
            "PRISMTS_TOKEN, such as to what python -c 'import secrets; print(secrets.token_urlsafe())' prints. Without "
            "one, it listens on --host 127.0.0.1 only."
        )
    if max_body < 1:
        raise SettingsError(f"--max-body is in megabytes, at least 1, but got {max_body}.")
    from prismts.serving.service import create_app

    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(
            "prism serve needs uvicorn, which is not installed. Run: pip install 'prismts[serve]'"
        ) from error
    names = ["localhost", "127.0.0.1", "[::1]", host] if alone and token is None else None
    service = create_app(
        models, token=token, backend=backend, hosts=names, max_body_bytes=max_body * 10**6, max_rows=max_rows,
        gather=gather, batch_wait_ms=batch_wait, max_batch=max_batch, max_streams=max_streams,
        stream_idle_s=stream_idle,
    )  # fmt: skip
    with _listening(host, port) as listener:
        config = uvicorn.Config(
            service, log_level="warning", access_log=False, server_header=False, lifespan="on",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )  # fmt: skip
        place = f"[{host}]" if ":" in host else host
        console = Console(stderr=True, quiet=quiet, soft_wrap=True)
        for path in models:
            console.print(f"model: {escape(str(path))}", highlight=False)
        console.print(f"serving: http://{place}:{listener.getsockname()[1]}", highlight=False)
        with _quiet_signals():
            uvicorn.Server(config).run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address; a name counts if all its addresses do."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(f"There is no host {host!r} ({error.strerror or error}). Try --host 127.0.0.1.") from error
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Generator[socket.socket]:
    if not 0 <= port < 2**16:
        raise SettingsError(f"--port is from 0 to 65535, but got {port}.")
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {host}, port {port} ({error.strerror or error}). Choose another --port; 0 takes a free "
            "one."
        ) from error
    with listener:
        yield listener


@contextlib.contextmanager
def _quiet_signals() -> Generator[None]:
    """Uvicorn ends in order at SIGINT and SIGTERM, then sends them to whoever listened before: nobody, here."""
    before = {which: signal.signal(which, lambda *_: None) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
