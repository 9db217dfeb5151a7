/*
 * profile_file.h — learned profiles as text, so that they outlive the process.
 *
 *     { "format": "weir-profile", "format_version": 2,
 *       "model": "tagger", "version": 3, "files": "9a3f...", "settings": "02c1...",
 *       "device": "cpu", "processor": "AMD EPYC 9B45", "runtime": "ONNX Runtime 1.30.0",
 *       "rows": "independent",
 *       "shapes": [ { "dims": [128], "runs": 5120, "tau0_us": 410.2, "alpha_us": 35.1, ... } ] }
 *
 * A profile is believed only by the model, on the machine and under the runtime that it is about.
 * The text comes from outside: every field is checked for its type and range, none may be missing,
 * unknown or there twice.  Pure but for memory.
 */
#ifndef WEIR_ENGINE_PROFILE_FILE_H
#define WEIR_ENGINE_PROFILE_FILE_H

#include <stdint.h>

#include "engine/profile.h"
#include "util/bytes.h"
#include "util/err.h"

#define PROFILE_FILE_BYTES_MAX ((size_t)64 << 10)

struct model;

/* What a profile is about.  Texts are borrowed. */
struct profile_identity {
    const char *model;
    uint64_t version;
    uint64_t files;    /* Digest of the version's files: names, sizes, times. */
    uint64_t settings; /* Digest of what else decides how runs are made. */
    const char *device;
    const char *processor;
    const char *runtime;
};

/* What trials showed of the model's rows: this word, or why not, or "" where none did. */
#define PROFILE_ROWS_INDEPENDENT "independent"
#define PROFILE_ROWS_BYTES 256

/* Nothing is left out but shapes that nobody could describe. */
void profile_file_write(const struct profile *profile, const struct profile_identity *identity,
                        const char *rows, struct buffer *out);

/* What a file has to say about one shape. */
struct profile_file_shape {
    struct profile_shape shape; /* Without key. */
    double tau0_us;             /* As it was when it was written; 0: not known. */
    double alpha_us;
};

struct profile_file {
    char rows[PROFILE_ROWS_BYTES];
    struct profile_file_shape shapes[PROFILE_SHAPES];
    uint32_t count;
};

/* `identity` NULL: about anything, for people.  WEIR_EINVAL: the text is broken; WEIR_ECONFLICT: it
 * is about something else; the sentence says what was found and expected.  WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status profile_file_read(struct bytes text,
                                                 const struct profile_identity *identity,
                                                 struct profile_file *out, struct weir_err *err);

/* Puts what was read into the model's profile; shapes that it cannot have are left out. */
void profile_file_apply(const struct profile_file *file, struct model *model);

#endif
