/*
 * Runs a fuzz target over files and folders: `fuzz_NAME PATH...`.
 *
 * Ordinary builds link this in place of libFuzzer, so that every build, with every compiler and
 * sanitizer, replays every input that ever mattered.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct replay {
    unsigned inputs;
    unsigned unreadable;
};

static void complain(struct replay *r, const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    r->unreadable++;
}

static void replay_file(struct replay *r, const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    /* Exactly `size` bytes on the heap, so that a sanitizer sees the first byte read past them. */
    uint8_t *data = malloc(size > 0 ? size : 1);
    if (file == NULL || data == NULL || fread(data, 1, size, file) != size) {
        complain(r, path);
    } else {
        fprintf(stderr, "replay: %s\n", path);
        LLVMFuzzerTestOneInput(data, size);
        r->inputs++;
    }
    free(data);
    if (file != NULL) {
        fclose(file);
    }
}

static void replay_path(struct replay *r, const char *path);

static void replay_folder(struct replay *r, const char *path)
{
    struct dirent **entries;
    const int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0) {
        complain(r, path);
        return;
    }
    for (int i = 0; i < count; i++) {
        char inner[4096];
        if (entries[i]->d_name[0] != '.') {
            snprintf(inner, sizeof(inner), "%s/%s", path, entries[i]->d_name);
            replay_path(r, inner);
        }
        free(entries[i]);
    }
    free(entries);
}

static void replay_path(struct replay *r, const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        complain(r, path);
    } else if (S_ISDIR(info.st_mode)) {
        replay_folder(r, path);
    } else {
        replay_file(r, path, (size_t)info.st_size);
    }
}

int main(int argc, char **argv)
{
    struct replay r = { 0 };
    for (int i = 1; i < argc; i++) {
        replay_path(&r, argv[i]);
    }
    printf("replayed %u inputs, %u unreadable\n", r.inputs, r.unreadable);
    return r.inputs > 0 && r.unreadable == 0 ? 0 : 1;
}
