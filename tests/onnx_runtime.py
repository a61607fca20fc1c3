"""Runs every model under a folder: onnx's checker, then onnxruntime on its images, all at once and one by one.

Each folder has model.onnx, images.f32 (little-endian, [images, channels, height, width]) and logits.f32, which the
outputs must equal within 1e-5 of the largest.
"""

import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime

wrong = 0
for path in sorted(Path(sys.argv[1]).rglob("model.onnx")):
    name = path.parent.name
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert [(property.key, property.value) for property in model.metadata_props] == [("made", "here")]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [given], [output] = session.get_inputs(), session.get_outputs()
    assert given.shape[0] == output.shape[0] == "batch", (name, given.shape, output.shape)
    images = numpy.fromfile(path.parent / "images.f32", "<f4").reshape(-1, *given.shape[1:])
    expected = numpy.fromfile(path.parent / "logits.f32", "<f4").reshape(len(images), *output.shape[1:])
    at_once = session.run(None, {given.name: images})[0]
    one_by_one = numpy.concatenate([session.run(None, {given.name: image[None]})[0] for image in images])
    largest = numpy.abs(expected).max()
    error = max(numpy.abs(found - expected).max() for found in (at_once, one_by_one)) / largest
    kinds = [node.op_type for node in model.graph.node]
    print(f"{name:36} {error:8.1e}  {len(kinds):4} nodes, {kinds.count('Transpose')} Transpose")
    if not error < 1e-5:
        print(f"{name}: off by {error:.1e} of the largest, {largest}", file=sys.stderr)
        wrong += 1
sys.exit(wrong > 0)
