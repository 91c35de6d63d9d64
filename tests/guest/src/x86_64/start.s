// From the PVH entry to Rust: page tables, long mode, a stack.

// The entry's address, as Xen's ELF notes have it (XEN_ELFNOTE_PHYS32_ENTRY).
.section .note.pvh, "a", @note
    .balign 4
    .long   4                       // bytes of the name
    .long   8                       // bytes of the address
    .long   18
    .asciz  "Xen"
    .quad   start

.text
.code32
// 32-bit protected mode without paging. ebx: the start info.
.global start
start:
    cli
    cld
    mov     esp, offset stack_top

    // Every address at itself, in pages of 1 GiB: 512 of them.
    mov     eax, offset level_3 + 3
    mov     dword ptr [level_4], eax
    xor     ecx, ecx
1:  mov     eax, ecx
    shl     eax, 30
    or      eax, 0x83               // present, writable, a page
    mov     dword ptr [level_3 + ecx * 8], eax
    mov     eax, ecx
    shr     eax, 2
    mov     dword ptr [level_3 + ecx * 8 + 4], eax
    inc     ecx
    cmp     ecx, 512
    jne     1b

    mov     eax, 0x620              // PAE, SSE and its exceptions
    mov     cr4, eax
    mov     eax, offset level_4
    mov     cr3, eax
    mov     ecx, 0xc0000080         // EFER
    rdmsr
    or      eax, 0x100              // long mode
    wrmsr
    mov     eax, 0x80000033         // paging, protection, a coprocessor that is there
    mov     cr0, eax
    lgdt    [gdt_pointer]
    push    0x08
    mov     eax, offset in_long_mode
    push    eax
    retf

.code64
in_long_mode:
    mov     eax, 0x10
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    mov     edi, ebx
    call    guest_main
2:  hlt
    jmp     2b

// Where the second processor starts, copied to below 1 MiB. The copy's segment begins with it.
.code16
.global second_trampoline
second_trampoline:
    cli
    mov     ax, cs
    mov     ds, ax
    lgdt    [0x100]                 // what `processor.rs` has put there
    mov     eax, 0x620
    mov     cr4, eax
    mov     eax, offset level_4
    mov     cr3, eax
    mov     ecx, 0xc0000080
    rdmsr
    or      eax, 0x100
    wrmsr
    mov     eax, 0x80000033         // from real mode to long mode at once
    mov     cr0, eax
    .byte   0x66, 0xea              // a far jump with a 32-bit offset
    .long   second_in_long_mode
    .word   0x08
.global second_trampoline_end
second_trampoline_end:

.code64
second_in_long_mode:
    mov     eax, 0x10
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    lea     rsp, [rip + second_stack_top]
    call    guest_second
6:  cli
    hlt
    jmp     6b

// Exceptions: each its number, and an error code where the processor gives none.
.macro vector number
    .balign 16
    .if (\number == 8) || (\number >= 10 && \number <= 14) || (\number == 17) || (\number == 21)
    .else
    push    0
    .endif
    push    \number
    jmp     take_exception
.endm
.balign 16
.global vectors
vectors:
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vector  \number
    .endr

// A #GP on purpose: loads from the device at rdi, and goes on behind the rdmsr.
.global load_in_handler
load_in_handler:
    mov     eax, dword ptr [rdi]
    add     rsp, 8
    add     qword ptr [rsp], 2
    iretq

take_exception:
    pop     rdi
    pop     rsi
    mov     rdx, qword ptr [rsp]
    mov     rcx, cr2
    and     rsp, -16
    call    exception

// The core library was compiled to unwind and names this; a panic here ends the guest instead.
.global rust_eh_personality
rust_eh_personality:
    ud2

// There is no C library; the compiler wants these.
.global memcpy
.global memmove
memmove:
    cmp     rdi, rsi
    jbe     memcpy
    mov     rax, rdi
    mov     rcx, rdx
    lea     rdi, [rdi + rdx - 1]
    lea     rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret
memcpy:
    mov     rax, rdi
    mov     rcx, rdx
    rep movsb
    ret

.global memset
memset:
    mov     r8, rdi
    mov     eax, esi
    mov     rcx, rdx
    rep stosb
    mov     rax, r8
    ret

.global memcmp
.global bcmp
memcmp:
bcmp:
    xor     ecx, ecx
4:  cmp     rcx, rdx
    je      5f
    movzx   eax, byte ptr [rdi + rcx]
    movzx   r8d, byte ptr [rsi + rcx]
    inc     rcx
    sub     eax, r8d
    je      4b
    ret
5:  xor     eax, eax
    ret

.data
.balign 8
gdt:
    .quad   0
    .quad   0x00af9b000000ffff      // 0x08: code, 64 bits
    .quad   0x00cf93000000ffff      // 0x10: data
gdt_end:
.global gdt_pointer
gdt_pointer:
    .word   gdt_end - gdt - 1
    .quad   gdt
.bss
.balign 4096
level_4:
    .zero   4096
level_3:
    .zero   4096
    .zero   0x10000
second_stack_top:
