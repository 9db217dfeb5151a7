#include "cmd/bench_sentence.h"

#include <stdio.h>
#include <string.h>

#include "cmd/rpc.h"

enum bench_outcome sentences_outcome(const struct wire_answer *answer, const char **code,
                                     char *room)
{
    if (answer->broken) {
        *code = "broken";
        return BENCH_FAILED;
    }
    if (answer->grpc >= 0) {
        *code = rpc_code_name((uint64_t)answer->grpc);
        return bench_outcome_of_grpc(answer->grpc);
    }
    if (answer->http == 200) {
        *code = "200";
        return BENCH_OK;
    }
    (void)snprintf(room, SENTENCE_CODE_BYTES, "%d", answer->http);
    *code = room;
    return bench_outcome_of_http(answer->http);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *past_number(const char *at)
{
    while (is_digit(*at) || (*at == '.' && is_digit(at[1]))) {
        at++;
    }
    return at;
}

/* Equal, with any number for any other. */
static bool are_alike(const char *a, const char *b)
{
    while (*a != '\0' && *b != '\0') {
        if (is_digit(*a) && is_digit(*b)) {
            a = past_number(a);
            b = past_number(b);
        } else if (*a++ != *b++) {
            return false;
        }
    }
    return *a == *b;
}

static void put(char *out, size_t *size, char c)
{
    if (*size + 1 < SENTENCE_BYTES) {
        out[(*size)++] = (unsigned char)c < ' ' ? ' ' : c;
        out[*size] = '\0';
    }
}

/* {"error":"..."} as its sentence, or the text as it is.  It may be cut. */
static void read_error(struct bytes text, char *out)
{
    size_t size = 0;
    out[0] = '\0';
    const char *at = memmem(text.data, text.size, "\"error\"", 7);
    const char *end = text.data + text.size;
    if (at == NULL) {
        for (at = text.data; at < end; at++) {
            put(out, &size, *at);
        }
        return;
    }
    at = memchr(at + 7, '"', (size_t)(end - at) - 7);
    at = at == NULL ? end : at + 1;
    while (at < end && *at != '"') {
        if (*at == '\\' && at + 1 < end) {
            at++;
            put(out, &size, *at == 'n' || *at == 't' || *at == 'r' ? ' ' : *at);
        } else {
            put(out, &size, *at);
        }
        at++;
    }
}

void sentences_note(struct sentences *sentences, const char *code, const struct wire_answer *answer)
{
    char text[SENTENCE_BYTES];
    if (answer->grpc >= 0 || answer->broken) {
        rpc_decode_message(answer->text, text, sizeof(text));
    } else {
        read_error(answer->text, text);
    }
    uint32_t i = 0;
    while (i < sentences->count && (strcmp(sentences->list[i].code, code) != 0 ||
                                    !are_alike(sentences->list[i].text, text))) {
        i++;
    }
    if (i == SENTENCES_MAX) {
        i = SENTENCES_MAX - 1;
    } else if (i == sentences->count) {
        struct sentence *new = &sentences->list[sentences->count++];
        const bool last = i == SENTENCES_MAX - 1;
        (void)snprintf(new->code, sizeof(new->code), "%s", last ? "" : code);
        (void)snprintf(new->text, sizeof(new->text), "%s", last ? "other sentences" : text);
    }
    sentences->list[i].count++;
}
