#include "net/fields.h"

#include <stdbool.h>
#include <string.h>

#include <llhttp.h>

/* What one pass of llhttp over a header collects. */
struct collect {
    struct http_field *fields;
    uint32_t count;
    uint32_t room;
    bool complete;
};

static int on_name(llhttp_t *parser, const char *at, size_t size)
{
    struct collect *c = parser->data;
    if (c->count == c->room) {
        return -1;
    }
    c->fields[c->count] = (struct http_field){ .name = { at, size } };
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t size)
{
    struct collect *c = parser->data;
    struct bytes *value = &c->fields[c->count].value;
    if (value->data == NULL) {
        value->data = at;
    }
    value->size = (size_t)(at + size - value->data);
    return 0;
}

static int on_value_complete(llhttp_t *parser)
{
    struct collect *c = parser->data;
    struct bytes *value = &c->fields[c->count].value;
    *value = value->data == NULL ? BYTES_LITERAL("") : fields_trim(*value);
    c->count++;
    return 0;
}

static int on_head_complete(llhttp_t *parser)
{
    struct collect *c = parser->data;
    c->complete = true;
    return HPE_PAUSED; /* Bodies are framed elsewhere. */
}

enum weir_status fields_read(const char *prefix, struct bytes head, struct http_field *fields,
                             uint32_t room, uint32_t *count, struct weir_err *err)
{
    static const llhttp_settings_t settings = {
        .on_header_field = on_name,
        .on_header_value = on_value,
        .on_header_value_complete = on_value_complete,
        .on_headers_complete = on_head_complete,
    };
    struct collect c = { .fields = fields, .room = room };
    llhttp_t parser;
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    parser.data = &c;
    llhttp_errno_t code = HPE_OK;
    if (prefix[0] != '\0') {
        code = llhttp_execute(&parser, prefix, strlen(prefix));
    }
    if (code == HPE_OK) {
        code = llhttp_execute(&parser, head.data, head.size);
    }
    if (c.complete && code == HPE_PAUSED &&
        llhttp_get_error_pos(&parser) == head.data + head.size) {
        *count = c.count;
        return WEIR_OK;
    }
    const char *reason = llhttp_get_error_reason(&parser);
    if (c.complete || code == HPE_OK || reason == NULL || reason[0] == '\0') {
        reason = "malformed";
    }
    return err_set(err, WEIR_EINVAL, "request header: %s", reason);
}

struct bytes fields_trim(struct bytes text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.size--;
    }
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t')) {
        text.size--;
    }
    return text;
}
