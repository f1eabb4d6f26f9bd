//! The programs as code for x86-64. The kernel keeps all registers but rax, rcx and r11 across a
//! system call: syscall(2).

use std::arch::asm;
use std::slice;

/// EM_X86_64.
pub(super) const ELF_NUMBER: u16 = 62;

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
                "lea {start}, [rip + 20b]",
                "lea {end}, [rip + 30b]",
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

/// prctl(PR_SET_NAME, argv[0]), then read(0, …, 1) until the end of file.
macro_rules! until_end_of_file {
    () => {
        "
        mov     rsi, [rsp + 8]
        mov     edi, 15
        mov     eax, 157
        syscall
    2:
        lea     rsi, [rsp - 8]
        mov     edx, 1
        xor     edi, edi
        xor     eax, eax
        syscall
        test    rax, rax
        jg      2b
        cmp     rax, -4         // EINTR
        je      2b
        "
    };
}

/// exit_group(0).
macro_rules! exit {
    () => {
        "
        xor     edi, edi
        mov     eax, 231
        syscall
        "
    };
}

pub(super) fn init() -> &'static [u8] {
    code!(
        until_end_of_file!(),
        "
        cmp     qword ptr [rsp], 2
        jb      4f
        xor     esi, esi        // pidfd_open(2, 0)
        mov     edi, 2
        mov     eax, 434
        syscall
        test    rax, rax
        js      4f
        mov     dword ptr [rsp - 16], eax
        mov     dword ptr [rsp - 12], 1
    3:                          // ppoll({{fd, POLLIN}}, 1, no timeout, no mask)
        lea     rdi, [rsp - 16]
        mov     esi, 1
        xor     edx, edx
        xor     r10d, r10d
        xor     r8d, r8d
        mov     eax, 271
        syscall
        cmp     rax, -4         // EINTR
        je      3b
    4:
        ",
        exit!(),
    )
}

pub(super) fn watcher() -> &'static [u8] {
    code!(
        until_end_of_file!(),
        "
        sub     rsp, 4096
        mov     r13d, 5000      // the rounds that are left
        mov     r14d, 1         // whether it is the first
    3:                          // A round: lseek(1, 0, SEEK_SET)
        xor     edx, edx
        xor     esi, esi
        mov     edi, 1
        mov     eax, 8
        syscall
        xor     r12d, r12d      // how many kills succeeded
    4:                          // A block of the table: read(1, rsp, 4096)
        mov     edx, 4096
        mov     rsi, rsp
        mov     edi, 1
        xor     eax, eax
        syscall
        test    rax, rax
        jle     8f
        mov     rbx, rsp
        lea     r15, [rsp + rax]
    5:                          // A pair: kill(first, SIGKILL)
        mov     edi, [rbx]
        test    edi, edi
        jz      6f
        mov     esi, 9
        mov     eax, 62
        syscall
        test    rax, rax
        jnz     6f
        inc     r12
    6:                          // kill(second, SIGKILL)
        test    r14d, r14d
        jz      7f
        mov     edi, [rbx + 4]
        test    edi, edi
        jz      7f
        mov     esi, 9
        mov     eax, 62
        syscall
        test    rax, rax
        jnz     7f
        inc     r12
    7:
        add     rbx, 8
        cmp     rbx, r15
        jb      5b
        jmp     4b
    8:
        test    r12, r12
        jz      9f
        xor     r14d, r14d
        dec     r13d
        jz      9f
        mov     qword ptr [rsp], 0          // nanosleep({{0, 1000000}}, no rest)
        mov     qword ptr [rsp + 8], 1000000
        xor     esi, esi
        mov     rdi, rsp
        mov     eax, 35
        syscall
        jmp     3b
    9:
        ",
        exit!(),
    )
}
