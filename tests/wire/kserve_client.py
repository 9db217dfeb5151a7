"""Drives KServe's published clients against a server and prints what they got, as JSON.

Run by test_kserve_client.py in an environment of its own: kserve_client.py REST_URL GRPC_HOST
"""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

ROWS = np.arange(32, dtype=np.float32).reshape(2, 16)


def request(model, binary, rows=ROWS):
    tensor = InferInput("x", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="seven",
                        parameters={"binary_data_output": binary})


def shown(answer):
    output = answer.outputs[0]
    return {"id": answer.id, "model": answer.model_name, "name": output.name,
            "shape": list(output.shape), "values": output.as_numpy().ravel().tolist()}


async def failure(call):
    try:
        await call
    except Exception as error:  # Of whichever library is beneath.
        return f"{type(error).__name__}: {error}"
    return "no failure"


async def rest(url):
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    found = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, "identity_fp32"),
        "json": shown(await client.infer(url, request("identity_fp32", False), model_name="identity_fp32")),
        "binary": shown(await client.infer(url, request("identity_fp32", True), model_name="identity_fp32")),
        "unknown": await failure(client.infer(url, request("nobody", False), model_name="nobody")),
        "shape": await failure(client.infer(url, request("identity_fp32", False, ROWS[:, :3]),
                                            model_name="identity_fp32")),
    }
    await client.close()
    return found


async def grpc(host):
    client = InferenceGRPCClient(url=host, timeout=120)
    found = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready("identity_fp32"),
        "unknown_ready": await client.is_model_ready("nobody"),
        "json": shown(await client.infer(request("identity_fp32", False))),
        "binary": shown(await client.infer(request("identity_fp32", True))),
        "unknown": await failure(client.infer(request("nobody", True))),
        "shape": await failure(client.infer(request("identity_fp32", True, ROWS[:, :3]))),
    }
    await client.close()
    return found


async def main():
    print(json.dumps({"rest": await rest(sys.argv[1]), "grpc": await grpc(sys.argv[2])}))


asyncio.run(main())
