/*
 * The settings of simulated models, read by the one table in sim.h.
 */
#include "backend/sim.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "util/err.h"

enum kind { KIND_DURATION, KIND_SIZE, KIND_COUNT, KIND_NUMBER, KIND_SWITCH, KIND_TEXT };

static const char *const kind_texts[] = {
    [KIND_DURATION] = "a duration such as 500us",
    [KIND_SIZE] = "a size such as 64MiB",
    [KIND_COUNT] = "a whole number",
    [KIND_NUMBER] = "a number from 0 to 1",
    [KIND_SWITCH] = "true or false",
    [KIND_TEXT] = "a text",
};

struct row {
    const char *name;
    enum kind kind;
    const char *value;
    size_t offset;
};

static const struct row rows[] = {
#define SIM_ROW(field, kind, value, help) \
    { #field, KIND_##kind, value, offsetof(struct sim_settings, field) },
    SIM_SETTINGS(SIM_ROW)
#undef SIM_ROW
};

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static bool read_number(const char *text, double *out)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0 && value <= 1)) {
        return false;
    }
    *out = value;
    return true;
}

static bool read_switch(const char *text, bool *out)
{
    *out = strcmp(text, "true") == 0;
    return *out || strcmp(text, "false") == 0;
}

static bool read_value(const struct row *row, const char *text, struct sim_settings *out)
{
    void *place = (char *)out + row->offset;
    switch (row->kind) {
    case KIND_DURATION:
        return bytes_to_duration_ns(bytes_of(text), place);
    case KIND_SIZE:
        return bytes_to_size(bytes_of(text), place);
    case KIND_COUNT:
        return bytes_to_u64(bytes_of(text), UINT64_MAX, place);
    case KIND_NUMBER:
        return read_number(text, place);
    case KIND_SWITCH:
        return read_switch(text, place);
    case KIND_TEXT:
        *(const char **)place = text;
        return true;
    }
    return false;
}

static const struct row *find_row(const char *name)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static enum weir_status refuse_name(const char *name, struct weir_err *err)
{
    struct buffer names;
    buffer_init(&names, 400);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        buffer_printf(&names, i == 0 ? "%s" : ", %s", rows[i].name);
    }
    buffer_char(&names, '\0');
    const enum weir_status status =
        err_set(err, WEIR_EINVAL, "unknown setting '%s'; a simulated model has: %s", name,
                names.failed ? "see the documentation" : names.data);
    buffer_finish(&names);
    return status;
}

enum weir_status sim_settings_read(struct sim_settings *out, const struct setting *settings,
                                   uint32_t count, struct weir_err *err)
{
    struct sim_settings made = { 0 };
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (!read_value(&rows[i], rows[i].value, &made)) {
            abort(); /* The table contradicts itself. */
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct row *row = find_row(settings[i].key);
        if (row == NULL) {
            return refuse_name(settings[i].key, err);
        }
        if (!read_value(row, settings[i].value, &made)) {
            return err_set(err, WEIR_EINVAL, "setting '%s' is '%.80s', expected %s", row->name,
                           settings[i].value, kind_texts[row->kind]);
        }
    }
    *out = made;
    return WEIR_OK;
}

static bool read_dimension(struct bytes text, int64_t *out)
{
    uint64_t value;
    if (bytes_equal(text, BYTES_LITERAL("-1"))) {
        *out = -1;
        return true;
    }
    if (!bytes_to_u64(text, TENSOR_ELEMENTS_MAX, &value)) {
        return false;
    }
    *out = (int64_t)value;
    return true;
}

/* `text` is what stands between the brackets. */
static bool read_shape(struct bytes text, struct shape *out)
{
    out->rank = 0;
    while (text.size > 0) {
        const char *comma = memchr(text.data, ',', text.size);
        const size_t size = comma == NULL ? text.size : (size_t)(comma - text.data);
        if (out->rank == TENSOR_RANK_MAX ||
            !read_dimension((struct bytes){ text.data, size }, &out->dims[out->rank])) {
            return false;
        }
        out->rank++;
        const size_t step = comma == NULL ? size : size + 1;
        if (comma != NULL && step == text.size) {
            return false;
        }
        text = (struct bytes){ text.data + step, text.size - step };
    }
    return true;
}

enum weir_status sim_spec_read(struct bytes text, struct bytes *name, struct tensor_spec *out,
                               struct weir_err *err)
{
    const char *colon = memchr(text.data, ':', text.size);
    const char *open = memchr(text.data, '[', text.size);
    struct tensor_spec spec = { 0 };
    if (colon == NULL || colon == text.data || open == NULL || open < colon ||
        text.data[text.size - 1] != ']' ||
        !dtype_of((struct bytes){ colon + 1, (size_t)(open - colon - 1) }, &spec.dtype) ||
        !read_shape((struct bytes){ open + 1, text.size - (size_t)(open + 1 - text.data) - 1 },
                    &spec.shape)) {
        return err_set(err, WEIR_EINVAL, "'%.*s' is no tensor such as x:FP32[-1,16]",
                       text.size > 80 ? 80 : (int)text.size, text.data);
    }
    *name = (struct bytes){ text.data, (size_t)(colon - text.data) };
    *out = spec;
    return WEIR_OK;
}

enum weir_status sim_slowness_read(const char *text, const char *device, double *out,
                                   struct weir_err *err)
{
    const char *whole = text;
    double slowness = 1;
    for (text += strspn(text, " "); *text != '\0'; text += strspn(text, " ")) {
        const size_t size = strcspn(text, " ");
        const char *colon = memchr(text, ':', size);
        char *end = NULL;
        const double value = colon == NULL ? 0 : strtod(colon + 1, &end);
        if (colon == NULL || end != text + size || !(value > 0 && value <= 1000)) {
            return err_set(err, WEIR_EINVAL,
                           "setting 'slower' is '%.80s', expected NAME:NUMBER such as gpu1:2.5",
                           whole);
        }
        if ((size_t)(colon - text) == strlen(device) && memcmp(text, device, strlen(device)) == 0) {
            slowness = value;
        }
        text += size;
    }
    *out = slowness;
    return WEIR_OK;
}
