/*
 * output.h — an answer for people, for programs, and as files.
 */
#ifndef WEIR_CMD_OUTPUT_H
#define WEIR_CMD_OUTPUT_H

#include "cmd/session.h"

/* Each output's type, shape, range and first values; the best classes of a vector of scores. */
void output_summary(struct buffer *out, const struct answer *answer, bool color);

/* The outputs as the array of KServe's "outputs", FP16 and BF16 as numbers too. */
void output_json(struct buffer *out, const struct answer *answer);

/* How KServe describes a tensor in JSON: {"name":...,"datatype":...,"shape":[...], left open. */
void output_describe(struct buffer *out, const char *name, enum dtype dtype,
                     const struct shape *shape);

/* A tensor's elements as a flat array of JSON. */
void output_data(struct buffer *out, const struct tensor *tensor);

/* Writes one output to a file by its ending: .npy, or .png where it is like a picture. 
 * WEIR_EINVAL, WEIR_EIO, WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status output_save(const struct value *output, const char *path,
                                           struct weir_err *err);

#endif
