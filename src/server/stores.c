#include "server/stores.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/profile_store.h"

#define CACHE_AUTO "auto"
#define CACHE_OFF "off"

/* 0, or why nothing can be kept in a folder of that name. */
static int fault_of(const char *folder)
{
    struct stat info;
    if (stat(folder, &info) != 0) {
        return errno;
    }
    return S_ISDIR(info.st_mode) ? 0 : ENOTDIR;
}

/* A folder that somebody named is meant to be there; beside the models it is as it is. */
enum weir_status stores_check_profiles(const char *store, struct weir_err *err)
{
    if (strcmp(store, PROFILE_STORE_OFF) == 0 || strcmp(store, PROFILE_STORE_MODEL) == 0) {
        return WEIR_OK;
    }
    int fault = fault_of(store);
    if (fault == 0 && access(store, R_OK | W_OK | X_OK) != 0) {
        fault = errno;
    }
    return fault == 0 ? WEIR_OK
                      : err_set(err, fault == ENOENT ? WEIR_ENOENT : WEIR_EINVAL,
                                "profile_store: found '%s', expected 'model', 'off' or a folder "
                                "that can be written to: %s",
                                store, strerror(fault));
}

/* One that is not there is made when it is needed; what is in one may be used where nothing can be
 * written. */
enum weir_status stores_check_models(const char *cache, struct weir_err *err)
{
    if (strcmp(cache, CACHE_OFF) == 0 || strcmp(cache, CACHE_AUTO) == 0) {
        return WEIR_OK;
    }
    const int fault = fault_of(cache);
    return fault == 0 || (fault == ENOENT && cache[0] != '\0')
               ? WEIR_OK
               : err_set(err, WEIR_EINVAL,
                         "model_cache: found '%s', expected 'auto', 'off' or a folder: %s", cache,
                         strerror(fault));
}

const char *stores_model_cache(const char *cache, char out[PATH_MAX])
{
    static const struct {
        const char *variable;
        const char *beneath;
    } places[] = {
        { "CACHE_DIRECTORY", "models" },
        { "XDG_CACHE_HOME", "weir/models" },
        { "HOME", ".cache/weir/models" },
    };
    if (strcmp(cache, CACHE_OFF) == 0) {
        return NULL;
    }
    if (strcmp(cache, CACHE_AUTO) != 0) {
        return snprintf(out, PATH_MAX, "%s", cache) < PATH_MAX ? out : NULL;
    }
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *value = getenv(places[i].variable);
        if (value != NULL && value[0] == '/') {
            const int size = snprintf(out, PATH_MAX, "%s/%s", value, places[i].beneath);
            return size < PATH_MAX ? out : NULL;
        }
    }
    return NULL;
}
