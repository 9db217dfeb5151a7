#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "util/protowire.h"

#define TEXT_BYTES 512
#define INNER 9   /* The field that the tests enter. */
#define SKIPPED 8 /* The field that they skip. */

/* What a reader of `message` sees when it comes in pieces of `piece` bytes, in words. */
static enum weir_status read_words(struct bytes message, size_t piece, char *out,
                                   struct weir_err *err)
{
    struct protowire wire;
    size_t size = 0;
    bool in_bytes = false;
    out[0] = '\0';
    protowire_init(&wire, message.size);
    for (size_t at = 0; at < message.size; at += piece) {
        const size_t left = message.size - at;
        /* Behind each piece ends an allocation, so that a sanitizer sees who reads on. */
        const size_t here = left < piece ? left : piece;
        char *copy = malloc(here);
        memcpy(copy, message.data + at, here);
        protowire_feed(&wire, (struct bytes){ copy, here });
        for (;;) {
            struct protowire_token token;
            const enum weir_status status = protowire_next(&wire, &token, err);
            if (status != WEIR_OK) {
                free(copy);
                return status;
            }
            if (token.kind == PROTOWIRE_MORE) {
                break;
            }
            static const char *const names[] = { "", "v", "w", "d", "b", "", "e" };
            const bool again = token.kind == PROTOWIRE_BYTES && in_bytes;
            in_bytes = token.kind == PROTOWIRE_BYTES;
            if (token.kind == PROTOWIRE_BYTES) {
                size += (size_t)snprintf(out + size, TEXT_BYTES - size, "%s%.*s", again ? "" : " ",
                                         (int)token.bytes.size, token.bytes.data);
            } else if (token.kind == PROTOWIRE_END) {
                size += (size_t)snprintf(out + size, TEXT_BYTES - size, " e");
            } else {
                size +=
                    (size_t)snprintf(out + size, TEXT_BYTES - size, " %s%u=%llu", names[token.kind],
                                     token.field, (unsigned long long)token.number);
            }
            if (token.kind == PROTOWIRE_BEGIN && token.field == INNER) {
                protowire_enter(&wire);
            }
            if (token.kind == PROTOWIRE_BEGIN && token.field == SKIPPED) {
                protowire_skip(&wire);
            }
        }
        free(copy);
    }
    return protowire_is_done(&wire) ? WEIR_OK : WEIR_EIO;
}

static const struct {
    struct bytes message;
    const char *words;
} whole[] = {
    { { "", 0 }, "" },
    { { "\x08\x96\x01", 3 }, " v1=150" },
    { { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 }, " v1=18446744073709551615" },
    { { "\x0d\x01\x02\x03\x04", 5 }, " w1=67305985" },
    { { "\x09\x01\x00\x00\x00\x00\x00\x00\x80", 9 }, " d1=9223372036854775809" },
    { { "\x12\x03"
        "abc",
        5 },
      " b2=3 abc e" },
    { { "\x12\x00\x10\x00", 4 }, " b2=0 e v2=0" },
    { { "\x4a\x07\x12\x03"
        "abc\x08\x05\x10\x07",
        11 },
      " b9=7 b2=3 abc e v1=5 e v2=7" },
    { { "\x4a\x02\x4a\x00\x10\x07", 6 }, " b9=2 b9=0 e e v2=7" },
    { { "\x42\x03xyz\x10\x07", 7 }, " b8=3 v2=7" },
    /* A group of everything, one within it, is not there. */
    { { "\x1b\x08\x01\x23\x12\x02hi\x24\x4a\x01\x08\x0d"
        "aaaa\x09"
        "bbbbbbbb\x1c\x10\x07",
        29 },
      " v2=7" },
    { { "\xf8\xff\xff\xff\x0f\x01", 6 }, " v536870911=1" },
};

static void test_reads_all_wherever_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        for (size_t piece = 1; piece <= whole[i].message.size + 1; piece++) {
            char words[TEXT_BYTES];
            struct weir_err err = { 0 };
            const enum weir_status status = read_words(whole[i].message, piece, words, &err);
            if (status != WEIR_OK || strcmp(words, whole[i].words) != 0) {
                fail_msg("message %zu in pieces of %zu: %s %s,%s, expected%s", i, piece,
                         weir_status_name(status), err.text, words, whole[i].words);
            }
        }
    }
}

static const struct {
    struct bytes message;
    const char *says;
} broken[] = {
    { { "\x08", 1 }, "ends within a number" },
    { { "\x08\x80", 2 }, "ends within a number" },
    { { "\x80", 1 }, "ends within a number" },
    { { "\x0d\x01\x02\x03", 4 }, "ends within a number" },
    { { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11 }, "more than 64 bits" },
    { { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12 }, "more than 64 bits" },
    { { "\x12\x04"
        "abc",
        5 },
      "beyond the message" },
    { { "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 }, "beyond the message" },
    { { "\x4a\x02\x12\x01x", 5 }, "beyond the message" },
    { { "\x4a\x01\x08\x05", 4 }, "ends within a number" },
    { { "\x00\x01", 2 }, "field number" },
    { { "\xf8\xff\xff\xff\x1f\x01", 6 }, "field number" },
    { { "\x0e\x01", 2 }, "unknown wire type" },
    { { "\x0f\x01", 2 }, "unknown wire type" },
    { { "\x1c", 1 }, "did not begin" },
    { { "\x1b\x24", 2 }, "did not begin" },
    { { "\x1b\x08\x01", 3 }, "ends within a group" },
    { { "\x4a\x01\x1b\x1c", 4 }, "ends within a group" },
    { { "\x1b\x1b\x1b\x1b\x1b\x1b\x1b\x1b\x1b", 9 }, "too many groups" },
};

static void test_refuses_what_is_no_message(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        for (size_t piece = 1; piece <= broken[i].message.size; piece++) {
            char words[TEXT_BYTES];
            struct weir_err err = { 0 };
            const enum weir_status status = read_words(broken[i].message, piece, words, &err);
            if (status != WEIR_EINVAL || strstr(err.text, broken[i].says) == NULL) {
                fail_msg("message %zu in pieces of %zu: %s '%s', expected '%s'", i, piece,
                         weir_status_name(status), err.text, broken[i].says);
            }
        }
    }
}

static void test_more_than_the_message_is_refused(void **state)
{
    (void)state;
    struct protowire wire;
    struct protowire_token token;
    protowire_init(&wire, 2);
    protowire_feed(&wire, BYTES_LITERAL("\x08\x01\x08"));
    assert_int_equal(protowire_next(&wire, &token, NULL), WEIR_OK);
    assert_int_equal(token.number, 1);
    assert_int_equal(protowire_next(&wire, &token, NULL), WEIR_EINVAL);
}

static void write_all(struct protowire_out *out)
{
    protowire_put_number(out, 1, 150);
    protowire_put_bytes(out, 2, BYTES_LITERAL("abc"));
    protowire_put_double(out, 3, 1.0);
    protowire_put_begin(out, 16, 300);
}

static void test_counts_what_it_writes(void **state)
{
    (void)state;
    static const char expected[] = "\x08\x96\x01\x12\x03"
                                   "abc\x19\x00\x00\x00\x00\x00\x00\xf0\x3f\x82\x01\xac\x02";
    struct protowire_out out = { 0 };
    write_all(&out);
    assert_int_equal(out.size, sizeof expected - 1);
    uint8_t bytes[sizeof expected];
    out = (struct protowire_out){ .at = bytes };
    write_all(&out);
    assert_int_equal(out.at - bytes, sizeof expected - 1);
    assert_memory_equal(bytes, expected, sizeof expected - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_all_wherever_it_is_cut),
        cmocka_unit_test(test_refuses_what_is_no_message),
        cmocka_unit_test(test_more_than_the_message_is_refused),
        cmocka_unit_test(test_counts_what_it_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
