/* Classifies digits with a library that graphtorch compiled: no Python, no framework.

   cc -O2 -I out examples/c/classify.c out/digits.so -o classify
   ./classify images.bin labels.bin          f32 images of 1x32x32, i32 labels */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "digits.h"

enum { PIXELS = 32 * 32, CLASSES = 10, MOST = 512, REPEATS = 1001 };

static void *read_file(const char *path, size_t size, size_t *count) {
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(1); }
    fseek(file, 0, SEEK_END);
    *count = (size_t)ftell(file) / size;
    rewind(file);
    void *data = aligned_alloc(64, (*count * size + 63) / 64 * 64);
    if (!data || fread(data, size, *count, file) != *count) { perror(path); exit(1); }
    fclose(file);
    return data;
}

static void run(digits_context *context, float *images, int64_t count, float *scores) {
    int64_t in_shape[] = {count, 1, 32, 32}, out_shape[] = {count, CLASSES};
    DLTensor in = {.data = images, .device = {kDLCPU, 0}, .ndim = 4, .dtype = {kDLFloat, 32, 1}, .shape = in_shape};
    DLTensor out = {.data = scores, .device = {kDLCPU, 0}, .ndim = 2, .dtype = {kDLFloat, 32, 1}, .shape = out_shape};
    if (digits_run(context, &in, 1, &out, 1)) {
        fprintf(stderr, "digits_run: %s\n", digits_last_error(context));
        exit(1);
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_us(digits_context *context, float *images, int64_t count, float *scores) {
    static double times[REPEATS];
    for (int i = 0; i < REPEATS; i++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        run(context, images, count, scores);
        clock_gettime(CLOCK_MONOTONIC, &end);
        times[i] = (double)(end.tv_sec - start.tv_sec) * 1e6 + (double)(end.tv_nsec - start.tv_nsec) * 1e-3;
    }
    qsort(times, REPEATS, sizeof *times, ascending);
    return times[REPEATS / 2];
}

int main(int argc, char **argv) {
    if (argc != 3) { fprintf(stderr, "usage: %s images.bin labels.bin\n", argv[0]); return 1; }
    size_t count, label_count;
    float *images = read_file(argv[1], PIXELS * sizeof(float), &count);
    int32_t *labels = read_file(argv[2], sizeof(int32_t), &label_count);
    digits_context *context = digits_create(NULL);
    if (!context) { fprintf(stderr, "digits_create failed\n"); return 1; }
    float *scores = aligned_alloc(64, MOST * CLASSES * sizeof(float) + 64);
    size_t right = 0;
    for (size_t at = 0; at < count; at += MOST) {
        size_t now = count - at < MOST ? count - at : MOST;
        run(context, images + at * PIXELS, (int64_t)now, scores);
        for (size_t i = 0; i < now; i++) {
            int best = 0;
            for (int c = 1; c < CLASSES; c++)
                if (scores[i * CLASSES + c] > scores[i * CLASSES + best]) best = c;
            right += best == labels[at + i];
        }
    }
    printf("accuracy %.4f from C on %zu images\n", (double)right / (double)count, count);
    printf("latency 1 %.1f\n", median_us(context, images, 1, scores));
    if (count >= 64) printf("latency 64 %.1f\n", median_us(context, images, 64, scores));
    digits_destroy(context);
    free(images);
    free(labels);
    free(scores);
    return 0;
}
