"""The one exception that is shown to users."""

from __future__ import annotations


class PorterError(Exception):
    """An error that a user can act on.

    Args:
        message: what is wrong, in one sentence.
        remedy: what to do next, in one sentence; empty if there is nothing to add.
        exit_code: for the command line; 1, or 2 for wrong usage.
    """

    def __init__(self, message: str, remedy: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()
