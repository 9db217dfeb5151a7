#include "cmd/bench_account.h"

#include <stdio.h>

#include "cmd/client.h"
#include "util/clock.h"
#include "util/json.h"

#define ASK_NS (5 * NS_PER_S)
#define PATH_BYTES 1024

static const struct {
    const char *name;
    const char *member;
} stages[BENCH_STAGE_COUNT] = {
#define BENCH_STAGE_ROW(name, member) { #name, member },
    BENCH_STAGES(BENCH_STAGE_ROW)
#undef BENCH_STAGE_ROW
};

static void add_version(yyjson_val *stats, struct bench_account *account)
{
    for (int i = 0; i < BENCH_STAGE_COUNT; i++) {
        yyjson_val *stage = yyjson_obj_get(stats, stages[i].member);
        account->count[i] += yyjson_get_uint(yyjson_obj_get(stage, "count"));
        account->ns[i] += yyjson_get_uint(yyjson_obj_get(stage, "ns"));
    }
}

void bench_account_parse(struct bytes json, struct bench_account *out)
{
    struct bench_account account = { 0 };
    yyjson_doc *doc = NULL;
    if (json_read(json, &doc, NULL) == WEIR_OK) {
        yyjson_val *versions = yyjson_obj_get(yyjson_doc_get_root(doc), "model_stats");
        size_t i;
        size_t count;
        yyjson_val *version;
        yyjson_arr_foreach(versions, i, count, version) {
            add_version(yyjson_obj_get(version, "inference_stats"), &account);
        }
        account.known = yyjson_arr_size(versions) > 0;
    }
    yyjson_doc_free(doc);
    *out = account;
}

void bench_account_read(const char *url, const char *model, uint64_t version,
                        struct bench_account *out)
{
    char path[PATH_BYTES];
    struct client client;
    struct client_reply reply;
    *out = (struct bench_account){ 0 };
    const int size = version == 0
                         ? snprintf(path, sizeof(path), "/v2/models/%s/stats", model)
                         : snprintf(path, sizeof(path), "/v2/models/%s/versions/%llu/stats", model,
                                    (unsigned long long)version);
    if (size < 0 || (size_t)size >= sizeof(path) ||
        client_init(&client, url, ASK_NS, NULL) != WEIR_OK) {
        return;
    }
    const struct client_request request = { .method = "GET", .path = path };
    if (client_call(&client, &request, &reply, NULL) == WEIR_OK && reply.status == 200) {
        bench_account_parse(reply.body, out);
    }
    client_reply_finish(&reply);
    client_finish(&client);
}

void bench_account_between(const struct bench_account *before, const struct bench_account *after,
                           struct bench_run *run)
{
    run->stage_count = 0;
    for (int i = 0; i < BENCH_STAGE_COUNT && before->known && after->known; i++) {
        if (after->count[i] <= before->count[i] || after->ns[i] < before->ns[i]) {
            continue; /* Nothing ran, or the model was loaded anew meanwhile. */
        }
        struct bench_stage *stage = &run->stages[run->stage_count++];
        (void)snprintf(stage->name, sizeof(stage->name), "%s", stages[i].name);
        stage->count = after->count[i] - before->count[i];
        stage->ns = after->ns[i] - before->ns[i];
    }
}
