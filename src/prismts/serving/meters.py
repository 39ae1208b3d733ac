"""What the service counts of itself, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["Meters"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64)
_ROWS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)


class Meters:
    """The numbers of one service; two services in one process do not mix theirs."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        r = self._registry
        self.requests = Counter(
            "prism_requests", "Requests answered.", ["route", "method", "status"], registry=r
        )  # exposed as prism_requests_total
        self.seconds = Histogram(
            "prism_request_seconds", "Seconds from the first byte of a request to the last of its answer.", ["route"],
            buckets=_SECONDS, registry=r,
        )  # fmt: skip
        self.in_flight = Gauge("prism_requests_in_flight", "Requests that wait for their answer.", registry=r)
        self.waiting = Gauge("prism_queue_length", "Requests that wait for a model.", ["model"], registry=r)
        self.together = Histogram(
            "prism_batch_requests", "Requests that a model answered together.", ["model"], buckets=_COUNTS, registry=r
        )
        self.compute_seconds = Histogram(
            "prism_compute_seconds", "Seconds of a model at the requests it answered together.", ["model"],
            buckets=_SECONDS, registry=r,
        )  # fmt: skip
        self.rows = Histogram(
            "prism_request_rows", "Time steps of a request.", ["model"], buckets=_ROWS, registry=r
        )  # fmt: skip
        self.streams = Gauge("prism_streams_open", "Series that are followed.", registry=r)
        self.models = Gauge(
            "prism_model", "1 for every model that is loaded.", ["model", "task", "architecture", "backend"], registry=r
        )

    def text(self) -> bytes:
        """All of them in the text format of Prometheus."""
        return generate_latest(self._registry)
