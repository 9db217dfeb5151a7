/*
 * onnx_memory.h — the memory that ONNX Runtime works with, counted by model.
 *
 * One allocator serves all sessions.  A block is booked on the *account* of the model that the
 * thread was working for when it asked, and taken off the same account wherever it is freed, after
 * the model's unload too.  Small blocks come from the C library; large ones are mapped, so that
 * they are back with the system once they are unmapped.  A few large ones are kept for the next
 * run: never more than the last runs needed at once, whatever shapes they had.
 */
#ifndef WEIR_BACKEND_ONNX_MEMORY_H
#define WEIR_BACKEND_ONNX_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "weir/status.h"

struct OrtEnv;
struct OrtStatus;
struct onnx_account;

/* Once per environment, before its first session.  NULL, or the runtime's failure. */
WEIR_MUST_USE struct OrtStatus *onnx_memory_register(struct OrtEnv *env);

/* NULL: out of memory. */
WEIR_MUST_USE struct onnx_account *onnx_account_create(void);

/* What it keeps is freed now, itself with its last block.  No thread works for it.  NULL is
 * fine. */
void onnx_account_close(struct onnx_account *account);

/* From now on the calling thread works for this account, NULL: for none; returns the one before. */
struct onnx_account *onnx_account_enter(struct onnx_account *account);

/* True for ever once a thread that worked for it has touched a page of a file that was shortened
 * meanwhile (vanish.h).  Any thread. */
bool onnx_account_lost(const struct onnx_account *account);

/* A run has ended.  Any thread. */
void onnx_account_tick(struct onnx_account *account);

/* Frees what is kept for the next run.  Any thread. */
void onnx_account_trim(struct onnx_account *account);

/* Bytes now, what is kept included, and the most there ever were.  Any thread. */
void onnx_account_read(const struct onnx_account *account, uint64_t *bytes, uint64_t *bytes_peak);

#endif
