// Drives @grpc/grpc-js against a server and prints what it got, as JSON.
//
//   NODE_PATH=node_modules node client.js HOST:PORT PROTO_FOLDER
"use strict";
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [host, folder] = process.argv.slice(2);
const definition = loader.loadSync(["kserve.proto", "health.proto"], {
  includeDirs: [folder], keepCase: true, longs: Number, defaults: true,
});
const loaded = grpc.loadPackageDefinition(definition);
const options = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };
const credentials = grpc.credentials.createInsecure();
const client = new loaded.inference.GRPCInferenceService(host, credentials, options);
const health = new loaded.grpc.health.v1.Health(host, credentials, options);

function unary(stub, method, request, callOptions = {}) {
  return new Promise((resolve) => {
    stub[method](request, callOptions, (error, answer) => {
      resolve(error ? { code: error.code, details: error.details } : answer);
    });
  });
}

function request(model, values, id) {
  const raw = Buffer.alloc(values.length * 4);
  values.forEach((value, i) => raw.writeFloatLE(value, 4 * i));
  return {
    model_name: model, id,
    inputs: [{ name: "x", datatype: "FP32", shape: [values.length / 16, 16] }],
    raw_input_contents: [raw],
  };
}

function floats(buffer) {
  return Array.from({ length: buffer.length / 4 }, (_, i) => buffer.readFloatLE(4 * i));
}

function stream(requests) {
  return new Promise((resolve) => {
    const answers = [];
    const call = client.ModelStreamInfer();
    call.on("data", (answer) => answers.push(answer));
    call.on("error", (error) => resolve({ code: error.code, details: error.details }));
    call.on("end", () => resolve(answers));
    requests.forEach((one) => call.write(one));
    call.end();
  });
}

function canceled() {
  return new Promise((resolve) => {
    const call = client.ModelInfer(request("slow", Array(16).fill(1), "c"), (error) => resolve(error.code));
    setTimeout(() => call.cancel(), 50);
  });
}

async function main() {
  const values = Array.from({ length: 32 }, (_, i) => i);
  const large = Array.from({ length: 1 << 20 }, (_, i) => i % 251);
  const raw = await unary(client, "ModelInfer", request("identity_fp32", values, "seven"));
  const typed = await unary(client, "ModelInfer", {
    model_name: "identity_fp32",
    inputs: [{ name: "x", datatype: "FP32", shape: [2, 16], contents: { fp32_contents: values } }],
  });
  const back = await unary(client, "ModelInfer", request("identity_fp32", large, ""));
  const streamed = await stream([0, 1, 2].map((i) => request("identity_fp32", values.map((v) => v + i), `s${i}`)));
  console.log(JSON.stringify({
    live: (await unary(client, "ServerLive", {})).live,
    health: (await unary(health, "Check", { service: "" })).status,
    metadata: (await unary(client, "ModelMetadata", { name: "identity_fp32" })).inputs,
    raw: floats(raw.raw_output_contents[0]), id: raw.id,
    typed: floats(typed.raw_output_contents[0]),
    large: floats(back.raw_output_contents[0]).every((value, i) => value === large[i]),
    unknown: await unary(client, "ModelInfer", request("nobody", values, "")),
    deadline: (await unary(client, "ModelInfer", request("slow", Array(16).fill(1), ""),
                           { deadline: Date.now() + 100 })).code,
    canceled: await canceled(),
    streamed: streamed.map((one) => [one.infer_response.id, floats(one.infer_response.raw_output_contents[0])[0]]),
  }));
  client.close();
  health.close();
}

main();
