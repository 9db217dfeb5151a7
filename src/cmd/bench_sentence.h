/*
 * bench_sentence.h — what answers count as, and what servers say when they refuse, with counts.
 *
 * One thread.  Nothing is allocated.
 */
#ifndef WEIR_CMD_BENCH_SENTENCE_H
#define WEIR_CMD_BENCH_SENTENCE_H

#include "cmd/bench_run.h"
#include "cmd/bench_wire.h"

#define SENTENCES_MAX 12
#define SENTENCE_BYTES 200
#define SENTENCE_CODE_BYTES 24

struct sentence {
    char code[SENTENCE_CODE_BYTES];
    char text[SENTENCE_BYTES];
    uint64_t count;
};

/* Those that differ only in numbers count as one, the first seen.  Zeroed at the start. */
struct sentences {
    struct sentence list[SENTENCES_MAX]; /* The last one gathers what has no room. */
    uint32_t count;
};

/* `*code` is what it is called ("503", "UNAVAILABLE"), perhaps in `room` of SENTENCE_CODE_BYTES. */
enum bench_outcome sentences_outcome(const struct wire_answer *answer, const char **code,
                                     char *room);

void sentences_note(struct sentences *sentences, const char *code,
                    const struct wire_answer *answer);

#endif
