/*
 * seeds.h — what the simulations share: a world drawn from a seed, and laws that must hold in it.
 *
 * A world has `uint64_t seed` and `uint64_t random`.
 */
#ifndef WEIR_TESTS_SEEDS_H
#define WEIR_TESTS_SEEDS_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the program with a printf sentence and the world's seed where the condition does not
 * hold. */
#define LAW(condition, ...)                                                 \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "seed %" PRIu64 ": law broken: ", world->seed); \
            fprintf(stderr, __VA_ARGS__);                                   \
            fprintf(stderr, " (%s:%d)\n", __FILE__, __LINE__);              \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

/* What a seed's draws begin with. */
static inline uint64_t dice_of(uint64_t seed)
{
    return seed * UINT64_C(0xD1342543DE82EF95);
}

/* SplitMix64: small, and the same everywhere. */
static inline uint64_t dice_throw(uint64_t *random)
{
    *random += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t z = *random;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* 0 .. below - 1. */
static inline uint64_t dice_below(uint64_t *random, uint64_t below)
{
    return dice_throw(random) % below;
}

/* 0 <= x < 1. */
static inline double dice_part(uint64_t *random)
{
    return (double)(dice_throw(random) >> 11) * 0x1p-53;
}

static inline bool dice_chance(uint64_t *random, uint32_t percent)
{
    return dice_below(random, 100) < percent;
}

/* From first on, before end. */
struct seeds {
    uint64_t first;
    uint64_t end;
};

/* `count` seeds from 1 on, or what the words `--seed N`, `--seeds N` or `--seed FIRST --seeds N`
 * ask for. */
static inline struct seeds seeds_asked(int argc, char **argv, uint64_t count)
{
    struct seeds seeds = { 1, 1 + count };
    for (int i = 1; i + 1 < argc; i++) {
        const uint64_t number = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--seeds") == 0) {
            seeds.end = seeds.first + number;
        } else if (strcmp(argv[i], "--seed") == 0) {
            seeds = (struct seeds){ number, number + 1 };
        }
    }
    return seeds;
}

#endif
