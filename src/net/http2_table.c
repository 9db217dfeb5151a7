/*
 * The table takes fields in the order in which they are first sent.  When the server does not take
 * the whole table, all fields are spelled out.
 */
#include "net/http2_table.h"

#define ENTRY_BYTES 32 /* What the protocol adds to an entry's size. */
#define NOT_SENT UINT32_MAX

static void put_byte(struct http2_out *out, unsigned value)
{
    const char byte = (char)value;
    http2_out_put(out, &byte, 1);
}

/* An integer with a prefix of `bits`, RFC 7541 5.1. */
static void put_integer(struct http2_out *out, unsigned first, unsigned bits, size_t value)
{
    const size_t most = ((size_t)1 << bits) - 1;
    if (value < most) {
        put_byte(out, first | (unsigned)value);
        return;
    }
    put_byte(out, first | (unsigned)most);
    value -= most;
    while (value >= 128) {
        put_byte(out, (unsigned)(value & 127) | 128);
        value >>= 7;
    }
    put_byte(out, (unsigned)value);
}

static void put_text(struct http2_out *out, struct bytes text)
{
    put_integer(out, 0, 7, text.size);
    http2_out_put(out, text.data, text.size);
}

static void put_field(struct http2_table *table, const struct http2_plan *plan, uint32_t number,
                      struct http2_out *out)
{
    const struct http2_client_field *field = &plan->fields[number];
    if (!table->spelled && table->inserted[number] != NOT_SENT) {
        /* 61 entries are the protocol's own; then come the newest. */
        put_integer(out, 0x80, 7, 61 + table->inserted_count - table->inserted[number]);
        return;
    }
    const size_t size = field->name.size + field->value.size + ENTRY_BYTES;
    const bool insert = !table->spelled && table->bytes + size <= HTTP2_TABLE_BYTES;
    put_byte(out, insert ? 0x40 : 0);
    put_text(out, field->name);
    put_text(out, field->value);
    if (insert) {
        table->inserted[number] = table->inserted_count++;
        table->bytes += size;
    }
}

void http2_table_init(struct http2_table *table)
{
    *table = (struct http2_table){ 0 };
    memset(table->inserted, 0xff, sizeof(table->inserted)); /* NOT_SENT. */
}

void http2_table_resize(struct http2_table *table, uint32_t bytes)
{
    if (bytes < HTTP2_TABLE_BYTES && !table->spelled) {
        table->spelled = true;
        table->shrunk = true;
    }
}

void http2_table_put(struct http2_table *table, const struct http2_plan *plan,
                     const struct http2_head *head, struct http2_out *out)
{
    if (table->shrunk) {
        put_byte(out, 0x20); /* The table has no entries from here on. */
        table->shrunk = false;
    }
    for (uint32_t i = 0; i < head->count; i++) {
        put_field(table, plan, head->fields[i], out);
    }
}
