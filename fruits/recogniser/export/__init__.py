"""Export of a recogniser as one ONNX file: pixels in, scores out."""
