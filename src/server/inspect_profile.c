/*
 * What a server has learned about the model and left beside it.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "engine/profile_file.h"
#include "server/inspect_impl.h"
#include "util/file.h"
#include "util/json.h"
#include "util/mem.h"

#define NAME_BYTES 64
#define PATH_TEXT_BYTES (PATH_BYTES + NAME_BYTES)

/* NULL where there is none, or none that can be read: then `err` says so, or nothing. */
static struct profile_file *read_profile(const struct inspection *self, char name[NAME_BYTES],
                                         struct weir_err *err)
{
    char path[PATH_TEXT_BYTES];
    struct buffer text = { 0 };
    struct profile_file *file = mem_try_zero(1, sizeof(*file));
    if (self->folder[0] == '\0' || file == NULL) {
        mem_free(file);
        return NULL;
    }
    (void)snprintf(name, NAME_BYTES, ".weir-profile.%" PRIu64 ".json", self->version);
    (void)snprintf(path, sizeof(path), "%s/%s", self->folder, name);
    enum weir_status status = file_read(AT_FDCWD, path, PROFILE_FILE_BYTES_MAX, &text, err);
    if (status == WEIR_ENOENT) {
        *err = (struct weir_err){ 0 };
    }
    if (status == WEIR_OK) {
        const struct bytes bytes = { text.data == NULL ? "" : text.data, text.size };
        status = profile_file_read(bytes, NULL, file, err);
    }
    buffer_finish(&text);
    if (status != WEIR_OK) {
        mem_free(file);
        return NULL;
    }
    return file;
}

static void write_dims(struct buffer *out, const struct profile_dims *dims)
{
    buffer_char(out, '[');
    for (uint32_t i = 0; i < dims->count; i++) {
        json_comma(out);
        buffer_i64(out, dims->dims[i]);
    }
    buffer_char(out, ']');
}

static void write_line(struct buffer *out, const struct profile_file_shape *at)
{
    const struct profile_shape *shape = &at->shape;
    buffer_text(out, "  ");
    if (shape->dims.count == 0) {
        buffer_text(out, "all shapes");
    } else {
        buffer_text(out, "sizes ");
        write_dims(out, &shape->dims);
    }
    if (at->tau0_us + at->alpha_us > 0) {
        buffer_printf(out, ": %.1f us and %.2f us per row, +-%.0f %%", at->tau0_us, at->alpha_us,
                      100 * shape->jitter);
    }
    buffer_printf(out, "; %" PRIu64 " runs of up to %" PRIu64 " rows", shape->runs,
                  shape->rows_seen);
    if (shape->rows_cap > 0) {
        buffer_printf(out, "; more than %" PRIu32 " rows did not fit in memory", shape->rows_cap);
    }
    buffer_char(out, '\n');
}

void inspect_profile_text(const struct inspection *self, struct buffer *out)
{
    char name[NAME_BYTES];
    struct weir_err err = { 0 };
    struct profile_file *file = read_profile(self, name, &err);
    if (file != NULL) {
        buffer_printf(out, "profile, learned while it served (%s)\n", name);
        for (uint32_t i = 0; i < file->count; i++) {
            write_line(out, &file->shapes[i]);
        }
    } else if (err.text[0] != '\0') {
        buffer_printf(out, "profile: %s: %s\n", name, err.text);
    }
    mem_free(file);
}

void inspect_profile_json(const struct inspection *self, struct buffer *out)
{
    char name[NAME_BYTES];
    struct weir_err err = { 0 };
    struct profile_file *file = read_profile(self, name, &err);
    if (file != NULL) {
        json_key(out, "profile");
        buffer_char(out, '[');
        for (uint32_t i = 0; i < file->count; i++) {
            const struct profile_file_shape *at = &file->shapes[i];
            json_comma(out);
            buffer_text(out, "{\"dims\":");
            write_dims(out, &at->shape.dims);
            json_key(out, "tau0_us");
            json_double(out, at->tau0_us);
            json_key(out, "alpha_us");
            json_double(out, at->alpha_us);
            json_key(out, "runs");
            buffer_u64(out, at->shape.runs);
            json_key(out, "rows_seen");
            buffer_u64(out, at->shape.rows_seen);
            json_key(out, "rows_cap");
            buffer_u64(out, at->shape.rows_cap);
            buffer_char(out, '}');
        }
        buffer_char(out, ']');
    } else if (err.text[0] != '\0') {
        json_key(out, "profile_problem");
        json_string(out, err.text);
    }
    mem_free(file);
}
