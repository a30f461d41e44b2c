# SPDX-License-Identifier: Apache-2.0
"""EZ-WSI-DICOMweb in its own environment: task as JSON on stdin, answer on stdout."""

import json
import sys

import numpy as np
from ez_wsi_dicomweb import credential_factory, dicom_slide, dicom_web_interface
from ez_wsi_dicomweb.ml_toolkit import dicom_path

task = json.load(sys.stdin)
web = dicom_web_interface.DicomWebInterface(credential_factory.NoAuthCredentialsFactory())
path = dicom_path.FromString(f"{task['url']}/studies/{task['study']}/series/{task['series']}")
slide = dicom_slide.DicomSlide(web, path)
finest = next(iter(slide.levels))
rows, columns = task["size"]
patch = slide.get_patch(finest, 0, 0, columns, rows)
np.save("patch.npy", np.asarray(patch.image_bytes()))

instance = dicom_path.FromPath(path, instance_uid=task["instance"])
frames = web.download_instance_frame_list_untranscoded(instance, task["frames"])
with open("instance.dcm", "wb") as file:
    web.download_instance_untranscoded(instance, file)
print(
    json.dumps(
        {
            "levels": [[level.height, level.width] for level in slide.levels],
            "label": slide.label is not None,
            "icc_profile_bytes": len(slide.get_icc_profile_bytes()),
            "frames": [frame.hex() for frame in frames],
        }
    )
)
