"""How compiled programs are called.

    int32_t entry(int64_t *args)       status: 0, or 1 + the site of a data-dependent error
    int32_t prologue(int64_t *args)    fills the packed memory from the stable inputs

`args` holds addresses and sizes: inputs, outputs, symbols (in the program's order), arena, packed memory.
Inputs are aligned to their elements, arena and packed memory to 64 bytes. Constants are part of the code.
"""

ENTRY, PROLOGUE = "gt_entry", "gt_prologue"
