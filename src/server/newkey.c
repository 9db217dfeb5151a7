#include "server/newkey.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/keys.h"
#include "net/secret.h"

static enum weir_status check_allow(const char *allow, struct weir_err *err)
{
    for (const char *at = allow; *at != '\0';) {
        const struct bytes word = { at, strcspn(at, ",") };
        uint32_t groups = 0;
        if (!keys_groups(word, &groups)) {
            return err_set(err, WEIR_EINVAL,
                           "--allow: found '%.*s', expected use, manage, all or groups of calls "
                           "such as inference",
                           (int)word.size, word.data);
        }
        at += word.size + (at[word.size] == ',' ? 1 : 0);
    }
    return allow[0] != '\0' ? WEIR_OK
                            : err_set(err, WEIR_EINVAL, "--allow: found nothing, expected use");
}

static enum weir_status check_rate(const char *rate, struct weir_err *err)
{
    char *end = NULL;
    const double number = rate == NULL ? 1 : strtod(rate, &end);
    if (rate != NULL && (end == rate || *end != '\0' || !(number > 0) || number > 1e6)) {
        return err_set(err, WEIR_EINVAL,
                       "--rate: found '%s', expected calls per second, above 0 and at most 1e6",
                       rate);
    }
    return WEIR_OK;
}

static void write_line(const struct newkey *wanted, const char *hash, struct buffer *line)
{
    buffer_printf(line, "- { name: \"%s\", hash: \"%s\", allow: [", wanted->name, hash);
    for (const char *at = wanted->allow; *at != '\0';) {
        const size_t size = strcspn(at, ",");
        buffer_printf(line, "%s%.*s", at == wanted->allow ? "" : ", ", (int)size, at);
        at += size + (at[size] == ',' ? 1 : 0);
    }
    buffer_text(line, "]");
    if (wanted->priority > 0) {
        buffer_printf(line, ", priority: %" PRIu64, wanted->priority);
    }
    if (wanted->weight > 0) {
        buffer_printf(line, ", weight: %" PRIu64, wanted->weight);
    }
    if (wanted->concurrency > 0) {
        buffer_printf(line, ", concurrency: %" PRIu64, wanted->concurrency);
    }
    if (wanted->rate != NULL) {
        buffer_printf(line, ", rate: %s", wanted->rate);
    }
    buffer_text(line, " }\n");
}

enum weir_status newkey_make(const struct newkey *wanted, struct buffer *key, struct buffer *line,
                             struct weir_err *err)
{
    if (!keys_is_name(bytes_of(wanted->name))) {
        return err_set(err, WEIR_EINVAL,
                       "found '%s', expected a name of 1 to 64 of the characters A-Z a-z 0-9 . _ "
                       "- @",
                       wanted->name);
    }
    enum weir_status status = check_allow(wanted->allow, err);
    if (status == WEIR_OK) {
        status = check_rate(wanted->rate, err);
    }
    if (status != WEIR_OK) {
        return status;
    }
    char secret[KEYS_SECRET_BYTES];
    char hash[80];
    if (!keys_make(secret, hash)) {
        return err_set(err, WEIR_EIO, "the system has no random numbers");
    }
    buffer_printf(key, "%s\n", secret);
    secret_wipe(secret, sizeof(secret));
    write_line(wanted, hash, line);
    return WEIR_OK;
}
