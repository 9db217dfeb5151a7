/*
 * warmup.h — the runs a model makes before its first request.
 *
 * What the configuration asks for (model_warmup) must succeed.  Without it, one run on zeros, the
 * canary, spares the first client the cost of first use; where it fails nobody is told.
 */
#ifndef WEIR_ENGINE_WARMUP_H
#define WEIR_ENGINE_WARMUP_H

#include "engine/probe.h"

/* Loader thread; `folder_fd` is the model's folder, whose subfolder warmup has the data files.
 * WEIR_EINVAL and others: a configured run cannot be made or failed; the sentence names it. */
WEIR_MUST_USE enum weir_status warmup_run(const struct probe *probe, int folder_fd,
                                          struct weir_err *err);

/* True: the run succeeded; *size is which of PROBE_SIZES it had. */
bool warmup_canary(const struct probe *probe, uint32_t *size);

/* The inputs of the first configured run, one per input of the model, whose blocks the caller
 * lets go; *out is freed with mem_free().  Loader thread; WEIR_EINVAL and others as above,
 * WEIR_ENOMEM. */
WEIR_MUST_USE enum weir_status warmup_sample(const struct probe *probe, int folder_fd,
                                             struct tensor **out, struct weir_err *err);

#endif
