/*
 * input.h — NAME=VALUE on the command line as an input tensor.
 */
#ifndef WEIR_CMD_INPUT_H
#define WEIR_CMD_INPUT_H

#include "cmd/session.h"

/* The word behind --input, as the command line is read: WEIR_EINVAL when it is no assignment. */
WEIR_MUST_USE enum weir_status input_check(const char *word, struct weir_err *err);

/*
 * Reads "NAME=@FILE" or "NAME=TEXT", which input_check() has seen, for the model.  Files are told
 * by their content: .npy, a picture (PNG, JPEG, WebP), numbers as text; for a BYTES input any file,
 * as one element.  Texts as literal_read().  `picture` becomes the file's path when it was a
 * picture.  WEIR_EINVAL, WEIR_ENOENT, WEIR_EIO, WEIR_ENOMEM.
 */
WEIR_MUST_USE enum weir_status input_read(struct arena *arena, const char *assignment,
                                          const struct interface *model, struct value *out,
                                          const char **picture, struct weir_err *err);

#endif
