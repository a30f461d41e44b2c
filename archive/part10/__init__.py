# SPDX-License-Identifier: Apache-2.0
"""DICOM Part 10 bytes: scan, frame tables, stream writer, codestream sniffing.

A leaf: it imports nothing of the project, and knows files but no storage. In the order
of a file's way in: ``scan`` (by ``meta``, ``walker``, ``fragments``, ``pixels``) makes a
header, a bulk table and a ``frame_table``; ``digest`` and ``json_model`` read the header;
``stream`` joins all again. ``encode`` makes headers of our own.
"""
