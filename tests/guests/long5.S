# 64-bit mode, 5-level paging: addresses beyond 48 bits, a 1 GiB page, and a root table that maps itself.
        .set KERNEL, 0xffffffff80000000
        .set PML5, 0x10000
        .set CR4, 0x5517f8              # long4's and LA57
        .include "boot.inc"
        .include "long.inc"

guest:  enter_long PML5, CR4
        load_system 0
        mov $SEG_SS, %eax
        mov %eax, %ss
        push rflags0(%rip)
        popfq
        load_general 0

        .balign 16
        state0

        .set PML4_LOW,    0x11000
        .set PDPT_LOW,    0x12000
        .set PD_LOW,      0x13000
        .set PML4_USER,   0x14000
        .set PDPT_USER,   0x15000
        .set PD_USER,     0x16000
        .set PT_USER,     0x17000
        .set PML4_STACK,  0x18000
        .set PDPT_STACK,  0x19000
        .set PD_STACK,    0x1a000
        .set PT_STACK,    0x1b000
        .set PML4_DIRECT, 0x1c000
        .set PDPT_DIRECT, 0x1d000
        .set PML4_TEXT,   0x1e000
        .set PDPT_TEXT,   0x1f000
        .set PD_TEXT,     0x20000
        .set PT_TEXT,     0x21000

pokes:
        # The first 2 MiB, one to one: the way into long mode.
        entry PML5, 0,        PML4_LOW | TABLE
        entry PML4_LOW, 0,    PDPT_LOW | TABLE
        entry PDPT_LOW, 0,    PD_LOW | TABLE
        entry PD_LOW, 0,      0x000000 | LEAF | PS
        probe 0x0, 0xf0123, 0x200000
        # A user address above 2^47: 0x00abcdef12345000.
        entry PML5, 0xab,     PML4_USER | TABLE
        entry PML4_USER, 0x19b, PDPT_USER | TABLE
        entry PDPT_USER, 0x1bc, PD_USER | TABLE
        entry PD_USER, 0x091, PT_USER | TABLE
        entry PT_USER, 0x145, 0x145000 | LEAF | U | NX | SOFT
        entry PT_USER, 0x146, 0x146000 | LEAF | U | NX
        probe 0xabcdef12344000, 0xabcdef12345678, 0xabcdef12346008
        # The last page of the lower half.
        entry PML5, 255,      PML4_STACK | TABLE
        entry PML4_STACK, 511, PDPT_STACK | TABLE
        entry PDPT_STACK, 511, PD_STACK | TABLE
        entry PD_STACK, 511,  PT_STACK | TABLE
        entry PT_STACK, 511,  0x160000 | LEAF | U | NX
        probe 0xffffffffffeff8, 0xfffffffffffff8, 0x100000000000000, 0xfeffffffffffffff
        # The direct map: 0xff11000000000000.
        entry PML5, 0x111,    PML4_DIRECT | TABLE
        entry PML4_DIRECT, 0, PDPT_DIRECT | TABLE
        entry PDPT_DIRECT, 0, 0x000000000 | LEAF | PS | G | NX
        entry PDPT_DIRECT, 3, 0x0c0000000 | LEAF | PS | G | NX
        probe 0xff11000000100008, 0xff110000003ff008, 0xff110000ffff0000, 0xff11000040000000
        # Kernel text.
        entry PML5, 511,      PML4_TEXT | TABLE
        entry PML4_TEXT, 511, PDPT_TEXT | TABLE
        entry PDPT_TEXT, 510, PD_TEXT | TABLE
        entry PD_TEXT, 0,     0x000000 | LEAF | PS | G
        entry PD_TEXT, 8,     PT_TEXT | TABLE
        entry PT_TEXT, 0,     0x100000 | P | A | G
        entry PT_TEXT, 1,     0x103000 | LEAF | NX
        entry PT_TEXT, 2,     0x102000 | LEAF | NX
        probe 0xffffffff80001000, 0xffffffff81000008, 0xffffffff81001008, 0xffffffff81002008, 0xffffffff81003000
        # The root maps itself: 0xffed000000000000 shows every table; the root is at the last address.
        entry PML5, 0x1ed,    PML5 | P | W | A | D | NX
        probe 0xffedf6fb7dbed000, 0xffedf6fb7dbedf68, 0xffed000000000000
        .long 0, 0
