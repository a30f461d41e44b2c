# SPDX-License-Identifier: Apache-2.0
"""dicomslide in its own environment: task as JSON on stdin, answer on stdout."""

import json
import sys

import numpy as np
from dicomslide import find_slides
from dicomweb_client.api import DICOMwebClient

task = json.load(sys.stdin)
# Label and overview have frames of reference of their own, so it takes them for slides without
# a volume; by default it would give up there.
(slide,) = find_slides(DICOMwebClient(task["url"]), study_instance_uid=task["study"], fail_on_error=False)
region = slide.get_image_region(
    offset=(0, 0), level=0, size=tuple(task["size"]), channel_index=0, focal_plane_index=0
)
np.save("patch.npy", region)
# the same place by its position on the glass
indices = slide.map_slide_coordinates_to_pixel_indices(
    slide.map_pixel_indices_to_slide_coordinates(np.array([[10, 20]]), level=0), level=0
)
print(
    json.dumps(
        {
            "levels": [list(size) for size in slide.total_pixel_matrix_dimensions],
            "channels": slide.num_channels,
            "focal_planes": slide.num_focal_planes,
            "indices": np.asarray(indices).tolist(),
        }
    )
)
