# SPDX-License-Identifier: Apache-2.0
"""A label, overview or thumbnail that is damaged costs nobody the slide: it is left out, and
that is said. (One in a file of its own that was cut is refused: that is copied again.)"""

from collections.abc import Callable

from converters.errors import DamagedSlide, UnsupportedCompression, UnsupportedPixels
from converters.slide import AssociatedImage, Role, left_out


def unless_damaged(
    role: Role, findings: list[str], make: Callable[[], AssociatedImage]
) -> tuple[AssociatedImage, ...]:
    """What ``make`` gives; nothing, and a finding, where the image is damaged or unsupported."""
    try:
        return (make(),)
    except (DamagedSlide, UnsupportedCompression, UnsupportedPixels) as why:
        findings.append(left_out(role, why))
        return ()
