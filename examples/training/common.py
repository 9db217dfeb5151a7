"""What the three training scripts share: repeatable set-up, a training loop's
learning rate, export to ONNX, and the proof that what was exported is right.
"""

import random
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

MODELS = Path(__file__).resolve().parent.parent / "models"
OPSET = 17


def set_up(seed):
    """Fix every source of chance and stay on one thread, so a rerun repeats itself."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def one_cycle(optimizer, peak, steps):
    """A learning rate that warms up over the first tenth and then anneals to zero."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=peak, total_steps=steps, pct_start=0.1
    )


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


def export(model, name, example, inputs, outputs):
    """Write models/NAME/1/model.onnx with a dynamic leading dimension `batch`,
    verify it against `model` on `example`, and return its path."""
    path = MODELS / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (example,),
            str(path),
            dynamo=False,  # The older exporter: a short graph without source paths.
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={key: {0: "batch"} for key in inputs + outputs},
        )
    _tidy(path, name, outputs)
    _verify(path, model, example)
    print(f"{name}: {parameter_count(model):,} parameters, {path.stat().st_size:,} bytes")
    return path


def _tidy(path, name, outputs):
    """Drop everything a server does not need and check that nothing lies outside the file."""
    proto = onnx.load(path)
    proto.graph.name = name
    proto.doc_string = proto.graph.doc_string = ""
    for node in proto.graph.node:
        node.doc_string = ""
    del proto.metadata_props[:]
    del proto.graph.value_info[:]
    _fix_output_shapes(proto, outputs)
    assert not any(t.external_data for t in proto.graph.initializer)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _fix_output_shapes(proto, outputs):
    """Every output reads [batch, numbers...]: the exporter sometimes names what is fixed."""
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    shapes = {o.name: o for o in inferred.graph.output}
    for output in proto.graph.output:
        output.CopyFrom(shapes[output.name])
        dims = output.type.tensor_type.shape.dim
        assert output.name in outputs and dims[0].dim_param == "batch"
        assert all(d.HasField("dim_value") for d in dims[1:]), f"{output.name}: {dims}"


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(sess, rows):
    """All outputs of the exported model for the rows of its one input."""
    return sess.run(None, {sess.get_inputs()[0].name: np.ascontiguousarray(rows)})


def _verify(path, model, example, tolerance=1e-4):
    """ONNX Runtime answers as PyTorch does, and a row's answer does not depend on its company."""
    sess = session(path)
    together = run(sess, example.numpy())
    with torch.no_grad():
        expected = model(example)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for got, want in zip(together, expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=tolerance, rtol=tolerance)
    backwards = run(sess, example.numpy()[::-1])
    alone = [run(sess, example.numpy()[i : i + 1]) for i in range(len(example))]
    for k, got in enumerate(together):
        np.testing.assert_allclose(backwards[k][::-1], got, atol=tolerance, rtol=tolerance)
        np.testing.assert_allclose(
            np.concatenate([a[k] for a in alone]), got, atol=tolerance, rtol=tolerance
        )


def iou(mask, reference):
    """Intersection over union of two boolean masks; two empty masks agree."""
    union = np.logical_or(mask, reference).sum()
    return 1.0 if union == 0 else np.logical_and(mask, reference).sum() / union


def rmse(a, b, where):
    """Root of the mean squared difference over the True cells of `where`."""
    return float(np.sqrt(np.mean((a - b)[where] ** 2)))
