/* The program that opens include/weir/weir.h: loads a folder of models and asks one a question. */
#include <stdio.h>
#include <weir/weir.h>

static const char drawn[] = "  ####  "
                            " ##  ## "
                            "     ## "
                            "    ##  "
                            "   ##   "
                            "  ##    "
                            " ##     "
                            " ###### ";

int main(int argc, char **argv)
{
    struct weir_err err = { WEIR_OK, "" };
    struct weir *weir = NULL;
    const struct weir_options options = {
        .repository = argc > 1 ? argv[1] : "examples/models",
        .model = "digits",
    };
    if (weir_open(&options, &weir, &err) != WEIR_OK) {
        fprintf(stderr, "embed: %s\n", err.text);
        return 1;
    }
    float pixels[64];
    for (int i = 0; i < 64; i++) {
        pixels[i] = drawn[i] == '#' ? 16.0F : 0.0F;
    }
    const struct weir_tensor input =
        weir_tensor_of("pixels", WEIR_FP32, pixels, 2, (const int64_t[]){ 1, 64 });
    struct weir_result *result = NULL;
    if (weir_infer(weir, "digits", &input, 1, NULL, &result, &err) == WEIR_OK) {
        const struct weir_tensor *scores = weir_result_output(result, "scores");
        const float *score = scores->data;
        int best = 0;
        for (int i = 1; i < 10; i++) {
            best = score[i] > score[best] ? i : best;
        }
        printf("a %d, with probability %.3f\n", best, (double)score[best]);
    } else {
        fprintf(stderr, "embed: %s\n", err.text);
    }
    weir_result_free(result);
    weir_close(weir);
    return err.status == WEIR_OK ? 0 : 1;
}
