/*
 * ONNX Runtime's failures, said to a client.
 *
 * Its messages name source files, C++ signatures, node numbers and paths; a client
 * should read what was wrong with the input, and nothing about the machine.  What it
 * cannot tell us is whose fault a failed kernel is.  The rule: a model that is served ran its
 * load-time probe, so what fails later fails because of the input; only exhausted memory, a
 * cancelled run and the runtime's own troubles are not the client's.
 *
 * Providers for accelerators report the failed call's library and its status: "CUDA failure 700: an illegal memory
 * access was encountered ; GPU=0 ; hostname=...".  Of these, some mean that nothing runs on that device any more,
 * whatever the input: it is lost.  Where a kernel of the run failed the input may have made it do so: a fault.
 */
#include "backend/onnx.h"

#include <onnxruntime_c_api.h>
#include <stdlib.h>
#include <string.h>

#include "util/err.h"

#define TEXT_BYTES sizeof(((struct weir_err *)NULL)->text)

struct failure {
    OrtErrorCode code;
    enum weir_status at_load;
    enum weir_status at_run;
};

static const struct failure failures[] = {
    { ORT_FAIL, WEIR_EINVAL, WEIR_EINVAL },
    { ORT_INVALID_ARGUMENT, WEIR_EINVAL, WEIR_EINVAL },
    { ORT_NO_SUCHFILE, WEIR_ENOENT, WEIR_EBACKEND },
    { ORT_NO_MODEL, WEIR_EINVAL, WEIR_EBACKEND },
    { ORT_ENGINE_ERROR, WEIR_EBACKEND, WEIR_EBACKEND },
    { ORT_RUNTIME_EXCEPTION, WEIR_EINVAL, WEIR_EINVAL },
    { ORT_INVALID_PROTOBUF, WEIR_EINVAL, WEIR_EBACKEND },
    { ORT_MODEL_LOADED, WEIR_EBACKEND, WEIR_EBACKEND },
    { ORT_NOT_IMPLEMENTED, WEIR_EINVAL, WEIR_EINVAL },
    { ORT_INVALID_GRAPH, WEIR_EINVAL, WEIR_EINVAL },
    { ORT_EP_FAIL, WEIR_EBACKEND, WEIR_EBACKEND },
};

static const char *const no_memory_texts[] = {
    "bad_alloc",       "ailed to allocate",       "Available memory of",
    "emory exhausted", "custom_create_thread_fn", /* A thread of ours that could not be made. */
};

static bool means_no_memory(const char *message)
{
    for (size_t i = 0; i < sizeof(no_memory_texts) / sizeof(no_memory_texts[0]); i++) {
        if (strstr(message, no_memory_texts[i]) != NULL) {
            return true;
        }
    }
    return false;
}

enum device_failure { DEVICE_OTHER, DEVICE_MEMORY, DEVICE_LOST, DEVICE_FAULT };

/* WEIR_OK: it may be about the input. */
static const enum weir_status device_statuses[] = {
    [DEVICE_OTHER] = WEIR_OK,
    [DEVICE_MEMORY] = WEIR_ENOMEM,
    [DEVICE_LOST] = WEIR_EUNAVAILABLE,
    [DEVICE_FAULT] = WEIR_EUNAVAILABLE,
};

/* What CUDA's runtime, and HIP's after it, say by number. */
static const struct device_code {
    unsigned long code;
    enum device_failure failure;
} device_codes[] = {
    { 2, DEVICE_MEMORY },  /* Out of memory. */
    { 3, DEVICE_LOST },    /* Initialization. */
    { 4, DEVICE_LOST },    /* The driver is shutting down. */
    { 46, DEVICE_LOST },   /* All devices are busy or unavailable. */
    { 77, DEVICE_FAULT },  /* Illegal address, before CUDA 10.1. */
    { 100, DEVICE_LOST },  /* No device. */
    { 101, DEVICE_LOST },  /* No such device. */
    { 214, DEVICE_LOST },  /* Uncorrectable ECC error. */
    { 220, DEVICE_LOST },  /* Uncorrectable NVLink error. */
    { 700, DEVICE_FAULT }, /* Illegal address: the context is broken, */
    { 702, DEVICE_FAULT }, /* as after a launch that took too long, */
    { 710, DEVICE_FAULT }, /* an assertion in a kernel, */
    { 714, DEVICE_FAULT }, /* a hardware stack error, */
    { 715, DEVICE_FAULT }, /* an illegal instruction, */
    { 716, DEVICE_FAULT }, /* a misaligned address, */
    { 717, DEVICE_FAULT }, /* a wrong address space, */
    { 718, DEVICE_FAULT }, /* a wrong program counter, */
    { 719, DEVICE_FAULT }, /* and any other failure of a launch. */
    { 802, DEVICE_LOST },  /* The system is not ready. */
    { 999, DEVICE_LOST },  /* Unknown, as when the device has gone. */
};

/* What its other libraries say, whose numbers change. */
static const struct device_name {
    const char *name;
    enum device_failure failure;
} device_names[] = {
    { "CUBLAS_STATUS_ALLOC_FAILED", DEVICE_MEMORY },
    { "CUDNN_STATUS_ALLOC_FAILED", DEVICE_MEMORY },
    { "CUBLAS_STATUS_EXECUTION_FAILED", DEVICE_FAULT },
    { "CUDNN_STATUS_EXECUTION_FAILED", DEVICE_FAULT },
    { "CUBLAS_STATUS_NOT_INITIALIZED", DEVICE_LOST },
    { "CUDNN_STATUS_NOT_INITIALIZED", DEVICE_LOST },
};

static enum device_failure failure_of_code(unsigned long code)
{
    for (size_t i = 0; i < sizeof(device_codes) / sizeof(device_codes[0]); i++) {
        if (device_codes[i].code == code) {
            return device_codes[i].failure;
        }
    }
    return DEVICE_OTHER;
}

static enum device_failure failure_of_name(const char *text)
{
    for (size_t i = 0; i < sizeof(device_names) / sizeof(device_names[0]); i++) {
        if (strstr(text, device_names[i].name) != NULL) {
            return device_names[i].failure;
        }
    }
    return DEVICE_OTHER;
}

/* A number follows the runtime's marks, a name those of its libraries. */
static enum device_failure failure_of_number(const char *text)
{
    return failure_of_code(strtoul(text, NULL, 10));
}

static const struct device_mark {
    const char *text;
    enum device_failure (*failure_of)(const char *rest);
} device_marks[] = {
    { "CUDA failure ", failure_of_number },
    { "HIP failure ", failure_of_number },
    { "CUBLAS failure ", failure_of_name },
    { "CUDNN failure ", failure_of_name },
};

/* What a library of an accelerator reports: where that begins in the message, else NULL. */
static const char *find_device_failure(const char *message, enum device_failure *out)
{
    for (size_t i = 0; i < sizeof(device_marks) / sizeof(device_marks[0]); i++) {
        const struct device_mark *mark = &device_marks[i];
        const char *at = strstr(message, mark->text);
        if (at != NULL) {
            *out = mark->failure_of(at + strlen(mark->text));
            return at;
        }
    }
    return NULL;
}

/* After the last `mark` in `text`, else `text`. */
static const char *after_last(const char *text, const char *mark)
{
    const char *rest = text;
    for (const char *at = strstr(text, mark); at != NULL; at = strstr(at + 1, mark)) {
        rest = at + strlen(mark);
    }
    return rest;
}

/* The last ".cc:12 " or ".h:12 " in `text`, else NULL; *rest is what follows. */
static const char *find_source_place(const char *text, const char **rest)
{
    const char *found = NULL;
    for (const char *at = strchr(text, ':'); at != NULL; at = strchr(at + 1, ':')) {
        const size_t digits = strspn(at + 1, "0123456789");
        const bool source = (at - text > 3 && memcmp(at - 3, ".cc", 3) == 0) ||
                            (at - text > 2 && memcmp(at - 2, ".h", 2) == 0);
        if (source && digits > 0 && at[1 + digits] == ' ') {
            found = at;
            *rest = at + 2 + digits;
        }
    }
    return found;
}

/* Behind a C++ signature: "virtual void a::b(int, c::d) const [with T = int] why". */
static const char *skip_signature(const char *text)
{
    const char *open = strchr(text, '(');
    const char *scope = strstr(text, "::");
    if (open == NULL || scope == NULL || scope > open) {
        /* No signature but one plain name. */
        const size_t name = strcspn(text, " ");
        return text[name] == '\0' ? text : text + name + 1;
    }
    size_t depth = 0;
    const char *at = open;
    do {
        depth += *at == '(';
        depth -= *at == ')';
        at++;
    } while (depth > 0 && *at != '\0');
    at += strcspn(at, " "); /* "::<lambda()>" */
    at += strncmp(at, " const", 6) == 0 ? 6 : 0;
    if (strncmp(at, " [with ", 7) == 0) {
        const char *end = strchr(at, ']');
        at = end == NULL ? at : end + 1;
    }
    return at + strspn(at, " ");
}

/* "/src/x.cc:12 bool f(int) why": only `why` is for people.  A failed check puts its condition and
 * "was false. " before that. */
static const char *skip_source_place(const char *text)
{
    const char *rest = text;
    if (find_source_place(text, &rest) == NULL) {
        return text;
    }
    const char *why = after_last(rest, " was false. ");
    return why != rest ? why : skip_signature(rest);
}

/* The node that failed, from "while running Gather node. Name:'...'"; 0 when it is not said. */
static size_t failed_operator(const char *message, const char **out)
{
    static const char mark[] = "while running ";
    const char *at = strstr(message, mark);
    if (at == NULL) {
        return 0;
    }
    *out = at + sizeof(mark) - 1;
    return strcspn(*out, " ");
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* One line, without words that are paths of this machine. */
static void copy_without_paths(const char *text, char *out, size_t size)
{
    size_t used = 0;
    char before = ' ';
    while (*text != '\0' && used + 1 < size) {
        if (*text == '/' && (is_space(before) || strchr("'\"(:", before) != NULL)) {
            text += strcspn(text, " \n\t'\")");
            continue;
        }
        before = *text++;
        if (!is_space(before)) {
            out[used++] = before;
        } else if (used > 0 && out[used - 1] != ' ') {
            out[used++] = ' ';
        }
    }
    while (used > 0 && (out[used - 1] == ' ' || out[used - 1] == '.')) {
        used--;
    }
    out[used] = '\0';
}

/* Advice to whoever made the model, which no client can follow; where and on which machine a device failed. */
static void cut_at(char *text, const char *mark)
{
    char *rest = strstr(text, mark);
    if (rest != NULL) {
        *rest = '\0';
    }
}

static enum weir_status report(OrtStatus *failed, bool at_run, bool *fault, struct weir_err *err)
{
    const char *message = onnx_api->GetErrorMessage(failed);
    const OrtErrorCode code = onnx_api->GetErrorCode(failed);
    enum weir_status status = WEIR_EBACKEND;
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        if (failures[i].code == code) {
            status = at_run ? failures[i].at_run : failures[i].at_load;
        }
    }
    enum device_failure failure = DEVICE_OTHER;
    const char *device = find_device_failure(message, &failure);
    *fault = failure == DEVICE_FAULT;
    status = device_statuses[failure] != WEIR_OK ? device_statuses[failure] : status;
    if (means_no_memory(message)) {
        status = WEIR_ENOMEM;
    }
    char text[TEXT_BYTES];
    copy_without_paths(device != NULL ? device
                                      : skip_source_place(after_last(message, "Status Message: ")),
                       text, sizeof(text));
    cut_at(text, device != NULL ? " ; " : " Please fix ");
    const char *why = text[0] != '\0' ? text : "it gave no reason";
    const char *operator= NULL;
    const size_t operator_size = failed_operator(message, &operator);
    if (status == WEIR_ENOMEM) {
        err_set(err, status,
                at_run ? "out of memory while running the model"
                       : "out of memory while loading the model");
    } else if (operator_size > 0) {
        err_set(err, status, "operator %.*s failed: %s", (int)operator_size, operator, why);
    } else {
        err_set(err, status, "%s", why);
    }
    onnx_api->ReleaseStatus(failed);
    return status;
}

enum weir_status onnx_load_failed(OrtStatus *status, struct weir_err *err)
{
    bool fault;
    return report(status, false, &fault, err);
}

enum weir_status onnx_run_failed(OrtStatus *status, struct weir_err *err)
{
    bool fault;
    return report(status, true, &fault, err);
}

enum weir_status onnx_kernel_failed(OrtStatus *status, bool *fault, struct weir_err *err)
{
    return report(status, true, fault, err);
}
