//! The programs as code for 64-bit RISC-V. The kernel keeps all registers but a0 across a system
//! call: syscall(2).

use std::arch::asm;
use std::slice;

/// EM_RISCV.
pub(super) const ELF_NUMBER: u16 = 243;

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
                ".option push",
                ".option norelax",
                ".balign 8",
                "20:",
                $($line,)+
                "30:",
                ".option pop",
                ".popsection",
                "lla {start}, 20b",
                "lla {end}, 30b",
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

/// prctl(PR_SET_NAME, argv[0]), then read(0, …, 1) until the end of file; s0 is argc behind it, and
/// the stack has room.
macro_rules! until_end_of_file {
    () => {
        "
        ld      s0, 0(sp)
        ld      a1, 8(sp)
        li      a0, 15
        li      a7, 167
        ecall
        addi    sp, sp, -16
    2:
        li      a2, 1
        mv      a1, sp
        li      a0, 0
        li      a7, 63
        ecall
        bgtz    a0, 2b
        li      t0, -4          // EINTR
        beq     a0, t0, 2b
        "
    };
}

/// exit_group(0).
macro_rules! exit {
    () => {
        "
        li      a0, 0
        li      a7, 94
        ecall
        "
    };
}

pub(super) fn init() -> &'static [u8] {
    code!(
        until_end_of_file!(),
        "
        li      t0, 2
        bltu    s0, t0, 4f
        li      a1, 0           // pidfd_open(2, 0)
        li      a0, 2
        li      a7, 434
        ecall
        bltz    a0, 4f
        sw      a0, 0(sp)
        li      t0, 1
        sw      t0, 4(sp)
    3:                          // ppoll({{fd, POLLIN}}, 1, no timeout, no mask)
        li      a4, 0
        li      a3, 0
        li      a2, 0
        li      a1, 1
        mv      a0, sp
        li      a7, 73
        ecall
        li      t0, -4          // EINTR
        beq     a0, t0, 3b
    4:
        ",
        exit!(),
    )
}

pub(super) fn watcher() -> &'static [u8] {
    code!(
        until_end_of_file!(),
        "
        li      t0, 4096
        sub     sp, sp, t0
        li      s1, 5000        // the rounds that are left
        li      s2, 1           // whether it is the first
    3:                          // A round: lseek(1, 0, SEEK_SET)
        li      a2, 0
        li      a1, 0
        li      a0, 1
        li      a7, 62
        ecall
        li      s3, 0           // how many kills succeeded
    4:                          // A block of the table: read(1, sp, 4096)
        li      a2, 4096
        mv      a1, sp
        li      a0, 1
        li      a7, 63
        ecall
        blez    a0, 8f
        mv      s4, sp
        add     s5, s4, a0
    5:                          // A pair: kill(first, SIGKILL)
        lw      a0, 0(s4)
        beqz    a0, 6f
        li      a1, 9
        li      a7, 129
        ecall
        bnez    a0, 6f
        addi    s3, s3, 1
    6:                          // kill(second, SIGKILL)
        beqz    s2, 7f
        lw      a0, 4(s4)
        beqz    a0, 7f
        li      a1, 9
        li      a7, 129
        ecall
        bnez    a0, 7f
        addi    s3, s3, 1
    7:
        addi    s4, s4, 8
        bltu    s4, s5, 5b
        j       4b
    8:
        beqz    s3, 9f
        li      s2, 0
        addi    s1, s1, -1
        beqz    s1, 9f
        li      t0, 1000000     // nanosleep({{0, 1000000}}, no rest)
        sd      zero, 0(sp)
        sd      t0, 8(sp)
        li      a1, 0
        mv      a0, sp
        li      a7, 101
        ecall
        j       3b
    9:
        ",
        exit!(),
    )
}
