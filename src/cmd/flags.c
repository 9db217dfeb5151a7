#include "cmd/flags.h"

#include <stdio.h>
#include <string.h>

#include "util/near.h"

/* The words of a command line, read from left to right. */
struct words {
    const struct flag *table;
    char **words;
    int count;
    int at;
};

static const struct flag *find(const struct flag *table, const char *word, size_t size)
{
    for (const struct flag *flag = table; flag->name != NULL; flag++) {
        if (strlen(flag->name) == size && strncmp(flag->name, word, size) == 0) {
            return flag;
        }
    }
    return NULL;
}

static enum weir_status unknown(const struct flag *table, const char *word, size_t size,
                                struct weir_err *err)
{
    char name[NEAR_WORD_BYTES];
    struct near near;
    (void)snprintf(name, sizeof(name), "%.*s", (int)size, word);
    near_begin(&near, name);
    near_look(&near, "--help");
    for (const struct flag *flag = table; flag->name != NULL; flag++) {
        near_look(&near, flag->name);
    }
    return near.word[0] == '\0'
               ? err_set(err, WEIR_EINVAL, "unknown option '%s'", name)
               : err_set(err, WEIR_EINVAL, "unknown option '%s'; did you mean '%s'?", name,
                         near.word);
}

/* Of an option: its key, and its value, which follows as the next word or behind "=". */
static enum weir_status read_option(struct words *words, const char *word, int *key,
                                    const char **value, struct weir_err *err)
{
    const size_t size = strcspn(word, "=");
    const struct flag *flag = find(words->table, word, size);
    const bool given = word[size] == '=';
    if (flag == NULL) {
        return unknown(words->table, word, size, err);
    }
    *key = flag->key;
    *value = given ? word + size + 1 : NULL;
    if (flag->value == NULL && given) {
        return err_set(err, WEIR_EINVAL, "%s takes no value, found '%s'", flag->name, *value);
    }
    if (flag->value != NULL && !given) {
        if (words->at == words->count) {
            return err_set(err, WEIR_EINVAL, "%s: nothing follows, expected %s", flag->name,
                           flag->value);
        }
        *value = words->words[words->at++];
    }
    return WEIR_OK;
}

enum weir_status flags_read(const struct flag *table, int count, char **words, flag_take *take,
                            void *context, struct weir_err *err)
{
    struct words left = { .table = table, .words = words, .count = count };
    bool plain = false; /* "--" was read: no options from here on. */
    enum weir_status status = WEIR_OK;
    while (status == WEIR_OK && left.at < left.count) {
        const char *word = left.words[left.at++];
        int key = FLAGS_WORD;
        const char *value = word;
        if (!plain && strcmp(word, "--") == 0) {
            plain = true;
            continue;
        }
        if (!plain && word[0] == '-' && word[1] != '\0') {
            status = read_option(&left, word, &key, &value, err);
        }
        if (status == WEIR_OK) {
            status = take(context, key, value, err);
        }
    }
    return status;
}

enum weir_status flags_append(const char *name, const char **list, uint32_t *count, uint32_t max,
                              const char *value, struct weir_err *err)
{
    if (*count == max) {
        return err_set(err, WEIR_EINVAL, "%s: given more than %u times", name, max);
    }
    list[(*count)++] = value;
    return WEIR_OK;
}

enum weir_status flags_number(const char *name, const char *value, uint64_t max, uint64_t *out,
                              struct weir_err *err)
{
    uint64_t number = 0;
    if (!bytes_to_u64(bytes_of(value), max, &number) || number == 0) {
        return err_set(err, WEIR_EINVAL, "%s: found '%s', expected a whole number from 1 to %llu",
                       name, value, (unsigned long long)max);
    }
    *out = number;
    return WEIR_OK;
}

enum weir_status flags_duration(const char *name, const char *value, uint64_t *out_ns,
                                struct weir_err *err)
{
    return bytes_to_duration_ns(bytes_of(value), out_ns)
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL,
                         "%s: found '%s', expected a duration such as 30s or 500ms", name, value);
}

/* As it is typed, with what follows it. */
static int spell(const struct flag *flag, char *out, size_t size)
{
    return snprintf(out, size, "%s%s%s", flag->name, flag->value == NULL ? "" : " ",
                    flag->value == NULL ? "" : flag->value);
}

void flags_help(const struct flag *table, struct buffer *out)
{
    char left[64];
    int width = 24;
    for (const struct flag *flag = table; flag->name != NULL; flag++) {
        const int its = spell(flag, left, sizeof(left));
        width = its > width ? its : width;
    }
    for (const struct flag *flag = table; flag->name != NULL; flag++) {
        (void)spell(flag, left, sizeof(left));
        buffer_printf(out, "  %-*s %s\n", width, left, flag->help);
    }
}
