# SPDX-License-Identifier: Apache-2.0
"""What MDS and MDSX slides have in common: two XML texts, and layers of JPEG cells."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tests.support.make_slide import picture
from tests.support.slides.tiles import Pixels, cut, halved, jpeg

BACKGROUND = (238, 236, 232)


@dataclass(frozen=True)
class MoticSlide:
    rows: int = 900
    columns: int = 1100
    tile: int = 256
    layers: int = 3
    missing: Collection[tuple[int, int, int]] = ()  # (layer, row, column)
    scale: str = "0.519712"
    extra: Sequence[tuple[str, str]] = (("Barcode", "S26-123"), ("ScanTime", "2026-03-14 09:26:53"))
    seed: int = 7
    levels: list[Pixels] = field(default_factory=list)

    def cells(self) -> list[dict[tuple[int, int], bytes]]:
        """JPEGs of each layer by (row, column); those that are missing are left out."""
        base = picture(self.rows, self.columns, self.seed)
        found = []
        for layer in range(self.layers):
            level = halved(base, layer)
            self.levels.append(level)
            cut_up = {(row, column): jpeg(tile) for row, column, tile in cut(level, self.tile)}
            found.append({at: data for at, data in cut_up.items() if (layer, *at) not in self.missing})
        return found

    def grid(self, layer: int) -> tuple[int, int]:
        return -(-(self.rows >> layer) // self.tile), -(-(self.columns >> layer) // self.tile)

    def label(self) -> bytes:
        return jpeg(picture(200, 180, self.seed + 1))

    def macro(self) -> bytes:
        return jpeg(picture(160, 480, self.seed + 2))

    def image_xml(self) -> str:
        layers = ""
        for layer in range(self.layers):
            down, across = self.grid(layer)
            values = {"Scale": f"{1 / 2**layer:g}", "Rows": down, "Cols": across}
            layers += f"<Layer{layer}>{elements(values)}</Layer{layer}>"
        red, green, blue = BACKGROUND
        size = elements(
            {
                "Width": self.columns,
                "Height": self.rows,
                "CellWidth": self.tile,
                "CellHeight": self.tile,
                "LayerCount": self.layers,
                "BackgroundColor": red << 16 | green << 8 | blue,
            }
        )
        root = f'<Version value="1.0"/><ImageMatrix>{size}{layers}</ImageMatrix>'
        return (
            f'<?xml version="1.0" encoding="UTF-16"?><MoticDigitalSlideImage>{root}</MoticDigitalSlideImage>'
        )

    def property_xml(self) -> str:
        values = {"SlideOrient": 0, "ScanObjective": 20, "Scale": self.scale, "ScanAreaX": 0, "ScanAreaY": 0}
        texts = elements({**values, **dict(self.extra)})
        return f'<?xml version="1.0" encoding="UTF-16"?><Property>{texts}</Property>'


def elements(values: dict[str, object]) -> str:
    return "".join(f'<{name} value="{value}"/>' for name, value in values.items())
