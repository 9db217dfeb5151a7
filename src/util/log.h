/*
 * log.h — one line per event, JSON or text, to standard error.
 *
 * Any thread.  A line is built on the stack (4 KiB at most, cut beyond) and
 * written with one write(2).  Control bytes in values are escaped, so no value
 * can forge a line.  Floors below `api` never log above LOG_DEBUG.
 *
 *     log_event(LOG_INFO, "model loaded", LOG_STR("model", name), LOG_MS("took_ms", ns));
 */
#ifndef WEIR_UTIL_LOG_H
#define WEIR_UTIL_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, text) from most to least urgent. */
#define LOG_LEVELS(X)     \
    X(ERROR, "error")     \
    X(WARNING, "warning") \
    X(INFO, "info")       \
    X(DEBUG, "debug")

enum log_level {
#define LOG_LEVEL_ENUM(name, text) LOG_##name,
    LOG_LEVELS(LOG_LEVEL_ENUM)
#undef LOG_LEVEL_ENUM
};

enum log_kind {
    LOG_KIND_END,
    LOG_KIND_STR,
    LOG_KIND_U64,
    LOG_KIND_I64,
    LOG_KIND_MS,
    LOG_KIND_BYTES
};

/* One key and value; made by the macros below. */
struct log_field {
    enum log_kind kind;
    const char *key;
    const char *text;
    uint64_t number;
};

#define LOG_END ((struct log_field){ LOG_KIND_END, NULL, NULL, 0 })
#define LOG_STR(key, value) ((struct log_field){ LOG_KIND_STR, (key), (value), 0 })
#define LOG_U64(key, value) ((struct log_field){ LOG_KIND_U64, (key), NULL, (uint64_t)(value) })
#define LOG_I64(key, value) ((struct log_field){ LOG_KIND_I64, (key), NULL, (uint64_t)(value) })
#define LOG_MS(key, ns) ((struct log_field){ LOG_KIND_MS, (key), NULL, (uint64_t)(ns) })
#define LOG_BYTES(key, value) ((struct log_field){ LOG_KIND_BYTES, (key), NULL, (uint64_t)(value) })

/* Set once at start; the level may be changed at any time from any thread. */
void log_setup(bool json);
bool log_is_json(void);

/* From now on a line first wipes what stands in the terminal's last one: a line of progress. */
void log_wipe_line(bool wipe);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
bool log_enabled(enum log_level level);

/* Fields end with LOG_END. */
void log_fields(enum log_level level, const char *message, const struct log_field *fields);

/* log_event(level, message, field...): the fields, and any work in their values, cost nothing when
 * the level is off.  The second macro splits off the message, so that fields may be absent. */
#define log_event(level, ...) LOG_EVENT(level, __VA_ARGS__, LOG_END)
#define LOG_EVENT(level, message, ...)                                                 \
    do {                                                                               \
        if (log_enabled(level)) {                                                      \
            log_fields((level), (message), (const struct log_field[]){ __VA_ARGS__ }); \
        }                                                                              \
    } while (0)

#endif
