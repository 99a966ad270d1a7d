"""What a request to the page is refused for."""

from __future__ import annotations


class Refused(ValueError):
    """A request that cannot be answered; the message says why, and what helps.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def unknown(what: str, value: object) -> Refused:
    """The refusal of an id or a name that does not exist."""
    return Refused(404, f"there is no {what} {value}; load the page again")
