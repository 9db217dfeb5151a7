"""What a process of its own costs a model: `processes`.

The same model of about a millisecond, here and in a process of its own, in one server on one processor: requests
per second under load, and how much longer a single request takes on an idle server.
"""
from ceilings import binary_exchange
from loads import load, median
from models import convolutions
from servers import say, weir

SIDE = 128
CLIENTS = 8


def processes(folder, plan):
    models = folder / "models"
    convolutions(models, "here", "batching: \"off\"\n", SIDE)
    convolutions(models, "apart", "batching: \"off\"\nisolation: process\n", SIDE)
    exchanges = {name: binary_exchange(models / name, name, "x", [1, 1, SIDE, SIDE]) for name in ("here", "apart")}

    def closed_loop(server, connections):
        return {name: lambda seconds, one=one: load(*server, one.path, one.file, one.header_bytes, connections, seconds)
                for name, one in exchanges.items()}
    with weir(models) as server:
        say(f"processes: {CLIENTS} connections")
        busy = plan.side_by_side(closed_loop(server, CLIENTS), 1, 3, 5)
        yield {"processes.throughput": median(busy["apart"], "per_s") / median(busy["here"], "per_s")}, {"busy": busy}
        say("processes: one request at a time")
        idle = plan.side_by_side(closed_loop(server, 1), 1, 3, 5)
        yield {"processes.idle": median(idle["apart"], "p50_us") - median(idle["here"], "p50_us")}, {"idle": idle}
