"""The C header of a compiled library."""

from __future__ import annotations

from collections.abc import Sequence

from .loader import ABI_VERSION

DLPACK = """\
/* The part of DLPack's ABI that is used here: https://dmlc.github.io/dlpack */
#ifndef DLPACK_DLPACK_H_
#define DLPACK_DLPACK_H_
typedef enum { kDLCPU = 1, kDLCUDA = 2 } DLDeviceType;
typedef struct { DLDeviceType device_type; int32_t device_id; } DLDevice;
typedef enum {
    kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLComplex = 5, kDLBool = 6
} DLDataTypeCode;
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } DLDataType;
typedef struct {
    void *data;           /* must be aligned to the size of an element */
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides;     /* NULL: row-major without gaps, the only layout accepted */
    uint64_t byte_offset;
} DLTensor;
#endif
"""

ERROR_CODES = {
    "OK": (0, "success"),
    "NULL": (1, "a pointer is NULL"),
    "COUNT": (2, "wrong number of inputs or outputs"),
    "RANK": (3, "wrong number of dimensions"),
    "DTYPE": (4, "wrong element type"),
    "SHAPE": (5, "a dimension is not what it must be"),
    "LAYOUT": (6, "not row-major without gaps"),
    "ALIGNMENT": (7, "data is not aligned to its element size"),
    "DEVICE": (8, "not in the memory of the device that the library works on"),
    "INDEX": (9, "an index in the data is out of range"),
    "MEMORY": (10, "out of memory"),
    "VALUE": (11, "an operation does not take these values of the data"),
    "DRIVER": (12, "NVIDIA's driver reports an error (CUDA libraries alone)"),
}


_GPU = """\
   Tensors are in the memory of the GPU that the context works on: that of the CUDA context which is
   current when it is created, or GPU 0. A run is put into the legacy default stream, and returns
   when its results are there. NVIDIA's driver is opened by create; a machine without it gets NULL
   and a message."""


def header_text(
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    conditions: Sequence[str] = (),
    cuda: bool = False,
) -> str:
    """The header of library `name`; `inputs` and `outputs` are one-line descriptions, in order.

    Args:
        conditions: what sizes have to be, beside their ranges.
        cuda: whether the library works on a GPU.
    """
    guard = f"GRAPHTORCH_{name.upper()}_H"
    lines = [
        f"/* {name}: compiled by graphtorch. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        DLPACK.rstrip(),
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"#define GRAPHTORCH_ABI_VERSION {ABI_VERSION}",
        "#ifndef GRAPHTORCH_ERROR_CODES",
        "#define GRAPHTORCH_ERROR_CODES",
        "enum {",
    ]
    lines += [f"    GT_{key} = {code}, /* {text} */" for key, (code, text) in ERROR_CODES.items()]
    lines += ["};", "#endif", "", f"typedef struct {name}_context {name}_context;", ""]
    lines += [f"/* inputs of {name}_run:"]
    lines += [f"     {i}: {_in_comment(text)}" for i, text in enumerate(inputs)]
    lines += ["   outputs, allocated by the caller:"]
    lines += [f"     {i}: {_in_comment(text)}" for i, text in enumerate(outputs)]
    lines += (
        ["   sizes that meet:", *[f"     {_in_comment(c)}" for c in conditions]]
        if conditions
        else []
    )
    lines += ["   Tensors are row-major. One context serves one thread at a time."]
    lines += [_GPU] if cuda else []
    lines[-1] += " */"
    lines += [
        "",
        "int32_t gt_abi_version(void);",
        "/* weights: path of the safetensors file, or NULL where the weights are embedded.",
        f"   Returns NULL on failure; {name}_last_error(NULL) says why. */",
        f"{name}_context *{name}_create(const char *weights);",
        "/* Returns GT_OK or one of the codes above; never crashes on a bad tensor. */",
        f"int32_t {name}_run({name}_context *context, const DLTensor *in, int32_t in_count,",
        f"{' ' * (len(name) + 12)}DLTensor *out, int32_t out_count);",
        "/* Bytes of scratch memory that a context holds. */",
        f"size_t {name}_workspace_size(const {name}_context *context);",
        f"const char *{name}_last_error(const {name}_context *context);",
        "/* Inputs, outputs, sizes and versions as JSON. */",
        f"const char *{name}_metadata(void);",
        "/* Does nothing: kernels have the whole GPU. */"
        if cuda
        else "/* Threads that this library's calls use; default: as many as this process has "
        "cores. */",
        f"void {name}_set_num_threads(int32_t count);",
        f"void {name}_destroy({name}_context *context);",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _in_comment(text: str) -> str:
    """`text` on one line that does not end the comment around it: names are the user's."""
    return " ".join(text.split()).replace("*/", "* /").replace("/*", "/ *")
