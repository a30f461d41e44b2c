# SPDX-License-Identifier: Apache-2.0
"""Refusals of backup and restore. ``str()`` is one line for the operator's screen."""


class TargetNotEmpty(Exception):
    """A folder that must be empty holds something; nothing was written."""


class BadBackup(Exception):
    """A backup lacks a file, or a file differs from its digest."""


class MissingProgram(Exception):
    """A program or package that is needed is not installed."""
