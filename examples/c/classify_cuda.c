/* Classifies digits on an NVIDIA GPU with a library that graphtorch compiled with device="cuda": no Python, no
   framework, no CUDA runtime; the driver alone.

   cc -O2 -I out examples/c/classify_cuda.c out/digits.so -lcuda -o classify_cuda
   ./classify_cuda images.bin          f32 images of 1x28x28 */
#include <stdio.h>
#include <stdlib.h>

#include "digits.h"

/* What is used of cuda.h, for machines that have the driver but no toolkit. */
typedef void *CUcontext, *CUdeviceptr;
int cuInit(unsigned flags), cuDevicePrimaryCtxRetain(CUcontext *context, int device), cuCtxSetCurrent(CUcontext context);
int cuMemAlloc_v2(CUdeviceptr *memory, size_t size), cuMemFree_v2(CUdeviceptr memory);
int cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size);
int cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size);

enum { PIXELS = 28 * 28, CLASSES = 10, MOST = 64 };

static void check(int code, const char *what) {
    if (code) { fprintf(stderr, "%s: CUDA error %d\n", what, code); exit(1); }
}

int main(int argc, char **argv) {
    static float images[MOST * PIXELS], scores[MOST * CLASSES];
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!file) { fprintf(stderr, "usage: %s images.bin\n", argv[0]); return 1; }
    size_t count = fread(images, sizeof(float) * PIXELS, MOST, file);
    fclose(file);

    CUcontext device; /* the context that is current when `create` is called is the one that is used */
    CUdeviceptr x, y;
    check(cuInit(0), "cuInit");
    check(cuDevicePrimaryCtxRetain(&device, 0), "cuDevicePrimaryCtxRetain");
    check(cuCtxSetCurrent(device), "cuCtxSetCurrent");
    check(cuMemAlloc_v2(&x, sizeof images), "cuMemAlloc");
    check(cuMemAlloc_v2(&y, sizeof scores), "cuMemAlloc");
    digits_context *context = digits_create(NULL);
    if (!context) { fprintf(stderr, "%s\n", digits_last_error(NULL)); return 1; }

    check(cuMemcpyHtoD_v2(x, images, count * PIXELS * sizeof(float)), "cuMemcpyHtoD");
    int64_t in_shape[] = {(int64_t)count, 1, 28, 28}, out_shape[] = {(int64_t)count, CLASSES};
    DLTensor in = {.data = x, .device = {kDLCUDA, 0}, .ndim = 4, .dtype = {kDLFloat, 32, 1}, .shape = in_shape};
    DLTensor out = {.data = y, .device = {kDLCUDA, 0}, .ndim = 2, .dtype = {kDLFloat, 32, 1}, .shape = out_shape};
    if (digits_run(context, &in, 1, &out, 1)) {
        fprintf(stderr, "%s\n", digits_last_error(context));
        return 1;
    }
    check(cuMemcpyDtoH_v2(scores, y, count * CLASSES * sizeof(float)), "cuMemcpyDtoH");
    for (size_t i = 0; i < count; i++) {
        int best = 0;
        for (int c = 1; c < CLASSES; c++)
            if (scores[i * CLASSES + c] > scores[i * CLASSES + best]) best = c;
        printf("image %zu: %d, score %.4f\n", i, best, scores[i * CLASSES + best]);
    }
    digits_destroy(context);
    check(cuMemFree_v2(x), "cuMemFree");
    check(cuMemFree_v2(y), "cuMemFree");
    return 0;
}
