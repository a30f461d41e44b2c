# SPDX-License-Identifier: Apache-2.0
"""Why bytes are not a DICOM file that we can take.

``str()`` of each names the problem, a tag or an offset in bytes; never an attribute's
value, so that it may be logged.
"""


class Part10Error(Exception):
    """Base of every refusal of this package."""


class NotPart10(Part10Error):
    """No ``DICM`` at byte 128 and, where a bare data set is allowed, not one either."""


class Truncated(Part10Error):
    """The bytes end before something that they declare."""


class Malformed(Part10Error):
    """The bytes contradict PS3.5, PS3.10 or themselves."""


class BudgetExceeded(Part10Error):
    """More depth, elements, items, values or inflated bytes than :class:`ParseBudget` has."""


class UnknownTransferSyntax(Part10Error):
    """A transfer syntax that is not in PS3.6, or that keeps its pixels elsewhere."""


class NeedsReencoding(Part10Error):
    """Deflated or big endian: call ``scan.reencode_to_explicit_le`` first, or give
    ``scan.scan_file`` a ``scratch`` path."""


class TooLarge(Part10Error):
    """A value that the encoding has no room for: native pixel data of 4 GiB or more."""
