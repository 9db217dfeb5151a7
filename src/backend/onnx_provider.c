/*
 * The runtime adds some providers by calls of their own and others by name; what it says when one
 * is missing names no file.  So the sentence is made here, from the table.
 */
#include "backend/onnx_provider.h"

#include <inttypes.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <string.h>

#include "backend/onnx.h"
#include "util/bytes.h"
#include "util/err.h"

#define OPTIONS_MAX 64
#define NUMBER_BYTES 24

/* The options of one provider as the runtime takes them. */
struct provider_options {
    const char *keys[OPTIONS_MAX + 2];
    const char *values[OPTIONS_MAX + 2];
    size_t count;
    char device[NUMBER_BYTES];
    char memory[NUMBER_BYTES];
};

struct provider {
    const char *name;
    const char *runtime_name; /* In the runtime's list of what it was built with. */
    const char *library;      /* NULL: none of its own. */
    const char *device_key;   /* NULL: options have no such thing. */
    const char *memory_key;
    /* NULL: added by name. */
    OrtStatus *(*add)(OrtSessionOptions *options, const struct provider_options *given);
};

static OrtStatus *add_cuda(OrtSessionOptions *options, const struct provider_options *given)
{
    OrtCUDAProviderOptionsV2 *cuda = NULL;
    OrtStatus *failed = onnx_api->CreateCUDAProviderOptions(&cuda);
    failed = failed != NULL ? failed
                            : onnx_api->UpdateCUDAProviderOptions(cuda, given->keys, given->values,
                                                                  given->count);
    failed = failed != NULL
                 ? failed
                 : onnx_api->SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda);
    onnx_api->ReleaseCUDAProviderOptions(cuda);
    return failed;
}

static OrtStatus *add_tensorrt(OrtSessionOptions *options, const struct provider_options *given)
{
    OrtTensorRTProviderOptionsV2 *tensorrt = NULL;
    OrtStatus *failed = onnx_api->CreateTensorRTProviderOptions(&tensorrt);
    failed = failed != NULL ? failed
                            : onnx_api->UpdateTensorRTProviderOptions(tensorrt, given->keys,
                                                                      given->values, given->count);
    failed = failed != NULL
                 ? failed
                 : onnx_api->SessionOptionsAppendExecutionProvider_TensorRT_V2(options, tensorrt);
    onnx_api->ReleaseTensorRTProviderOptions(tensorrt);
    return failed;
}

static const struct provider providers[] = {
    { "cuda", "CUDAExecutionProvider", "libonnxruntime_providers_cuda.so", "device_id",
      "gpu_mem_limit", add_cuda },
    { "tensorrt", "TensorrtExecutionProvider", "libonnxruntime_providers_tensorrt.so", "device_id",
      "trt_max_workspace_size", add_tensorrt },
    { "migraphx", "MIGraphXExecutionProvider", "libonnxruntime_providers_migraphx.so", "device_id",
      NULL, NULL },
    { "openvino", "OpenVINOExecutionProvider", "libonnxruntime_providers_openvino.so", NULL, NULL,
      NULL },
    { "qnn", "QNNExecutionProvider", "libonnxruntime_providers_qnn.so", "device_id", NULL, NULL },
    { "webgpu", "WebGpuExecutionProvider", NULL, "deviceId", NULL, NULL },
    { "xnnpack", "XnnpackExecutionProvider", NULL, NULL, NULL, NULL },
};

#define PROVIDER_COUNT (sizeof(providers) / sizeof(providers[0]))

static const char cpu[] = "cpu";

bool onnx_providers_any(const struct backend_load *how)
{
    for (uint32_t i = 0; i < how->provider_count; i++) {
        if (strcmp(how->providers[i].name, cpu) != 0) {
            return true;
        }
    }
    return false;
}

static const struct provider *find(const char *name)
{
    for (size_t i = 0; i < PROVIDER_COUNT; i++) {
        if (strcmp(providers[i].name, name) == 0) {
            return &providers[i];
        }
    }
    return NULL;
}

static enum weir_status complain_unknown(const char *name, struct weir_err *err)
{
    char known[256] = "cpu";
    size_t size = strlen(known);
    for (size_t i = 0; i < PROVIDER_COUNT; i++) {
        size += (size_t)snprintf(known + size, sizeof(known) - size, ", %s", providers[i].name);
    }
    return err_set(err, WEIR_EINVAL, "execution_providers: found '%s', expected one of %s", name,
                   known);
}

static bool is_built_in(const struct provider *provider)
{
    char **names = NULL;
    int count = 0;
    bool found = false;
    OrtStatus *failed = onnx_api->GetAvailableProviders(&names, &count);
    if (failed != NULL) {
        onnx_api->ReleaseStatus(failed);
        return false;
    }
    for (int i = 0; i < count; i++) {
        found = found || strcmp(names[i], provider->runtime_name) == 0;
    }
    failed = onnx_api->ReleaseAvailableProviders(names, count);
    onnx_api->ReleaseStatus(failed);
    return found;
}

static void add_option(struct provider_options *options, const char *key, const char *value)
{
    options->keys[options->count] = key;
    options->values[options->count++] = value;
}

static enum weir_status make_options(const struct provider *provider,
                                     const struct backend_provider *config, const char *device,
                                     struct provider_options *out, struct weir_err *err)
{
    const bool named = config->device_id == BACKEND_DEVICE_NAMED;
    size_t stem;
    const uint32_t number = device == NULL || provider->device_key == NULL
                                ? 0
                                : bytes_number_at_end(bytes_of(device), &stem);
    const uint32_t device_id = named ? number : config->device_id;
    *out = (struct provider_options){ .count = 0 };
    if (config->option_count > OPTIONS_MAX) {
        return err_set(err, WEIR_EINVAL,
                       "execution provider '%s': found %" PRIu32 " options, expected at most %d",
                       config->name, config->option_count, OPTIONS_MAX);
    }
    if ((device_id > 0 && provider->device_key == NULL) ||
        (config->memory_limit > 0 && provider->memory_key == NULL)) {
        return err_set(err, WEIR_EINVAL,
                       "execution provider '%s' knows no %s; its own settings go into options",
                       config->name, device_id > 0 ? "device_id" : "memory_limit");
    }
    for (uint32_t i = 0; i < config->option_count; i++) {
        add_option(out, config->options[i].key, config->options[i].value);
    }
    if (device_id > 0) {
        (void)snprintf(out->device, sizeof(out->device), "%" PRIu32, device_id);
        add_option(out, provider->device_key, out->device);
    }
    if (config->memory_limit > 0) {
        (void)snprintf(out->memory, sizeof(out->memory), "%" PRIu64, config->memory_limit);
        add_option(out, provider->memory_key, out->memory);
    }
    return WEIR_OK;
}

static enum weir_status complain_missing(const struct provider *provider, OrtStatus *failed,
                                         struct weir_err *err)
{
    struct weir_err why = { 0 };
    (void)onnx_load_failed(failed, &why);
    if (provider->library == NULL) {
        return err_set(err, WEIR_EUNAVAILABLE, "execution provider '%s' cannot be used here: %s",
                       provider->name, why.text);
    }
    return err_set(err, WEIR_EUNAVAILABLE,
                   "execution provider '%s' cannot be used: %s; it takes %s of ONNX Runtime %s "
                   "beside libonnxruntime.so.1, and the vendor's libraries where the system finds "
                   "them",
                   provider->name, why.text, provider->library, onnx_version());
}

static enum weir_status add(const struct backend_provider *config, const char *device,
                            OrtSessionOptions *options, struct weir_err *err)
{
    const struct provider *provider = find(config->name);
    struct provider_options given;
    if (provider == NULL) {
        return complain_unknown(config->name, err);
    }
    const enum weir_status status = make_options(provider, config, device, &given, err);
    if (status != WEIR_OK) {
        return status;
    }
    if (!is_built_in(provider)) {
        return err_set(err, WEIR_EUNAVAILABLE,
                       "execution provider '%s' is not in this build of ONNX Runtime %s",
                       provider->name, onnx_version());
    }
    OrtStatus *failed = provider->add != NULL ? provider->add(options, &given)
                                              : onnx_api->SessionOptionsAppendExecutionProvider(
                                                    options, provider->runtime_name, given.keys,
                                                    given.values, given.count);
    return failed == NULL ? WEIR_OK : complain_missing(provider, failed, err);
}

enum weir_status onnx_providers_add(const struct backend_load *how, OrtSessionOptions *options,
                                    struct weir_err *left_out, struct weir_err *err)
{
    const uint32_t count = how->provider_count;
    const bool falls_back = count > 0 && strcmp(how->providers[count - 1].name, cpu) == 0;
    *left_out = (struct weir_err){ 0 };
    for (uint32_t i = 0; i < count; i++) {
        const struct backend_provider *config = &how->providers[i];
        if (strcmp(config->name, cpu) == 0) {
            continue; /* Always there, and last. */
        }
        struct weir_err why = { 0 };
        const enum weir_status status = add(config, how->device, options, &why);
        if (status == WEIR_EUNAVAILABLE && falls_back) {
            const struct weir_err before = *left_out;
            (void)err_set(left_out, status, "%s%s%s", before.text,
                          before.text[0] == '\0' ? "" : "; ", why.text);
        } else if (status != WEIR_OK) {
            return err_set(err, status, "%s", why.text);
        }
    }
    return WEIR_OK;
}
