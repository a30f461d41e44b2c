# SPDX-License-Identifier: Apache-2.0
"""Why something could not be given to a receiver. ``str()`` is one line without a value of
a patient: operators see it beside the duty."""


class DeliveryError(Exception):
    """An attempt to deliver failed; with ``retry`` a later one may succeed."""

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry
