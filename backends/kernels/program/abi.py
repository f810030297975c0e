"""How compiled programs are called: the list of launches is data that a native loop walks
(walk.py).

A call has a *frame* of 64-bit words: the header below, the addresses of inputs, outputs, arena and
packed memory, and registers for what moves in loops. Inputs are aligned to their elements, arena,
packed memory and constants to 64 bytes. Every operand of a launch is a pair ``(word, size)`` that
stands for ``frame[word] + sizes[size]``: a buffer is an address and an offset, a size is the word
that holds zero and a size. What `sizes` holds depends on the program's symbols only; its first word
is 0.

    table ::= instruction* END    an instruction is some 32-bit words; jumps are relative to it
    CALL kernel n (word size)*    functions[kernel](operands, status)
    SET r word size               frame[r] = frame[word] + sizes[size]
    STEP r word k size            frame[r] = frame[word] + frame[k] * sizes[size]
    HALF r word k size            frame[r] = frame[word] + frame[k] % 2 * sizes[size]
    BELOW k size to               go on if frame[k] < sizes[size], else jump
    TEST word size to             go on if the byte there is not 0, else jump
    JUMP to
    PARTS n to                    what follows, up to END, n times on any threads; then jump
    STOP                          end here if a kernel before left an error

A kernel is ``void k(int64_t *operands, int32_t *status)``: it leaves 1 + the site of a
data-dependent error.
"""

END, CALL, SET, STEP, HALF, BELOW, TEST, JUMP, PARTS, STOP = range(10)

# The header of a frame. `PART` is the number of the part of a loop, `ZERO` is 0; both are words of
# operands.
CODE, FUNCTIONS, OPERANDS, WORDS, PART, ZERO, CONSTANTS, SIZES, HEADER = range(9)
