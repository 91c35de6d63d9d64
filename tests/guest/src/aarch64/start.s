// From the Image header to Rust: relocations, a first page table, a stack, exception vectors.

// Documentation/arch/arm64/booting.rst of Linux.
.section .head, "ax"
.global image_header
image_header:
    b       start
    .long   0
    .quad   0                       // text_offset
    .quad   0x100000                // image_size: guest.ld holds it to this
    .quad   0xa                     // flags: little endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

.text
// x0: the device tree.
start:
    msr     daifset, #0xf
    mov     x20, x0

    // The image is linked at 0: each relocation adds where it really is.
    adrp    x19, image_header
    adrp    x1, relocations_start
    add     x1, x1, :lo12:relocations_start
    adrp    x2, relocations_end
    add     x2, x2, :lo12:relocations_end
1:  cmp     x1, x2
    b.hs    2f
    ldp     x3, x4, [x1], #16       // offset, kind
    ldr     x5, [x1], #8            // addend
    cmp     x4, #1027               // R_AARCH64_RELATIVE
    b.ne    1b
    add     x5, x5, x19
    str     x5, [x19, x3]
    b       1b

2:  adrp    x1, bss_start
    adrp    x2, bss_end
3:  cmp     x1, x2
    b.hs    4f
    stp     xzr, xzr, [x1], #16
    b       3b

    // Until the device tree has been read: 1 GiB blocks, memory from where the image is, devices below.
4:  adrp    x1, first_level_1
    mov     x2, #0
    lsr     x3, x19, #30
5:  lsl     x4, x2, #30
    cmp     x2, x3
    mov     x5, #0x401              // accessed, device
    mov     x6, #0x705              // accessed, inner shareable, memory
    csel    x5, x5, x6, lo
    orr     x4, x4, x5
    str     x4, [x1, x2, lsl #3]
    add     x2, x2, #1
    cmp     x2, #512
    b.ne    5b
    adrp    x0, first_level_0
    orr     x1, x1, #3
    str     x1, [x0]

    adrp    x1, stack_top
    mov     sp, x1
    bl      turn_on
    mov     x0, x20
    mov     x1, x19
    bl      guest_main
6:  wfi
    b       6b

// Where the second processor starts. x0: the top of its stack.
.global second_start
second_start:
    msr     daifset, #0xf
    mov     sp, x0
    // Written before any cache was on: this processor, whose caches are off, sees it as it is.
    adrp    x0, first_level_0
    bl      turn_on
    bl      guest_second
15: wfi
    b       15b

// x0: a page table's root. Turns on translation, caches, vector registers and exception vectors.
turn_on:
    mrs     x1, cpacr_el1
    orr     x1, x1, #(3 << 20)
    msr     cpacr_el1, x1
    ldr     x1, =0xff04             // 0: device nGnRE, 1: memory, write-back
    msr     mair_el1, x1
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #7
    lsl     x1, x1, #32             // physical address size
    ldr     x2, =0x803510           // 48-bit addresses, 4 KiB pages, write-back, no upper half
    orr     x1, x1, x2
    msr     tcr_el1, x1
    msr     ttbr0_el1, x0
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    dsb     sy
    tlbi    vmalle1
    dsb     sy
    ic      iallu
    dsb     sy
    isb
    mrs     x1, sctlr_el1
    ldr     x2, =0x1005             // translation, data cache, instruction cache
    orr     x1, x1, x2
    bic     x1, x1, #2              // no alignment check
    msr     sctlr_el1, x1
    isb
    ret
    .ltorg

// An access that may abort, at the address in x0. The handler skips the access and sets x2.
.global probe_load
probe_load:
    mov     x2, #0
    ldr     w0, [x0]
    mov     x1, x2
    ret

.global probe_store
probe_store:
    mov     x2, #0
    str     w1, [x0]
    mov     x0, x2
    ret

.macro vector number
    .balign 0x80
    sub     sp, sp, #0x120
    stp     x0, x1, [sp]
    mov     x0, #\number
    b       take_exception
.endm

.balign 0x800
vectors:
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vector  \number
    .endr

take_exception:
    stp     x2, x3, [sp, #0x10]
    stp     x4, x5, [sp, #0x20]
    stp     x6, x7, [sp, #0x30]
    stp     x8, x9, [sp, #0x40]
    stp     x10, x11, [sp, #0x50]
    stp     x12, x13, [sp, #0x60]
    stp     x14, x15, [sp, #0x70]
    stp     x16, x17, [sp, #0x80]
    stp     x18, x19, [sp, #0x90]
    stp     x20, x21, [sp, #0xa0]
    stp     x22, x23, [sp, #0xb0]
    stp     x24, x25, [sp, #0xc0]
    stp     x26, x27, [sp, #0xd0]
    stp     x28, x29, [sp, #0xe0]
    mrs     x1, elr_el1
    stp     x30, x1, [sp, #0xf0]
    mrs     x2, esr_el1
    mrs     x3, far_el1
    stp     x2, x3, [sp, #0x100]
    mov     x1, sp
    bl      exception
    ldp     x30, x1, [sp, #0xf0]
    msr     elr_el1, x1
    ldp     x2, x3, [sp, #0x10]
    ldp     x4, x5, [sp, #0x20]
    ldp     x6, x7, [sp, #0x30]
    ldp     x8, x9, [sp, #0x40]
    ldp     x10, x11, [sp, #0x50]
    ldp     x12, x13, [sp, #0x60]
    ldp     x14, x15, [sp, #0x70]
    ldp     x16, x17, [sp, #0x80]
    ldp     x18, x19, [sp, #0x90]
    ldp     x20, x21, [sp, #0xa0]
    ldp     x22, x23, [sp, #0xb0]
    ldp     x24, x25, [sp, #0xc0]
    ldp     x26, x27, [sp, #0xd0]
    ldp     x28, x29, [sp, #0xe0]
    ldp     x0, x1, [sp]
    add     sp, sp, #0x120
    eret

// The core library was compiled to unwind and names this; a panic here ends the guest instead.
.global rust_eh_personality
rust_eh_personality:
    brk     #1

// There is no C library; the compiler wants these. Plain loops: a test guest is in no hurry.
.global memcpy
.global memmove
memmove:
    cmp     x0, x1
    b.ls    memcpy
7:  cbz     x2, 8f
    sub     x2, x2, #1
    ldrb    w3, [x1, x2]
    strb    w3, [x0, x2]
    b       7b
8:  ret
memcpy:
    mov     x4, #0
9:  cmp     x4, x2
    b.eq    10f
    ldrb    w3, [x1, x4]
    strb    w3, [x0, x4]
    add     x4, x4, #1
    b       9b
10: ret

.global memset
memset:
    mov     x4, #0
11: cmp     x4, x2
    b.eq    12f
    strb    w1, [x0, x4]
    add     x4, x4, #1
    b       11b
12: ret

.global memcmp
.global bcmp
memcmp:
bcmp:
    mov     x5, #0
13: cmp     x5, x2
    b.eq    14f
    ldrb    w3, [x0, x5]
    ldrb    w4, [x1, x5]
    add     x5, x5, #1
    subs    w3, w3, w4
    b.eq    13b
    mov     w0, w3
    ret
14: mov     w0, #0
    ret

.bss
.balign 4096
first_level_0:
    .zero   4096
first_level_1:
    .zero   4096
