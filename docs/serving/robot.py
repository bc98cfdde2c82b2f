"""Recognise photos with an exported recogniser, without Fruits: python robot.py fruit.onnx PHOTO..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
classes, reasons = json.loads(about["classes"]), json.loads(about["reasons"])
crops = session.get_inputs()[0].shape[1]
for path in sys.argv[2:]:
    photo = Image.open(path)
    photo.draft("RGB", (448, 448))  # decode a large JPEG at a reduced size, as in training
    photo = ImageOps.exif_transpose(photo).convert("RGB")
    boxes = [
        (low * photo.width, low * photo.height, (1 - low) * photo.width, (1 - low) * photo.height) for low in (0, 0.15)
    ]
    pixels = [np.asarray(photo.resize((224, 224), Image.Resampling.BICUBIC, box)) for box in boxes[:crops]]
    scores, reason = session.run(["scores", "reason"], {"image": np.stack(pixels)[None]})
    best = scores[0].argmax()
    print(path, f"{classes[best]} {scores[0, best]:.3f}", reasons[reason[0]] or "recognised")
