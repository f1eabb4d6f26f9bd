//! The programs as code for AArch64. The kernel keeps all registers but x0 across a system call:
//! syscall(2).

use std::arch::asm;
use std::slice;

/// EM_AARCH64.
pub(super) const ELF_NUMBER: u16 = 183;

/// Puts code into the read-only data of this library, and gives it as bytes. Its labels have
/// numbers from 2 on, which are its own: it may be there more than once.
macro_rules! code {
    ($($line:expr),+ $(,)?) => {{
        let start: *const u8;
        let end: *const u8;
        // SAFETY: two addresses are calculated; the rest is data, in a section of its own.
        unsafe {
            asm!(
                ".pushsection .rodata.pipeplug, \"a\"",
                ".balign 8",
                "20:",
                $($line,)+
                "30:",
                ".popsection",
                "adrp {start}, 20b",
                "add {start}, {start}, :lo12:20b",
                "adrp {end}, 30b",
                "add {end}, {end}, :lo12:30b",
                start = out(reg) start,
                end = out(reg) end,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        // SAFETY: `start` and `end` are the bounds of read-only data that is there as long as this
        // library.
        unsafe { slice::from_raw_parts(start, end.addr() - start.addr()) }
    }};
}

/// prctl(PR_SET_NAME, argv[0]), then read(0, …, 1) until the end of file; x19 is argc behind it,
/// and the stack has room.
macro_rules! until_end_of_file {
    () => {
        "
        ldr     x19, [sp]
        ldr     x1, [sp, #8]
        mov     x0, #15
        mov     x8, #167
        svc     #0
        sub     sp, sp, #16
    2:
        mov     x2, #1
        mov     x1, sp
        mov     x0, #0
        mov     x8, #63
        svc     #0
        cmp     x0, #0
        b.gt    2b
        cmn     x0, #4          // EINTR
        b.eq    2b
        "
    };
}

/// exit_group(0).
macro_rules! exit {
    () => {
        "
        mov     x0, #0
        mov     x8, #94
        svc     #0
        "
    };
}

pub(super) fn init() -> &'static [u8] {
    code!(
        until_end_of_file!(),
        "
        cmp     x19, #2
        b.lo    4f
        mov     x1, #0          // pidfd_open(2, 0)
        mov     x0, #2
        mov     x8, #434
        svc     #0
        cmp     x0, #0
        b.lt    4f
        mov     w9, #1
        stp     w0, w9, [sp]
    3:                          // ppoll({{fd, POLLIN}}, 1, no timeout, no mask)
        mov     x4, #0
        mov     x3, #0
        mov     x2, #0
        mov     x1, #1
        mov     x0, sp
        mov     x8, #73
        svc     #0
        cmn     x0, #4          // EINTR
        b.eq    3b
    4:
        ",
        exit!(),
    )
}

pub(super) fn watcher() -> &'static [u8] {
    code!(
        until_end_of_file!(),
        "
        sub     sp, sp, #4096
        mov     x20, #5000      // the rounds that are left
        mov     x21, #1         // whether it is the first
    3:                          // A round: lseek(1, 0, SEEK_SET)
        mov     x2, #0
        mov     x1, #0
        mov     x0, #1
        mov     x8, #62
        svc     #0
        mov     x22, #0         // how many kills succeeded
    4:                          // A block of the table: read(1, sp, 4096)
        mov     x2, #4096
        mov     x1, sp
        mov     x0, #1
        mov     x8, #63
        svc     #0
        cmp     x0, #0
        b.le    8f
        mov     x23, sp
        add     x24, x23, x0
    5:                          // A pair: kill(first, SIGKILL)
        ldrsw   x0, [x23]
        cbz     x0, 6f
        mov     x1, #9
        mov     x8, #129
        svc     #0
        cbnz    x0, 6f
        add     x22, x22, #1
    6:                          // kill(second, SIGKILL)
        cbz     x21, 7f
        ldrsw   x0, [x23, #4]
        cbz     x0, 7f
        mov     x1, #9
        mov     x8, #129
        svc     #0
        cbnz    x0, 7f
        add     x22, x22, #1
    7:
        add     x23, x23, #8
        cmp     x23, x24
        b.lo    5b
        b       4b
    8:
        cbz     x22, 9f
        mov     x21, #0
        subs    x20, x20, #1
        b.eq    9f
        mov     x9, #0x4240     // nanosleep({{0, 1000000}}, no rest)
        movk    x9, #0xf, lsl #16
        stp     xzr, x9, [sp]
        mov     x1, #0
        mov     x0, sp
        mov     x8, #101
        svc     #0
        b       3b
    9:
        ",
        exit!(),
    )
}
