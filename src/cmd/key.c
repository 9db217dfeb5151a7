/*
 * The key goes to standard error and the line that stands for it to standard output, so that the
 * usual way to use both is to append the line to the file of keys and to read the key from the
 * screen.
 */
#include <stdio.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/term.h"
#include "server/newkey.h"

enum { OPTION_ALLOW = 1, OPTION_PRIORITY, OPTION_WEIGHT, OPTION_CONCURRENCY, OPTION_RATE };

static const struct flag flag_table[] = {
    { "--allow", "GROUP,...", "what it may call [use]", OPTION_ALLOW },
    { "--priority", "N", "the most urgent priority it may ask for (1 is most)", OPTION_PRIORITY },
    { "--weight", "N", "share of device time against other clients [1]", OPTION_WEIGHT },
    { "--concurrency", "N", "calls at a time", OPTION_CONCURRENCY },
    { "--rate", "N", "calls per second, on average", OPTION_RATE },
    FLAGS_END,
};

static enum weir_status take_option(void *context, int key, const char *value, struct weir_err *err)
{
    struct newkey *wanted = context;
    switch (key) {
    case OPTION_ALLOW:
        wanted->allow = value;
        return WEIR_OK;
    case OPTION_PRIORITY:
        return flags_number("--priority", value, 1000000, &wanted->priority, err);
    case OPTION_WEIGHT:
        return flags_number("--weight", value, 1000, &wanted->weight, err);
    case OPTION_CONCURRENCY:
        return flags_number("--concurrency", value, 1000000, &wanted->concurrency, err);
    case OPTION_RATE:
        wanted->rate = value;
        return WEIR_OK;
    default:
        break;
    }
    if (wanted->name != NULL) {
        return err_set(err, WEIR_EINVAL, "unexpected word '%s' after '%s'", value, wanted->name);
    }
    wanted->name = value;
    return WEIR_OK;
}

static int print(const struct buffer *key, const struct buffer *line)
{
    const bool color = term_color(stderr);
    fprintf(stderr, "%skey:%s %.*s\n", term_bold(color), term_plain(color), (int)key->size - 1,
            key->data);
    fprintf(stderr, "It is shown this once.  The line for the file of --api-keys:\n");
    return cmd_print(line);
}

int cmd_key(int count, char **words)
{
    struct weir_err err = { 0 };
    struct newkey wanted = { .allow = "use" };
    if (flags_read(flag_table, count, words, take_option, &wanted, &err) != WEIR_OK) {
        return cmd_usage("key", "%s", err.text);
    }
    if (wanted.name == NULL) {
        return cmd_usage("key", "no name, expected one such as alice");
    }
    cmd_let_signals_end();
    struct buffer key;
    struct buffer line;
    buffer_init(&key, 256);
    buffer_init(&line, CMD_REPORT_BYTES_MAX);
    const enum weir_status status = newkey_make(&wanted, &key, &line, &err);
    int code = CMD_OK;
    if (status == WEIR_OK) {
        code = print(&key, &line);
    } else {
        code = status == WEIR_EINVAL ? cmd_usage("key", "%s", err.text) : cmd_fail(status, &err);
    }
    buffer_finish(&key);
    buffer_finish(&line);
    return code;
}

void cmd_key_help(struct buffer *out)
{
    buffer_text(out, "\nA key is 256 random bits.  The server's file keeps only its hash.\n\n");
    flags_help(flag_table, out);
    buffer_text(out,
                "\nGroups of calls: health, metadata, inference, shared-memory, model-config,\n"
                "model-repository, statistics, trace, logging, metrics.  `use` stands for what\n"
                "clients of models need (health, metadata, inference, model-config, statistics),\n"
                "`manage` for the others, `all` for all.\n\n"
                "Examples:\n"
                "  weir key alice >> keys.yaml\n"
                "  weir key ops --allow manage,health >> keys.yaml\n"
                "  weir key batch --allow use --priority 3 --concurrency 8 >> keys.yaml\n"
                "  weir serve --api-keys keys.yaml models\n"
                "  curl -H 'Authorization: Bearer weir_...' http://localhost:8000/v2/models\n");
}
