/*
 * The limit that Weir is measured against: ONNX Runtime called directly, by the
 * best loop one can write over one shared session.
 *
 *   direct loop MODEL.onnx ROWS THREADS SECONDS   runs a batch of ROWS again and again
 *   direct start MODEL.onnx                       creates the session, says so, waits for the
 *                                                 end of its standard input
 *
 * Prints one line of JSON.  Inputs are FP32 noise; settings are those that Weir uses: one intra-op
 * thread, no spinning, no telemetry.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <onnxruntime_c_api.h>

#define IO_MAX 8
#define RANK_MAX 8

static const OrtApi *api;

static void must(OrtStatus *status)
{
    if (status != NULL) {
        fprintf(stderr, "direct: %s\n", api->GetErrorMessage(status));
        exit(1);
    }
}

static double now_s(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static OrtSession *session_open(const char *path)
{
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    must(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "direct", &env));
    must(api->CreateSessionOptions(&options));
    must(api->SetIntraOpNumThreads(options, 1));
    must(api->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
    must(api->AddSessionConfigEntry(options, "session.set_denormal_as_zero", "1"));
    must(api->CreateSession(env, path, options, &session));
    return session;
}

struct loop {
    OrtSession *session;
    int64_t rows;
    double seconds;
    pthread_t thread;
    uint64_t runs;
    double cpu_s;
};

/* A tensor of noise for one input; a variable leading dimension becomes `rows`. */
static OrtValue *noise(const OrtSession *session, size_t index, int64_t rows)
{
    OrtTypeInfo *info;
    const OrtTensorTypeAndShapeInfo *tensor;
    size_t rank;
    int64_t dims[RANK_MAX];
    must(api->SessionGetInputTypeInfo(session, index, &info));
    must(api->CastTypeInfoToTensorInfo(info, &tensor));
    must(api->GetDimensionsCount(tensor, &rank));
    must(api->GetDimensions(tensor, dims, rank));
    OrtAllocator *allocator;
    OrtValue *value;
    float *data;
    must(api->GetAllocatorWithDefaultOptions(&allocator));
    size_t count = 1;
    for (size_t i = 0; i < rank; i++) {
        dims[i] = dims[i] < 0 ? (i == 0 ? rows : 1) : dims[i];
        count *= (size_t)dims[i];
    }
    must(api->CreateTensorAsOrtValue(allocator, dims, rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                     &value));
    must(api->GetTensorMutableData(value, (void **)&data));
    for (size_t i = 0; i < count; i++) {
        data[i] = (float)(i % 97) / 97.0F;
    }
    api->ReleaseTypeInfo(info);
    return value;
}

static void *loop_main(void *argument)
{
    struct loop *loop = argument;
    OrtAllocator *allocator;
    size_t inputs;
    size_t outputs;
    const char *input_names[IO_MAX];
    const char *output_names[IO_MAX];
    const OrtValue *values[IO_MAX];
    must(api->GetAllocatorWithDefaultOptions(&allocator));
    must(api->SessionGetInputCount(loop->session, &inputs));
    must(api->SessionGetOutputCount(loop->session, &outputs));
    for (size_t i = 0; i < inputs && i < IO_MAX; i++) {
        must(api->SessionGetInputName(loop->session, i, allocator, (char **)&input_names[i]));
        values[i] = noise(loop->session, i, loop->rows);
    }
    for (size_t i = 0; i < outputs && i < IO_MAX; i++) {
        must(api->SessionGetOutputName(loop->session, i, allocator, (char **)&output_names[i]));
    }
    OrtValue *results[IO_MAX] = { NULL };
    /* The first run makes the outputs, later ones write into them. */
    must(
        api->Run(loop->session, NULL, input_names, values, inputs, output_names, outputs, results));
    const double until_s = now_s(CLOCK_MONOTONIC) + loop->seconds;
    const double cpu_s = now_s(CLOCK_THREAD_CPUTIME_ID);
    while (now_s(CLOCK_MONOTONIC) < until_s) {
        must(api->Run(loop->session, NULL, input_names, values, inputs, output_names, outputs,
                      results));
        loop->runs++;
    }
    loop->cpu_s = now_s(CLOCK_THREAD_CPUTIME_ID) - cpu_s;
    return NULL;
}

static int run_loops(const char *path, int64_t rows, int threads, double seconds)
{
    struct loop *loops = calloc((size_t)threads, sizeof(*loops));
    OrtSession *session = session_open(path);
    uint64_t runs = 0;
    double cpu_s = 0;
    for (int i = 0; loops != NULL && i < threads; i++) {
        loops[i] = (struct loop){ .session = session, .rows = rows, .seconds = seconds };
        pthread_create(&loops[i].thread, NULL, loop_main, &loops[i]);
    }
    for (int i = 0; loops != NULL && i < threads; i++) {
        pthread_join(loops[i].thread, NULL);
        runs += loops[i].runs;
        cpu_s += loops[i].cpu_s;
    }
    free(loops);
    printf("{\"rows_per_s\": %.3f, \"cpu_us_per_row\": %.4f}\n",
           (double)runs * (double)rows / seconds, cpu_s * 1e6 / ((double)runs * (double)rows));
    return 0;
}

int main(int argc, char **argv)
{
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (argc == 6 && strcmp(argv[1], "loop") == 0) {
        return run_loops(argv[2], atoll(argv[3]), atoi(argv[4]), atof(argv[5]));
    }
    if (argc == 3 && strcmp(argv[1], "start") == 0) {
        (void)session_open(argv[2]);
        printf("ready\n");
        fflush(stdout);
        while (getchar() != EOF) {
        }
        return 0;
    }
    fprintf(stderr,
            "usage: direct loop MODEL.onnx ROWS THREADS SECONDS | direct start MODEL.onnx\n");
    return 2;
}
