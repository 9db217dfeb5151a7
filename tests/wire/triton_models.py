"""What the tests of Triton's clients have in common: values of every type, and models to ask."""

import ml_dtypes
import numpy as np

from serving import MODELS, put_model, put_sim, write_whole

VALUES = {
    "BOOL": np.array([[True, False, False, True]]),
    "UINT8": np.array([[0, 1, 127, 255]], np.uint8),
    "UINT16": np.array([[0, 1, 256, 65535]], np.uint16),
    "UINT32": np.array([[0, 1, 65536, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 1, 2**53 + 1, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, -1, 0, 127]], np.int8),
    "INT16": np.array([[-32768, -1, 0, 32767]], np.int16),
    "INT32": np.array([[-(2**31), -1, 0, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), -(2**53) - 1, 0, 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -65504, 6e-8, 1 / 3]], np.float16),
    "FP32": np.array([[0.1, -3.4028235e38, 1e-45, 1 / 3] * 4], np.float32),
    "FP64": np.array([[0.1, -1.7976931348623157e308, 5e-324, 1 / 3]]),
    "BF16": np.array([[0.5, -3e38, 1e-40, 1 / 3]], ml_dtypes.bfloat16),
    "BYTES": np.array([[b"", b"plain", b"a\0b\xff", "\u00e4\u6f22\U0001f600".encode()]], object),
}


def same(found, expected):
    return found.shape == expected.shape and found.tolist() == expected.tolist()


def put_models(root):
    for path in sorted(MODELS.glob("identity_*")):
        put_model(root, path.name)
    for name in ("add_sub", "scalar", "dynamic", "double_it", "overridable", "any_rank", "select"):
        put_model(root, name)
    labels = [{"name": "y", "data_type": "FP32", "dims": [16], "label_filename": "labels.txt"}]
    put_sim(root, "labelled", output=labels)
    write_whole(root / "labelled" / "labels.txt", b"".join(b"label %d\n" % i for i in range(12)))
    put_sim(root, "urgent", dynamic_batching={"priority_levels": 3, "default_priority_level": 2})
    put_sim(root, "slow", parameters={"tau0": "150ms"}, max_batch_size=1)
