# SPDX-License-Identifier: Apache-2.0
"""Refusals of the commands themselves. ``str()`` is one line for the operator's screen."""


class CannotRead(Exception):
    """A path given on the command line is absent or unreadable."""


class TargetNotEmpty(Exception):
    """A folder that must be empty holds something; nothing was written."""


class BadBackup(Exception):
    """A backup lacks a file, or a file differs from its digest."""


class MissingProgram(Exception):
    """A program or package that the command needs is not installed."""


class Finished(Exception):
    """The command did its work and ends with a code of its own, its report written."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code
