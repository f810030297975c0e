"""LLVM text of the function that checks a caller's DLTensor before any of its data is touched.

    i32 gt_check(ptr error, ptr role, i32 position, ptr tensor, ptr spec, ptr sizes, i1 bind)

returns 0 or an error code of the C ABI and writes a message that names the tensor into `error` (256
bytes). `spec` says what is expected; `sizes` holds the run-time sizes, -1 while unknown. With
`bind` a dimension that is one plain symbol gives that symbol its value; without, every dimension is
compared.
"""

from __future__ import annotations

ERROR_BYTES = 256

NULL, COUNT, RANK, DTYPE, SHAPE, LAYOUT, ALIGNMENT, DEVICE, INDEX, MEMORY, VALUE, DRIVER = range(
    1, 13
)
CPU, CUDA = 1, 2  # DLPack's device types
MEMORIES = {CPU: "CPU memory", CUDA: "CUDA memory"}

# DLTensor as DLPack lays it out: data, device type, device id, ndim, dtype (code, bits, lanes),
# shape, strides, offset
TYPES = """\
%GtTensor = type { ptr, i32, i32, i32, i8, i8, i16, ptr, ptr, i64 }
%GtDim = type { i32, i32, i64, i64 }
%GtSpec = type { ptr, i32, i32, i32, i32, ptr, ptr }
"""
# GtDim: kind (0: a fixed size, 1: entry `index` of sizes that `bind` may set, 2: an entry computed
# from
#        others), index, minimum (the size itself for kind 0), maximum
# GtSpec: name, rank, type code, type bits, bytes of an element, dims, name of the dtype

DECLARATIONS = "declare i32 @snprintf(ptr, i64, ptr, ...)\n"

_MESSAGES = {
    "null": "%s %d ('%s'): the tensor, its data or its shape is NULL",
    "device": "%s %d ('%s'): device type %d, expected",
    "rank": "%s %d ('%s'): %d dimensions, expected %d",
    "dtype": "%s %d ('%s'): element type code %d with %d bits and %d lanes, expected %s",
    "shape": "%s %d ('%s'): dimension %d is %lld, expected %lld",
    "range": "%s %d ('%s'): dimension %d is %lld, expected a size from %lld to %lld",
    "layout": "%s %d ('%s'): stride %lld in dimension %d, expected %lld: pass a row-major tensor "
    "without gaps",
    "align": "%s %d ('%s'): data is not aligned to its element size of %d bytes",
}


def constant_string(name: str, text: str) -> str:
    """A private NUL-terminated string constant."""
    data = text.encode() + b"\0"
    body = "".join(chr(c) if 32 <= c < 127 and c not in (34, 92) else f"\\{c:02X}" for c in data)
    return f'@{name} = private unnamed_addr constant [{len(data)} x i8] c"{body}"\n'


def _report(label: str, message: str, code: int, arguments: str) -> str:
    return f"""{label}:
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 {ERROR_BYTES}, ptr @gt_msg_{message}, \
ptr %role, i32 %position, ptr %name{arguments})
  ret i32 {code}
"""


def check_function(device: int = CPU) -> str:
    """The text of `gt_check` with its types, messages and declarations.

    Args: device: the type of device whose memory tensors have to be in.
    """
    expected = {**_MESSAGES, "device": f"{_MESSAGES['device']} {MEMORIES[device]} ({device})"}
    messages = "".join(constant_string(f"gt_msg_{key}", text) for key, text in expected.items())
    head = _HEAD.replace("EXPECTED", str(device))
    return (
        TYPES
        + DECLARATIONS
        + messages
        + head
        + _DIMS
        + _STRIDES
        + "".join(
            (
                _report("bad_null", "null", NULL, ""),
                _report("bad_device", "device", DEVICE, ", i32 %device"),
                _report("bad_rank", "rank", RANK, ", i32 %ndim, i32 %rank"),
                _report(
                    "bad_dtype",
                    "dtype",
                    DTYPE,
                    ", i32 %code, i32 %bits, i32 %lanes, ptr %dtype_name",
                ),
                _report("bad_shape", "shape", SHAPE, ", i32 %d, i64 %size, i64 %wanted"),
                _report("bad_range", "range", SHAPE, ", i32 %d, i64 %size, i64 %low, i64 %high"),
                _report("bad_layout", "layout", LAYOUT, ", i64 %stride, i32 %s, i64 %dense"),
                _report("bad_align", "align", ALIGNMENT, ", i32 %itemsize"),
            )
        )
        + "}\n"
    )


_HEAD = """
define internal i32 @gt_check(ptr %error, ptr %role, i32 %position, ptr %tensor, ptr %spec,
                              ptr %sizes, i1 %bind) {
entry:
  %name = load ptr, ptr %spec
  %rank.p = getelementptr %GtSpec, ptr %spec, i32 0, i32 1
  %rank = load i32, ptr %rank.p
  %want_code.p = getelementptr %GtSpec, ptr %spec, i32 0, i32 2
  %want_code = load i32, ptr %want_code.p
  %want_bits.p = getelementptr %GtSpec, ptr %spec, i32 0, i32 3
  %want_bits = load i32, ptr %want_bits.p
  %itemsize.p = getelementptr %GtSpec, ptr %spec, i32 0, i32 4
  %itemsize = load i32, ptr %itemsize.p
  %dims.p = getelementptr %GtSpec, ptr %spec, i32 0, i32 5
  %dims = load ptr, ptr %dims.p
  %dtype_name.p = getelementptr %GtSpec, ptr %spec, i32 0, i32 6
  %dtype_name = load ptr, ptr %dtype_name.p
  %no_tensor = icmp eq ptr %tensor, null
  br i1 %no_tensor, label %bad_null, label %device.b
device.b:
  %device.p = getelementptr %GtTensor, ptr %tensor, i32 0, i32 1
  %device = load i32, ptr %device.p
  %cpu = icmp eq i32 %device, EXPECTED
  br i1 %cpu, label %rank.b, label %bad_device
rank.b:
  %ndim.p = getelementptr %GtTensor, ptr %tensor, i32 0, i32 3
  %ndim = load i32, ptr %ndim.p
  %rank.ok = icmp eq i32 %ndim, %rank
  br i1 %rank.ok, label %dtype.b, label %bad_rank
dtype.b:
  %code.p = getelementptr %GtTensor, ptr %tensor, i32 0, i32 4
  %code8 = load i8, ptr %code.p
  %code = zext i8 %code8 to i32
  %bits.p = getelementptr %GtTensor, ptr %tensor, i32 0, i32 5
  %bits8 = load i8, ptr %bits.p
  %bits = zext i8 %bits8 to i32
  %lanes.p = getelementptr %GtTensor, ptr %tensor, i32 0, i32 6
  %lanes16 = load i16, ptr %lanes.p
  %lanes = zext i16 %lanes16 to i32
  %code.ok = icmp eq i32 %code, %want_code
  %bits.ok = icmp eq i32 %bits, %want_bits
  %lanes.ok = icmp eq i32 %lanes, 1
  %type.ok1 = and i1 %code.ok, %bits.ok
  %type.ok = and i1 %type.ok1, %lanes.ok
  br i1 %type.ok, label %shape.b, label %bad_dtype
shape.b:
  %shape.p = getelementptr %GtTensor, ptr %tensor, i32 0, i32 7
  %shape = load ptr, ptr %shape.p
  %no_shape = icmp eq ptr %shape, null
  %has_rank = icmp ne i32 %rank, 0
  %shape.bad = and i1 %no_shape, %has_rank
  br i1 %shape.bad, label %bad_null, label %dim.loop
"""

_DIMS = """
dim.loop:
  %d = phi i32 [ 0, %shape.b ], [ %d.next, %dim.next ]
  %count = phi i64 [ 1, %shape.b ], [ %count.next, %dim.next ]
  %d.more = icmp slt i32 %d, %rank
  br i1 %d.more, label %dim.body, label %data.b
dim.body:
  %size.p = getelementptr i64, ptr %shape, i32 %d
  %size = load i64, ptr %size.p
  %count.next = mul i64 %count, %size
  %dim.p = getelementptr %GtDim, ptr %dims, i32 %d
  %kind = load i32, ptr %dim.p
  %index.p = getelementptr %GtDim, ptr %dims, i32 %d, i32 1
  %index = load i32, ptr %index.p
  %low.p = getelementptr %GtDim, ptr %dims, i32 %d, i32 2
  %low = load i64, ptr %low.p
  %high.p = getelementptr %GtDim, ptr %dims, i32 %d, i32 3
  %high = load i64, ptr %high.p
  %entry.p = getelementptr i64, ptr %sizes, i32 %index
  %fixed = icmp eq i32 %kind, 0
  br i1 %fixed, label %compare, label %known
known:
  %value = load i64, ptr %entry.p
  %unknown = icmp eq i64 %value, -1
  %computed = icmp eq i32 %kind, 2
  %skip = and i1 %bind, %computed
  br i1 %skip, label %dim.next, label %maybe
maybe:
  br i1 %unknown, label %bound, label %compare
bound:
  %above = icmp sge i64 %size, %low
  %below = icmp sle i64 %size, %high
  %inside = and i1 %above, %below
  br i1 %inside, label %store, label %bad_range
store:
  store i64 %size, ptr %entry.p
  br label %dim.next
compare:
  %wanted = phi i64 [ %low, %dim.body ], [ %value, %maybe ]
  %same = icmp eq i64 %size, %wanted
  br i1 %same, label %dim.next, label %bad_shape
dim.next:
  %d.next = add i32 %d, 1
  br label %dim.loop
data.b:
  %data = load ptr, ptr %tensor
  %no_data = icmp eq ptr %data, null
  %not_empty = icmp ne i64 %count, 0
  %data.bad = and i1 %no_data, %not_empty
  br i1 %data.bad, label %bad_null, label %align.b
align.b:
  %offset.p = getelementptr %GtTensor, ptr %tensor, i32 0, i32 9
  %offset = load i64, ptr %offset.p
  %address = ptrtoint ptr %data to i64
  %start = add i64 %address, %offset
  %itemsize64 = zext i32 %itemsize to i64
  %mask = sub i64 %itemsize64, 1
  %rest = and i64 %start, %mask
  %aligned = icmp eq i64 %rest, 0
  br i1 %aligned, label %strides.b, label %bad_align
"""

_STRIDES = """
strides.b:
  %strides.p = getelementptr %GtTensor, ptr %tensor, i32 0, i32 8
  %strides = load ptr, ptr %strides.p
  %no_strides = icmp eq ptr %strides, null
  %unchecked = or i1 %no_strides, %data.bad
  %s.first = sub i32 %rank, 1
  br i1 %unchecked, label %good, label %stride.loop
stride.loop:
  %s = phi i32 [ %s.first, %strides.b ], [ %s.next, %stride.next ]
  %dense = phi i64 [ 1, %strides.b ], [ %dense.next, %stride.next ]
  %s.more = icmp sge i32 %s, 0
  br i1 %s.more, label %stride.body, label %good
stride.body:
  %s.size.p = getelementptr i64, ptr %shape, i32 %s
  %s.size = load i64, ptr %s.size.p
  %stride.p = getelementptr i64, ptr %strides, i32 %s
  %stride = load i64, ptr %stride.p
  %dense.next = mul i64 %dense, %s.size
  %s.next = sub i32 %s, 1
  %unit = icmp sle i64 %s.size, 1
  %s.same = icmp eq i64 %stride, %dense
  %s.fine0 = or i1 %unit, %s.same
  %empty = icmp eq i64 %count, 0
  %s.fine = or i1 %s.fine0, %empty
  br i1 %s.fine, label %stride.next, label %bad_layout
stride.next:
  br label %stride.loop
good:
  ret i32 0
"""
