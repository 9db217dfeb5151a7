#include "cmd/flags.h"

#include <stdio.h>
#include <string.h>

void flags_init(struct flags *flags, const struct flag *table, int count, char **words)
{
    *flags = (struct flags){ .table = table, .words = words, .count = count };
}

static const struct flag *find(const struct flag *table, const char *word, size_t size)
{
    for (const struct flag *flag = table; flag->name != NULL; flag++) {
        if (strlen(flag->name) == size && strncmp(flag->name, word, size) == 0) {
            return flag;
        }
    }
    return NULL;
}

static int read_option(struct flags *flags, const char *word, struct weir_err *err)
{
    const size_t size = strcspn(word, "=");
    const struct flag *flag = find(flags->table, word, size);
    const char *value = word[size] == '=' ? word + size + 1 : NULL;
    if (flag == NULL) {
        (void)err_set(err, WEIR_EINVAL, "unknown option '%.*s'", (int)size, word);
        return FLAGS_WRONG;
    }
    if (flag->value == NULL && value != NULL) {
        (void)err_set(err, WEIR_EINVAL, "%s takes no value, found '%s'", flag->name, value);
        return FLAGS_WRONG;
    }
    if (flag->value != NULL && value == NULL) {
        if (flags->at == flags->count) {
            (void)err_set(err, WEIR_EINVAL, "%s: nothing follows, expected %s", flag->name,
                          flag->value);
            return FLAGS_WRONG;
        }
        value = flags->words[flags->at++];
    }
    flags->value = value;
    return flag->key;
}

int flags_next(struct flags *flags, struct weir_err *err)
{
    if (flags->at == flags->count) {
        return FLAGS_DONE;
    }
    const char *word = flags->words[flags->at++];
    if (!flags->plain && strcmp(word, "--") == 0) {
        flags->plain = true;
        return flags_next(flags, err);
    }
    if (flags->plain || word[0] != '-' || word[1] == '\0') {
        flags->value = word;
        return FLAGS_WORD;
    }
    return read_option(flags, word, err);
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
