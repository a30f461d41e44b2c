# SPDX-License-Identifier: Apache-2.0
"""Refusals of the commands themselves. ``str()`` is one line for the operator's screen."""


class CannotRead(Exception):
    """A path given on the command line is absent or unreadable."""


class Finished(Exception):
    """The command did its work and ends with a code of its own, its report written."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code
