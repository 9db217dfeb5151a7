/*
 * A scanner that makes one token at a time, and a builder that follows nesting
 * with a stack of its own, so that a hostile text costs no more than its bytes,
 * its ten thousand nodes and thirty-two levels.
 *
 * The grammar is that of protobuf's text format without extensions and `Any`,
 * which no model configuration has.
 */
#include "server/pbtxt.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES_MAX 1048576
#define NODES_MAX 10000
#define DEPTH_MAX 32
#define SHOWN_BYTES 40 /* Of a token, in a sentence. */

enum token_kind {
    TOKEN_END,
    TOKEN_WORD,
    TOKEN_NUMBER,
    TOKEN_STRING, /* As it is written, quotes included. */
    TOKEN_SIGN,   /* One byte of punctuation. */
};

struct token {
    enum token_kind kind;
    struct bytes text;
    uint32_t line;
    uint32_t column;
};

/* A message or list that is being filled. */
struct level {
    struct yaml *node;
    struct yaml **tail;
    char close;    /* '}', '>' or ']'; '\0': the document. */
    bool messages; /* A list that came without a colon holds nothing else. */
};

struct scanner {
    const char *at;
    const char *end;
    uint32_t line;
    const char *line_start;
};

struct parser {
    struct arena *arena;
    const char *name;
    struct weir_err *err;
    struct scanner scanner;
    struct token token; /* The one at hand. */
    struct level levels[DEPTH_MAX];
    uint32_t depth;
    uint32_t nodes;
};

/* ---- Sentences ------------------------------------------------------------------------------- */

static enum weir_status complain(const struct parser *p, const struct token *token,
                                 const char *sentence)
{
    return err_set(p->err, WEIR_EINVAL, "%s:%" PRIu32 ":%" PRIu32 ": %s", p->name, token->line,
                   token->column, sentence);
}

static enum weir_status refuse(const struct parser *p, const struct token *token,
                               const char *expected)
{
    const bool end = token->kind == TOKEN_END;
    const int size = token->text.size > SHOWN_BYTES ? SHOWN_BYTES : (int)token->text.size;
    return err_set(p->err, WEIR_EINVAL, "%s:%" PRIu32 ":%" PRIu32 ": found %s%.*s%s, expected %s",
                   p->name, token->line, token->column, end ? "the end" : "'", end ? 0 : size,
                   end ? "" : token->text.data, end ? "" : "'", expected);
}

static enum weir_status out_of_memory(const struct parser *p)
{
    return err_nomem(p->err, p->name, sizeof(struct yaml));
}

/* ---- Tokens ---------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int hex_digit(char c)
{
    return is_digit(c)            ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static void skip_blanks(struct scanner *s)
{
    while (s->at < s->end) {
        const char c = *s->at;
        if (c == '#') {
            const char *line_end = memchr(s->at, '\n', (size_t)(s->end - s->at));
            s->at = line_end == NULL ? s->end : line_end;
        } else if (c == '\n') {
            s->at++;
            s->line++;
            s->line_start = s->at;
        } else if (c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f') {
            s->at++;
        } else {
            return;
        }
    }
}

/* The end of a string that begins at `at`, behind its closing quote; NULL: it has none in its
 * line. */
static const char *string_end(const char *at, const char *end)
{
    const char quote = *at++;
    for (; at < end && *at != '\n'; at++) {
        if (*at == quote) {
            return at + 1;
        }
        at += *at == '\\' && at + 1 < end && at[1] != '\n' ? 1 : 0;
    }
    return NULL;
}

static const char *number_end(const char *at, const char *end)
{
    const char *before = at;
    for (; at < end && (is_digit(*at) || is_letter(*at) || *at == '.' || *at == '+' || *at == '-');
         at++) {
        const bool sign = *at == '+' || *at == '-';
        if (sign && (at == before || (at[-1] != 'e' && at[-1] != 'E'))) {
            break;
        }
    }
    return at;
}

static enum weir_status next_token(struct parser *p)
{
    struct scanner *s = &p->scanner;
    skip_blanks(s);
    struct token *token = &p->token;
    *token = (struct token){
        .kind = TOKEN_SIGN,
        .text = { s->at, 1 },
        .line = s->line,
        .column = (uint32_t)(s->at - s->line_start) + 1,
    };
    if (s->at == s->end) {
        token->kind = TOKEN_END;
        token->text.size = 0;
        return WEIR_OK;
    }
    const char c = *s->at;
    const char *end = s->at + 1;
    if (is_letter(c)) {
        token->kind = TOKEN_WORD;
        while (end < s->end && (is_letter(*end) || is_digit(*end))) {
            end++;
        }
    } else if (is_digit(c) || (c == '.' && end < s->end && is_digit(*end))) {
        token->kind = TOKEN_NUMBER;
        end = number_end(s->at, s->end);
    } else if (c == '"' || c == '\'') {
        token->kind = TOKEN_STRING;
        end = string_end(s->at, s->end);
        if (end == NULL) {
            return complain(p, token, "found a text without its closing quote in the same line");
        }
    }
    token->text.size = (size_t)(end - s->at);
    s->at = end;
    return WEIR_OK;
}

static bool is_sign(const struct parser *p, char sign)
{
    return p->token.kind == TOKEN_SIGN && p->token.text.data[0] == sign;
}

/* ---- Strings --------------------------------------------------------------------------------- */

static size_t put_utf8(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | (code >> 6));
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | (code >> 12));
        out[1] = (char)(0x80 | ((code >> 6) & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | (code >> 18));
    out[1] = (char)(0x80 | ((code >> 12) & 0x3F));
    out[2] = (char)(0x80 | ((code >> 6) & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

/* At least `least` and at most `most` digits of `base` from *at on; false: there are fewer. */
static bool take_digits(const char **at, const char *end, int base, int least, int most,
                        uint32_t *out)
{
    uint32_t value = 0;
    int count = 0;
    for (; count < most && *at < end; count++, (*at)++) {
        const int digit = hex_digit(**at);
        if (digit < 0 || digit >= base) {
            break;
        }
        value = value * (uint32_t)base + (uint32_t)digit;
    }
    *out = value;
    return count >= least;
}

/* What stands behind a backslash at *at, to `out`; 0: it is no escape.  No escape makes more bytes
 * than it is written with. */
static size_t take_escape(const char **at, const char *end, char *out)
{
    static const char letters[] = "abfnrtv?\\'\"";
    static const char values[] = "\a\b\f\n\r\t\v?\\'\"";
    if (*at == end) {
        return 0;
    }
    const char c = **at;
    uint32_t code = 0;
    const char *plain = c == '\0' ? NULL : strchr(letters, c);
    if (plain != NULL) {
        (*at)++;
        *out = values[plain - letters];
        return 1;
    }
    if (c >= '0' && c <= '7') {
        (void)take_digits(at, end, 8, 1, 3, &code);
        *out = (char)code;
        return code > 0xFF ? 0 : 1;
    }
    (*at)++;
    if (c == 'x' || c == 'X') {
        *out = 0;
        const bool found = take_digits(at, end, 16, 1, 2, &code);
        *out = (char)code;
        return found ? 1 : 0;
    }
    const int digits = c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0 || !take_digits(at, end, 16, digits, digits, &code) || code > 0x10FFFF ||
        (code >= 0xD800 && code <= 0xDFFF)) {
        return 0;
    }
    return put_utf8(code, out);
}

static bool is_utf8(struct bytes text)
{
    while (text.size > 0) {
        const size_t size = bytes_utf8_size(text);
        if (size == 0) {
            return false;
        }
        text.data += size;
        text.size -= size;
    }
    return true;
}

/* The content of the string token, appended at `out`; *size grows. */
static enum weir_status unescape(const struct parser *p, char *out, size_t *size)
{
    const struct token *token = &p->token;
    const char *at = token->text.data + 1;
    const char *end = token->text.data + token->text.size - 1;
    while (at < end) {
        if (*at != '\\') {
            out[(*size)++] = *at++;
            continue;
        }
        at++;
        const size_t made = take_escape(&at, end, out + *size);
        if (made == 0) {
            return complain(p, token, "found an unknown or incomplete escape (\\) in a text");
        }
        *size += made;
    }
    return WEIR_OK;
}

/* Bytes that all adjacent strings from here on have at most. */
static size_t strings_bytes(const struct parser *p)
{
    struct parser ahead = *p;
    ahead.err = NULL;
    size_t size = 1;
    while (ahead.token.kind == TOKEN_STRING) {
        size += ahead.token.text.size;
        if (next_token(&ahead) != WEIR_OK) {
            break;
        }
    }
    return size;
}

static enum weir_status read_string(struct parser *p, struct yaml *node)
{
    const struct token first = p->token;
    char *text = arena_try_alloc(p->arena, strings_bytes(p));
    size_t size = 0;
    enum weir_status status = text == NULL ? out_of_memory(p) : WEIR_OK;
    while (status == WEIR_OK && p->token.kind == TOKEN_STRING) {
        status = unescape(p, text, &size);
        status = status == WEIR_OK ? next_token(p) : status;
    }
    if (status != WEIR_OK) {
        return status;
    }
    if (memchr(text, '\0', size) != NULL) {
        return complain(p, &first, "found a NUL in a text, expected none");
    }
    if (!is_utf8((struct bytes){ text, size })) {
        return complain(p, &first, "found a text that is no UTF-8");
    }
    text[size] = '\0';
    node->text = text;
    node->quoted = true;
    return WEIR_OK;
}

/* ---- Numbers and words ----------------------------------------------------------------------- */

/* A whole number in any base, as its magnitude; false: it is none, or too large. */
static bool whole_number(struct bytes text, uint64_t *out)
{
    const bool hex = text.size > 2 && text.data[0] == '0' && (text.data[1] | 0x20) == 'x';
    const int base = hex ? 16 : text.size > 1 && text.data[0] == '0' ? 8 : 10;
    uint64_t value = 0;
    for (size_t i = hex ? 2 : 0; i < text.size; i++) {
        const int digit = hex_digit(text.data[i]);
        if (digit < 0 || digit >= base || __builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit, &value)) {
            return false;
        }
    }
    *out = value;
    return true;
}

/* Digits, a point, an exponent, an f behind it: as far as protobuf has it. */
static bool is_float(struct bytes text, size_t *size)
{
    size_t at = 0;
    size_t digits = 0;
    if (text.size > 1 && text.data[0] == '0' && is_digit(text.data[1])) {
        return false; /* Meant as octal. */
    }
    for (; at < text.size && is_digit(text.data[at]); at++, digits++) {
    }
    if (at < text.size && text.data[at] == '.') {
        at++;
        for (; at < text.size && is_digit(text.data[at]); at++, digits++) {
        }
    }
    if (digits == 0) {
        return false;
    }
    if (at < text.size && (text.data[at] | 0x20) == 'e') {
        at++;
        at += at < text.size && (text.data[at] == '+' || text.data[at] == '-') ? 1 : 0;
        const size_t exponent = at;
        for (; at < text.size && is_digit(text.data[at]); at++) {
        }
        if (at == exponent) {
            return false;
        }
    }
    *size = at;
    return at == text.size || (at + 1 == text.size && (text.data[at] | 0x20) == 'f');
}

static enum weir_status read_number(struct parser *p, bool negative, struct yaml *node)
{
    const struct bytes text = p->token.text;
    const char *sign = negative ? "-" : "";
    uint64_t value;
    size_t size;
    if (whole_number(text, &value)) {
        node->text = arena_try_printf(p->arena, "%s%" PRIu64, value == 0 ? "" : sign, value);
    } else if (is_float(text, &size)) {
        node->text = arena_try_printf(p->arena, "%s%.*s", sign, (int)size, text.data);
    } else {
        return refuse(p, &p->token, "a number");
    }
    return node->text == NULL ? out_of_memory(p) : next_token(p);
}

static enum weir_status read_scalar(struct parser *p, struct yaml *node)
{
    const bool negative = is_sign(p, '-');
    const struct token first = p->token;
    enum weir_status status = negative ? next_token(p) : WEIR_OK;
    if (status != WEIR_OK) {
        return status;
    }
    if (p->token.kind == TOKEN_NUMBER) {
        return read_number(p, negative, node);
    }
    if (p->token.kind == TOKEN_STRING && !negative) {
        return read_string(p, node);
    }
    if (p->token.kind != TOKEN_WORD) {
        return refuse(p, negative ? &p->token : &first,
                      negative ? "a number"
                               : "a value: a text in quotes, a number, a word, {, < "
                                 "or [");
    }
    node->text = arena_try_printf(p->arena, "%s%.*s", negative ? "-" : "", (int)p->token.text.size,
                                  p->token.text.data);
    return node->text == NULL ? out_of_memory(p) : next_token(p);
}

/* ---- The tree -------------------------------------------------------------------------------- */

static enum weir_status add_node(struct parser *p, const struct token *at, struct yaml **out)
{
    if (++p->nodes > NODES_MAX) {
        return complain(p, at, "found more than 10000 values, expected fewer");
    }
    struct yaml *node = arena_try_zero(p->arena, 1, sizeof(*node));
    if (node == NULL) {
        return out_of_memory(p);
    }
    node->kind = YAML_SCALAR;
    node->proto = true;
    node->file = p->name;
    node->line = at->line;
    node->column = at->column;
    if (p->depth > 0) {
        struct level *level = &p->levels[p->depth - 1];
        *level->tail = node;
        level->tail = &node->next;
        level->node->count++;
    }
    *out = node;
    return WEIR_OK;
}

static enum weir_status open_level(struct parser *p, struct yaml *node, char close, bool messages)
{
    if (p->depth == DEPTH_MAX) {
        return complain(p, &p->token, "found more than 32 levels, expected fewer");
    }
    node->kind = close == ']' ? YAML_LIST : YAML_MAP;
    p->levels[p->depth++] = (struct level){ node, &node->first, close, messages };
    return close == '\0' ? WEIR_OK : next_token(p);
}

/* A value behind a field's name or in a list; it may open a level. */
static enum weir_status read_value(struct parser *p, struct yaml *node, bool colon, bool in_list)
{
    if (is_sign(p, '{')) {
        return open_level(p, node, '}', false);
    }
    if (is_sign(p, '<')) {
        return open_level(p, node, '>', false);
    }
    if (is_sign(p, '[') && !in_list) {
        return open_level(p, node, ']', !colon);
    }
    return colon ? read_scalar(p, node)
                 : refuse(p, &p->token,
                          in_list ? "{ or < (a list of values needs a colon before it)"
                                  : "a colon, { or <");
}

static enum weir_status read_field(struct parser *p)
{
    const struct token name = p->token;
    if (is_sign(p, '[')) {
        return complain(p, &name, "found an extension or Any ([...]), expected a field's name");
    }
    if (name.kind != TOKEN_WORD) {
        return refuse(p, &name,
                      p->levels[p->depth - 1].close == '\0' ? "a field's name"
                                                            : "a field's name or the end of the "
                                                              "message");
    }
    enum weir_status status = next_token(p);
    const bool colon = status == WEIR_OK && is_sign(p, ':');
    status = colon ? next_token(p) : status;
    struct yaml *node = NULL;
    const struct token value = p->token;
    status = status == WEIR_OK ? add_node(p, &value, &node) : status;
    if (status != WEIR_OK) {
        return status;
    }
    node->key = arena_try_strndup(p->arena, name.text.data, name.text.size);
    node->key_line = name.line;
    node->key_column = name.column;
    return node->key == NULL ? out_of_memory(p) : read_value(p, node, colon, false);
}

/* Behind an item a comma or the end of the list. */
static enum weir_status end_item(struct parser *p)
{
    if (is_sign(p, ']')) {
        return WEIR_OK;
    }
    if (!is_sign(p, ',')) {
        return refuse(p, &p->token, "a comma or ]");
    }
    const enum weir_status status = next_token(p);
    return status == WEIR_OK && is_sign(p, ']') ? refuse(p, &p->token, "a value behind the comma")
                                                : status;
}

/* Behind a value the next thing may be anything of its level: separators are optional in
 * messages. */
static enum weir_status end_value(struct parser *p)
{
    if (p->depth > 0 && p->levels[p->depth - 1].close == ']') {
        return end_item(p);
    }
    return is_sign(p, ',') || is_sign(p, ';') ? next_token(p) : WEIR_OK;
}

static enum weir_status close_level(struct parser *p)
{
    p->depth--;
    const enum weir_status status = next_token(p);
    return status == WEIR_OK ? end_value(p) : status;
}

/* One step: a field, an item, or the end of a level.  What opens a level ends its value later. */
static enum weir_status step(struct parser *p)
{
    const struct level *level = &p->levels[p->depth - 1];
    const uint32_t depth = p->depth;
    if (level->close != '\0' && is_sign(p, level->close)) {
        return close_level(p);
    }
    enum weir_status status;
    if (level->close == ']') {
        const struct token at = p->token;
        struct yaml *node = NULL;
        status = add_node(p, &at, &node);
        status = status == WEIR_OK ? read_value(p, node, !level->messages, true) : status;
    } else {
        status = read_field(p);
    }
    return status == WEIR_OK && p->depth == depth ? end_value(p) : status;
}

enum weir_status pbtxt_parse(struct arena *arena, const char *name, struct bytes text,
                             struct yaml **out, struct weir_err *err)
{
    struct parser p = {
        .arena = arena,
        .name = name,
        .err = err,
        .scanner = { text.data, text.data + text.size, 1, text.data },
    };
    if (text.size > TEXT_BYTES_MAX) {
        return err_set(err, WEIR_EINVAL, "%s: found %zu bytes, expected at most %d", name,
                       text.size, TEXT_BYTES_MAX);
    }
    const struct token start = { .kind = TOKEN_SIGN, .line = 1, .column = 1 };
    struct yaml *root = NULL;
    enum weir_status status = add_node(&p, &start, &root);
    status = status == WEIR_OK ? open_level(&p, root, '\0', false) : status;
    status = status == WEIR_OK ? next_token(&p) : status;
    while (status == WEIR_OK && (p.token.kind != TOKEN_END || p.depth > 1)) {
        status = step(&p);
    }
    if (status == WEIR_OK) {
        *out = root;
    }
    return status;
}
