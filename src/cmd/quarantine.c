/*
 * `weir quarantine`: which inputs a server refuses because they crash their model, and letting them
 * go.
 */
#include <string.h>

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/secure.h"
#include "cmd/term.h"
#include "util/clock.h"
#include "util/json.h"

#define DEFAULT_TIMEOUT_NS (10 * NS_PER_S)
#define NAME_BYTES_MAX 4096

enum {
    OPTION_MODEL = 1,
    OPTION_URL,
    OPTION_TIMEOUT,
    OPTION_JSON,
};

static const struct flag flag_table[] = {
    { "--model", "NAME", "clear: those of this model only", OPTION_MODEL },
    { "--url", "URL", "the server, or unix:/PATH [" DEFAULT_URL "]", OPTION_URL },
    SECURE_FLAGS,
    { "--timeout", "DURATION", "patience with the server [10s]", OPTION_TIMEOUT },
    { "--json", NULL, "the server's answer as it is", OPTION_JSON },
    FLAGS_END,
};

struct wish {
    const char *act; /* "list" or "clear". */
    const char *model;
    const char *url;
    uint64_t timeout_ns;
    bool json;
};

static enum weir_status take_word(struct wish *wish, const char *word, struct weir_err *err)
{
    if (wish->act != NULL) {
        return err_set(err, WEIR_EINVAL, "unexpected word '%s' after '%s'%s", word, wish->act,
                       strcmp(wish->act, "clear") == 0 ? "; a model follows --model" : "");
    }
    if (strcmp(word, "list") != 0 && strcmp(word, "clear") != 0) {
        return err_set(err, WEIR_EINVAL, "found '%s', expected list or clear", word);
    }
    wish->act = word;
    return WEIR_OK;
}

static enum weir_status take_option(void *context, int key, const char *value, struct weir_err *err)
{
    struct wish *wish = context;
    if (secure_take(key, value)) {
        return WEIR_OK;
    }
    switch (key) {
    case OPTION_MODEL:
        wish->model = value;
        return WEIR_OK;
    case OPTION_URL:
        wish->url = value;
        return WEIR_OK;
    case OPTION_TIMEOUT:
        return flags_duration("--timeout", value, &wish->timeout_ns, err);
    case OPTION_JSON:
        wish->json = true;
        return WEIR_OK;
    default:
        return take_word(wish, value, err);
    }
}

static enum weir_status read_words(struct wish *wish, int count, char **words, struct weir_err *err)
{
    const enum weir_status status = flags_read(flag_table, count, words, take_option, wish, err);
    if (status != WEIR_OK) {
        return status;
    }
    wish->act = wish->act == NULL ? "list" : wish->act;
    if (wish->model != NULL && strcmp(wish->act, "clear") != 0) {
        return err_set(err, WEIR_EINVAL, "--model goes with clear");
    }
    if (wish->model != NULL && wish->model[0] == '\0') { /* Of a variable that is not set? */
        return err_set(err, WEIR_EINVAL, "--model: found '', expected a model's name");
    }
    return secure_check(client_is_secure(wish->url), err);
}

static const char *text_of(yyjson_val *entry, const char *key)
{
    const char *text = yyjson_get_str(yyjson_obj_get(entry, key));
    return text == NULL ? "" : text;
}

static void show_entries(struct buffer *out, yyjson_val *entries)
{
    const bool color = term_color(stdout);
    if (yyjson_arr_size(entries) == 0) {
        buffer_text(out, "no input is refused\n");
        return;
    }
    buffer_printf(out, "%s%-24s %7s  %-25s %9s %8s  %s%s\n", term_bold(color), "MODEL", "VERSION",
                  "DID", "EXPIRES", "REFUSED", "DIGEST", term_plain(color));
    yyjson_val *entry;
    yyjson_arr_iter iter = yyjson_arr_iter_with(entries);
    while ((entry = yyjson_arr_iter_next(&iter)) != NULL) {
        buffer_printf(out, "%-24s %7s  %-25s %8llus %8llu  %s\n", text_of(entry, "model"),
                      text_of(entry, "version"), text_of(entry, "death"),
                      (unsigned long long)yyjson_get_uint(yyjson_obj_get(entry, "expires_s")),
                      (unsigned long long)yyjson_get_uint(yyjson_obj_get(entry, "refused")),
                      text_of(entry, "digest"));
    }
}

static void show_cleared(struct buffer *out, yyjson_val *cleared)
{
    const unsigned long long count = yyjson_get_uint(cleared);
    buffer_printf(out, "%llu input%s let go\n", count, count == 1 ? "" : "s");
}

static enum weir_status show(const struct wish *wish, struct bytes body, struct buffer *out,
                             struct weir_err *err)
{
    yyjson_doc *doc = NULL;
    yyjson_val *value = NULL;
    const bool list = strcmp(wish->act, "list") == 0;
    enum weir_status status = json_read(body, &doc, err);
    if (status == WEIR_OK) {
        status = json_member(yyjson_doc_get_root(doc), NULL, list ? "entries" : "cleared",
                             list ? JSON_ARRAY : JSON_UINT, true, &value, err);
    }
    if (status != WEIR_OK) {
        (void)err_prefix(err, "the server's answer makes no sense");
    } else if (wish->json) {
        buffer_append(out, body.data, body.size);
        buffer_char(out, '\n');
    } else if (list) {
        show_entries(out, value);
    } else {
        show_cleared(out, value);
    }
    yyjson_doc_free(doc);
    return status;
}

static enum weir_status ask(const struct wish *wish, struct buffer *out, struct weir_err *err)
{
    struct client client;
    struct client_reply reply;
    struct buffer body;
    enum weir_status status = client_init(&client, wish->url, wish->timeout_ns, err);
    if (status != WEIR_OK) {
        return status;
    }
    const bool list = strcmp(wish->act, "list") == 0;
    buffer_init(&body, NAME_BYTES_MAX);
    if (wish->model != NULL) {
        buffer_text(&body, "{\"model\":");
        json_string(&body, wish->model);
        buffer_char(&body, '}');
    }
    const struct bytes piece = { body.data, body.size };
    const struct client_request request = {
        .method = list ? "GET" : "POST",
        .path = list ? "/v2/quarantine" : "/v2/quarantine/clear",
        .fields = list ? "" : "Content-Type: application/json\r\n",
        .pieces = &piece,
        .piece_count = list ? 0 : 1,
    };
    if (body.failed) {
        status = body.full ? err_set(err, WEIR_EINVAL, "--model: the name is too long")
                           : err_nomem(err, "a request", NAME_BYTES_MAX);
    } else {
        status = client_call(&client, &request, &reply, err);
        if (status == WEIR_OK) {
            status = reply.status == 200 ? show(wish, reply.body, out, err)
                                         : client_refusal(&reply, err);
        }
        client_reply_finish(&reply);
    }
    buffer_finish(&body);
    client_finish(&client);
    return status;
}

int cmd_quarantine(int count, char **words)
{
    struct wish wish = { .url = DEFAULT_URL, .timeout_ns = DEFAULT_TIMEOUT_NS };
    struct weir_err err = { 0 };
    if (read_words(&wish, count, words, &err) != WEIR_OK) {
        return cmd_usage("quarantine", "%s", err.text);
    }
    cmd_let_signals_end();
    struct buffer out;
    buffer_init(&out, CMD_REPORT_BYTES_MAX);
    const enum weir_status status = ask(&wish, &out, &err);
    const int code = status == WEIR_OK ? cmd_print(&out) : cmd_fail(status, &err);
    buffer_finish(&out);
    return code;
}

void cmd_quarantine_help(struct buffer *out)
{
    buffer_text(out,
                "\nInputs that crashed the process of their model twice are refused for a while.\n"
                "`list`, the default, shows them; `clear` lets all of them go, or one model's.\n"
                "Both need a key that may `manage`, where keys are asked for.\n\n");
    flags_help(flag_table, out);
    buffer_text(out, "\nThe API key is taken from WEIR_API_KEY.\n\n"
                     "Examples:\n"
                     "  weir quarantine\n"
                     "  weir quarantine list --json\n"
                     "  weir quarantine clear --model segment\n");
}
