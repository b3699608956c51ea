"""The one exception that reaches people."""

from __future__ import annotations


class PorterError(Exception):
    """Something a person can act on.

    Args:
        message: one sentence that says what is wrong.
        remedy: one sentence that says what to do next; empty if there is nothing to add.
        exit_code: for the command line; 1, or 2 for wrong usage.
    """

    def __init__(self, message: str, remedy: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()
