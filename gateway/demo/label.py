# SPDX-License-Identifier: Apache-2.0
"""The label and the macro picture of a demo slide."""

import numpy as np
import zxingcpp
from PIL import Image, ImageDraw, ImageFont

from gateway.demo.svs import Pixels

LABEL_ROWS, LABEL_COLUMNS = 463, 500
MACRO_ROWS, MACRO_COLUMNS = 431, 1280
GLASS_WIDTH_MM = 75.0


def barcode_pixels(text: str, scale: int) -> Pixels:
    """A Data Matrix of the text, black on white, quiet zone included."""
    barcode = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.DataMatrix)
    return np.asarray(barcode.to_image(scale=scale), dtype=np.uint8)


def draw_label(barcode: str, lines: tuple[str, ...]) -> Pixels:
    """A printed label: the barcode above lines of text."""
    image = Image.new("RGB", (LABEL_COLUMNS, LABEL_ROWS), (250, 249, 243))
    draw = ImageDraw.Draw(image)
    code = barcode_pixels(barcode, 1)
    scale = max(1, 220 // code.shape[0])
    square = Image.fromarray(barcode_pixels(barcode, scale))
    image.paste(square, (24, 20))
    draw.text((274, 40), "COVERSLIP", fill=(30, 30, 36), font=ImageFont.load_default(32))
    draw.text((274, 84), "demo slide", fill=(90, 90, 100), font=ImageFont.load_default(24))
    draw.text((274, 180), "H&E", fill=(30, 30, 36), font=ImageFont.load_default(46))
    top = 270
    for line in lines:
        draw.text((28, top), line, fill=(25, 25, 30), font=ImageFont.load_default(34))
        top += 46
    draw.rectangle((4, 4, LABEL_COLUMNS - 5, LABEL_ROWS - 5), outline=(206, 204, 196), width=2)
    return np.asarray(image, dtype=np.uint8)


def draw_macro(
    label: Pixels, overview: Pixels, *, left_mm: float, top_mm: float, width_mm: float, height_mm: float
) -> Pixels:
    """The whole glass from above: label at the left, tissue where it was scanned, the
    scan area framed in green as the scanner does. Offsets are from the glass's corner."""
    scale = MACRO_COLUMNS / GLASS_WIDTH_MM
    rows, columns = np.indices((MACRO_ROWS, MACRO_COLUMNS), dtype=np.float32)
    shade = 1 - 0.06 * np.hypot(columns / MACRO_COLUMNS - 0.55, rows / MACRO_ROWS - 0.5)
    glass = np.array((226, 228, 229), np.float32) * shade[..., np.newaxis]
    image = Image.fromarray(glass.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    frosted = round(21 * scale)
    draw.rectangle((0, 0, frosted, MACRO_ROWS), fill=(238, 238, 236))
    side = MACRO_ROWS - 60
    image.paste(Image.fromarray(label).resize((side * label.shape[1] // label.shape[0] - 60, side)), (8, 30))
    cover = [
        round(value * scale)
        for value in (left_mm - 4, top_mm - 4, left_mm + width_mm + 4, top_mm + height_mm + 4)
    ]
    draw.rectangle(
        (cover[0], max(2, cover[1]), cover[2], min(MACRO_ROWS - 3, cover[3])), outline=(205, 210, 212)
    )
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    corner = (round(left_mm * scale), round(top_mm * scale))
    tissue = np.asarray(Image.fromarray(overview).resize(size, Image.Resampling.BOX), np.float32) / 243
    below = np.asarray(image.crop((*corner, corner[0] + size[0], corner[1] + size[1])), np.float32)
    stained = Image.fromarray(np.clip(below * tissue, 0, 255).astype(np.uint8))
    image.paste(stained, corner)
    draw.rectangle(
        (corner[0] - 2, corner[1] - 2, corner[0] + size[0] + 1, corner[1] + size[1] + 1), outline=(0, 190, 60)
    )
    return np.asarray(image, dtype=np.uint8)
