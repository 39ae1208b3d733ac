"""Why a request gets no answer: a status, and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping

from prismts.errors import DataError, PrismError

__all__ = ["Refused", "told"]


class Refused(PrismError):
    """A request that is refused with a status of its own; any other ``PrismError`` is refused with 422."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})


def told(error: BaseException) -> tuple[int, str, dict[str, str]]:
    """Status, sentence and headers for an error; what nobody foresaw is 500, and its own words stay in the log."""
    if isinstance(error, Refused):
        return error.status, str(error), error.headers
    if isinstance(error, MemoryError):
        return 413, "These data need more memory than there is. Send fewer rows at once.", {}
    if isinstance(error, PrismError):
        return 422, str(error) or DataError.__doc__ or "", {}
    return 500, "The service failed at this request; its log says where. The request may be sent again.", {}
