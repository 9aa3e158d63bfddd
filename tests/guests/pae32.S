# 32-bit protected mode with PAE: three levels, 4 KiB and 2 MiB pages, NX, a root that is not page-aligned.
        .set KERNEL, 0xc0000000
        .set OFFSET, KERNEL
        .set PDPT, 0x10020
        .set CR4, 0x7f8                 # OSXMMEXCPT OSFXSR PCE PGE MCE PAE PSE DE
        .include "boot.inc"
        .include "prot.inc"

        .code32
guest:  mov $0xc0000080, %ecx           # EFER: NXE
        mov $0x800, %eax
        xor %edx, %edx
        wrmsr
        set_paging PDPT | 0x18, CR4, 0x80050033  # PCD and PWT set: a walker must drop them
        load_system FLAT_CODE, xmm
        load_general

        state32

        .set PD_LOW,    0x11000
        .set PD_STACK,  0x12000
        .set PD_KERNEL, 0x13000
        .set PT_USER,   0x14000
        .set PT_STACK,  0x15000
        .set PT_KERNEL, 0x16000

pokes:
        # One root entry a GiB; the second is absent.
        entry PDPT, 0,        PD_LOW | P
        entry PDPT, 2,        PD_STACK | P
        entry PDPT, 3,        PD_KERNEL | P
        probe 0x40000000
        # The first 2 MiB, one to one, and the first 4 MiB again in the kernel's part.
        entry PD_LOW, 0,      0x000000 | LEAF | PS
        entry PD_KERNEL, 0,   0x000000 | LEAF | PS | G
        entry PD_KERNEL, 1,   0x200000 | LEAF | PS | G | NX | PAT_LARGE
        probe 0x0, 0xf0123, 0x1fffff, 0x200000, 0xc0001000, 0xc0200008, 0xc03ff008
        # A user program, its data in reverse order, its stack at the end of the user's part.
        entry PD_LOW, 64,     PT_USER | TABLE
        entry PT_USER, 72,    0x150000 | P | U | A
        entry PT_USER, 73,    0x151000 | P | U | A
        entry PT_USER, 75,    0x157000 | LEAF | U | NX
        entry PT_USER, 76,    0x156000 | LEAF | U | NX
        probe 0x08048010, 0x08049010, 0x0804a010, 0x0804b010, 0x0804c010
        entry PD_STACK, 511,  PT_STACK | TABLE
        entry PT_STACK, 511,  0x160000 | LEAF | U | NX
        probe 0xbfffe000, 0xbfffffff
        # 4 KiB pages of the kernel: a hole, one that only looks present, MMIO, nothing below and above 4 GiB.
        entry PD_KERNEL, 2,   PT_KERNEL | TABLE
        entry PT_KERNEL, 0,   0x100000 | P | A | G
        entry PT_KERNEL, 1,   0x101000 | LEAF | G | NX
        entry PT_KERNEL, 3,   0x103000 | W | D | NX
        entry PT_KERNEL, 4,   0xfee00000 | LEAF | NX
        entry PT_KERNEL, 5,   0x45678000 | LEAF
        entry PT_KERNEL, 6,   0x345678000 | LEAF | NX
        entry PT_KERNEL, 7,   0x17e000 | LEAF
        entry PT_KERNEL, 8,   0x17f000 | LEAF
        probe 0xc0400008, 0xc0401008, 0xc0402008, 0xc0403008, 0xc0404030, 0xc0405000, 0xc0406000, 0xc0407001, 0xc0408001
        # 2 MiB pages: the last below 4 GiB, that begins with a hole and ends with the ROM, and one above.
        entry PD_KERNEL, 128, 0x0ffe00000 | LEAF | PS
        entry PD_KERNEL, 129, 0x300200000 | LEAF | PS
        probe 0xd01ffff0, 0xd0212345
        # The last page of all.
        entry PD_KERNEL, 511, 0x200000 | LEAF | PS
        probe 0xffe01008, 0xffffffff
        .long 0, 0
