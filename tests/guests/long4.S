# 64-bit mode, 4-level paging: every leaf size, both halves, holes, and the bits that a walker must drop.
        .set KERNEL, 0xffffffff80000000
        .set PML4, 0x10000
        .set CR4, 0x5507f8              # PKE SMEP OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PCE PGE MCE PAE PSE DE
        .include "boot.inc"
        .include "long.inc"

guest:  enter_long PML4 | 0x18, CR4     # PCD and PWT set: a walker must drop them
        load_system 0
        mov $SEG_SS, %eax
        mov %eax, %ss
        push rflags0(%rip)
        popfq
        load_general 0

        .balign 16
        state0

        .set PDPT_LOW,    0x11000
        .set PD_LOW,      0x12000
        .set PT_LOW,      0x13000
        .set PDPT_USER,   0x14000
        .set PD_USER,     0x15000
        .set PT_USER,     0x16000
        .set PD_STACK,    0x17000
        .set PT_STACK,    0x18000
        .set PDPT_DIRECT, 0x19000
        .set PDPT_TEXT,   0x1a000
        .set PD_TEXT,     0x1b000
        .set PT_TEXT,     0x1c000
        .set PD_TOP,      0x1d000
        .set PT_TOP,      0x1e000
        .set PDPT_CPU,    0x1f000
        .set PD_CPU,      0x20000
        .set PT_CPU,      0x21000
        .set PDPT_STACK,  0x22000

pokes:
        # The first 2 MiB, one to one: the way into long mode.
        entry PML4, 0,       PDPT_LOW | TABLE
        entry PDPT_LOW, 0,   PD_LOW | TABLE
        entry PD_LOW, 0,     0x000000 | LEAF | PS
        probe 0x0, 0xf0123, 0x1fffff, 0x200000
        # 0x400000: 4 KiB pages in reverse order: each needs its own segment.
        entry PD_LOW, 2,     PT_LOW | TABLE
        entry PT_LOW, 0,     0x107000 | LEAF | U
        entry PT_LOW, 1,     0x106000 | LEAF | U
        entry PT_LOW, 2,     0x105000 | LEAF | U
        probe 0x400123, 0x401123, 0x402123, 0x403000

        # A user program: text, a hole, data that may not run.
        entry PML4, 170,     PDPT_USER | TABLE
        entry PDPT_USER, 341, PD_USER | TABLE
        entry PD_USER, 170,  PT_USER | TABLE
        entry PT_USER, 340,  0x150000 | P | U | A
        entry PT_USER, 341,  0x151000 | P | U | A
        entry PT_USER, 343,  0x153000 | LEAF | U | NX
        probe 0x555555554010, 0x555555555010, 0x555555556010, 0x555555557010
        # The last page of the lower half.
        entry PML4, 255,     PDPT_STACK | TABLE
        entry PDPT_STACK, 511, PD_STACK | TABLE
        entry PD_STACK, 511, PT_STACK | TABLE
        entry PT_STACK, 511, 0x160000 | LEAF | U | NX
        probe 0x7fffffffefff, 0x7ffffffff000, 0x7fffffffffff, 0x800000000000

        # The direct map in 1 GiB pages: all of RAM; nothing at all; the ROM below 4 GiB in a page that begins with a hole.
        entry PML4, 273,     PDPT_DIRECT | TABLE
        entry PDPT_DIRECT, 0, 0x000000000 | LEAF | PS | G | NX
        entry PDPT_DIRECT, 1, 0x040000000 | LEAF | PS | G | NX
        entry PDPT_DIRECT, 3, 0x0c0000000 | LEAF | PS | G | NX
        probe 0xffff888000000000, 0xffff8880003ff008, 0xffff888012345678, 0xffff8880fffff000

        # Kernel text: 2 MiB pages, then 4 KiB pages with a hole, with software bits, and with no memory behind.
        entry PML4, 511,     PDPT_TEXT | TABLE
        entry PDPT_TEXT, 510, PD_TEXT | TABLE
        entry PD_TEXT, 0,    0x000000 | LEAF | PS | G
        entry PD_TEXT, 1,    0x200000 | LEAF | PS | G | PAT_LARGE | NX | SOFT
        entry PD_TEXT, 8,    PT_TEXT | TABLE | SOFT
        entry PT_TEXT, 0,    0x100000 | P | A | G
        entry PT_TEXT, 1,    0x101000 | P | A | G
        entry PT_TEXT, 2,    0x102000 | LEAF | G | NX
        entry PT_TEXT, 4,    0x104000 | LEAF | NX | SOFT
        entry PT_TEXT, 5,    0x105000 | W | D | NX              # not present, but looks so
        entry PT_TEXT, 6,    0x0fee00000 | LEAF | NX            # the APIC
        entry PT_TEXT, 7,    0x3456789000 | LEAF | NX          # nothing there
        entry PT_TEXT, 8,    0x17e000 | LEAF | NX
        entry PT_TEXT, 9,    0x17f000 | LEAF | NX
        probe 0xffffffff80001000, 0xffffffff80200008, 0xffffffff80400000
        probe 0xffffffff81000008, 0xffffffff81002008, 0xffffffff81003000, 0xffffffff81004008
        probe 0xffffffff81005008, 0xffffffff81006030, 0xffffffff81007000, 0xffffffff81008001
        # The last page of all: its end is 2^64.
        entry PDPT_TEXT, 511, PD_TOP | TABLE
        entry PD_TOP, 511,   PT_TOP | TABLE
        entry PT_TOP, 511,   0x161000 | LEAF | NX
        probe 0xfffffffffffff000, 0xffffffffffffffff

        # The descriptor tables again, where Linux has its per-CPU area.
        entry PML4, 508,     PDPT_CPU | TABLE
        entry PDPT_CPU, 0,   PD_CPU | TABLE
        entry PD_CPU, 0,     PT_CPU | TABLE
        entry PT_CPU, 0,     IDT | P | A | G | NX
        entry PT_CPU, 1,     GDT | P | A | G | NX
        probe 0xfffffe0000000000, 0xfffffe0000001018, 0xfffffe0000002000
        .long 0, 0
