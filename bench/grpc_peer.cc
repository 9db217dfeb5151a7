// The peer that gRPC users would write: a C++ callback server that runs one ONNX model for every
// ModelInfer with FP32 tensors.  It checks what it must to answer correctly, and nothing more.
//
//   grpc_peer MODEL.onnx INPUT OUTPUT VALUES     INPUT and OUTPUT: [1, VALUES]; prints its port
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <grpcpp/grpcpp.h>
#include <onnxruntime_c_api.h>

#include "kserve.grpc.pb.h"

namespace {

const OrtApi *api;

void must(OrtStatus *status)
{
    if (status != nullptr) {
        std::fprintf(stderr, "grpc_peer: %s\n", api->GetErrorMessage(status));
        std::exit(1);
    }
}

class Service final : public inference::GRPCInferenceService::CallbackService {
public:
    Service(const char *model, const char *input, const char *output, int64_t values)
        : input_(input), output_(output), values_(values)
    {
        OrtEnv *env;
        OrtSessionOptions *options;
        must(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "peer", &env));
        must(api->CreateSessionOptions(&options));
        must(api->SetIntraOpNumThreads(options, 1));
        must(api->CreateSession(env, model, options, &session_));
        must(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
    }

    grpc::ServerUnaryReactor *ModelInfer(grpc::CallbackServerContext *context,
                                         const inference::ModelInferRequest *request,
                                         inference::ModelInferResponse *response) override
    {
        grpc::ServerUnaryReactor *reactor = context->DefaultReactor();
        const size_t size = static_cast<size_t>(values_) * sizeof(float);
        if (request->raw_input_contents_size() != 1 || request->raw_input_contents(0).size() != size) {
            reactor->Finish({grpc::StatusCode::INVALID_ARGUMENT, "one FP32 tensor is expected"});
            return reactor;
        }
        auto *tensor = response->add_outputs();
        tensor->set_name(output_);
        tensor->set_datatype("FP32");
        tensor->add_shape(1);
        tensor->add_shape(values_);
        response->set_model_name(request->model_name());
        response->set_model_version("1");
        run(request->raw_input_contents(0), *response->add_raw_output_contents());
        reactor->Finish(grpc::Status::OK);
        return reactor;
    }

private:
    void run(const std::string &from, std::string &to)
    {
        const int64_t shape[] = {1, values_};
        to.resize(from.size());
        OrtValue *in = nullptr;
        OrtValue *out = nullptr;
        must(api->CreateTensorWithDataAsOrtValue(memory_, const_cast<char *>(from.data()), from.size(), shape, 2,
                                                 ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &in));
        must(api->CreateTensorWithDataAsOrtValue(memory_, to.data(), to.size(), shape, 2,
                                                 ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &out));
        must(api->Run(session_, nullptr, &input_, &in, 1, &output_, 1, &out));
        api->ReleaseValue(in);
        api->ReleaseValue(out);
    }

    const char *input_;
    const char *output_;
    const int64_t values_;
    OrtSession *session_ = nullptr;
    OrtMemoryInfo *memory_ = nullptr;
};

} // namespace

int main(int argc, char **argv)
{
    if (argc != 5) {
        std::fputs("usage: grpc_peer MODEL.onnx INPUT OUTPUT VALUES\n", stderr);
        return 2;
    }
    api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    Service service(argv[1], argv[2], argv[3], std::atoll(argv[4]));
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    const auto server = builder.BuildAndStart();
    std::printf("%d\n", port);
    std::fflush(stdout);
    server->Wait();
    return 0;
}
