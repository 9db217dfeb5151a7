/*
 * proof.h — may requests share a run?  The answer of an experiment.
 *
 * A leading dimension of -1 does not prove that rows are independent: a model may normalise over
 * its batch, sum it up, or compare its rows.  So two different rows are run together and alone:
 * only if outputs have as many rows as inputs and each row comes out as it does alone may batching
 * be on.
 */
#ifndef WEIR_ENGINE_PROOF_H
#define WEIR_ENGINE_PROOF_H

#include "engine/bucket.h"
#include "engine/probe.h"

/* Loader thread.  WEIR_OK: rows are independent.  WEIR_ECONFLICT: they are not, `why` says which
 * output shows it.  Otherwise no trial ran to its end; `why` is "could not be proved: ..." about
 * the first. */
WEIR_MUST_USE enum weir_status proof_rows(const struct probe *probe, struct weir_err *why);

/* The same of padding: a row that is padded as `plan` says and cut back comes out as it does by
 * itself. */
WEIR_MUST_USE enum weir_status proof_padding(const struct probe *probe,
                                             const struct bucket_plan *plan, struct weir_err *why);

/* Compares one row, or all of a tensor: floats within rtol 1e-4 and atol 1e-5 (halves 1e-2 and
 * 1e-3), all else exactly.  Both have `size` bytes. */
bool proof_close(enum dtype dtype, const uint8_t *a, const uint8_t *b, size_t size);

#endif
