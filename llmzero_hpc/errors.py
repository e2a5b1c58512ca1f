"""Every error that a user can cause or must act on, with the exit code of the command that meets it.

Each carries one line that says what is wrong and where, and one that says what to do next; the command
line prints both and never a traceback. Anything else that escapes is a bug and exits with code 1.
"""

from __future__ import annotations

from typing import ClassVar, Final


class LLMZeroError(Exception):
    """Base of all errors with a message for people.

    Args:
        message: what is wrong and where, one line.
        next_step: what the reader can do about it, one line; empty where nothing helps.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class ConfigurationError(LLMZeroError):
    """`search.yaml`, a hyperparameter, a model, data or reward file is not usable."""

    exit_code = 3


class SearchNotFoundError(LLMZeroError):
    """No search, node or artefact of that name."""

    exit_code = 4


class LeaseError(LLMZeroError):
    """Another controller owns the search, or took it over."""

    exit_code = 5


class FormatVersionError(LLMZeroError):
    """The state was written by a newer version of this program."""

    exit_code = 6


class CorruptStateError(LLMZeroError):
    """A state file is not what this program wrote: torn, edited or mixed up."""

    exit_code = 7


class StorageError(LLMZeroError):
    """The file system refused: full, read-only, over quota, no permission."""

    exit_code = 8


class MissingDependencyError(LLMZeroError):
    """A part that was asked for is not installed (an extra of this package)."""

    exit_code = 9


class ClusterError(LLMZeroError):
    """The cluster refused a submission, or cannot be asked at the moment."""

    exit_code = 10


class AgentError(LLMZeroError):
    """A language model cannot be asked, or gave no usable answer."""

    exit_code = 11


class ControllerError(LLMZeroError):
    """A controller did not start, or did not stop when it was asked to."""

    exit_code = 12


class ChecksFailedError(LLMZeroError):
    """`doctor` found something that would stop a search."""

    exit_code = 13


INFRASTRUCTURE_EXIT_CODES: Final = frozenset({StorageError.exit_code, ClusterError.exit_code})
"""Of a trainer's command: a disk, a machine or a network failed it, so the same phase may succeed at another time."""
