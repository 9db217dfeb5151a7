"""A short storm of every kind of client; WEIR_SOAK=1 makes it ten minutes, WEIR_SEED chooses it."""

import os

import soak_storm

SECONDS = 600 if os.environ.get("WEIR_SOAK") == "1" else 8
SEED = int(os.environ.get("WEIR_SEED", "1"))


def test_a_storm_leaves_everything_as_it_was(tmp_path):
    done = soak_storm.storm(tmp_path, SECONDS, 16, SEED, print)
    assert all(done[name] for name in ("infer_binary", "leave_stream", "infer_wrong")), done
