# SPDX-License-Identifier: Apache-2.0
"""Decoding and encoding away from here: child processes that open the slide themselves.

C libraries work on bytes from outside; what befalls them (a crash, a hang, all memory
asked for) ends one slide's conversion with one clear line, and nothing else.
"""

from converters.workshop.pool import DEFAULT_LIMITS, Limits, Opened, Workshop

__all__ = ["DEFAULT_LIMITS", "Limits", "Opened", "Workshop"]
