# 32-bit protected mode, two-level paging with 4 KiB and 4 MiB pages, PSE-36, and a page directory that maps itself.
        .set KERNEL, 0xc0000000
        .set OFFSET, KERNEL
        .set PD, 0x10000
        .set CR4, 0x7d8                 # OSXMMEXCPT OSFXSR PCE PGE MCE PSE DE
        .include "boot.inc"
        .include "prot.inc"

        .code32
guest:  set_paging PD | 0x18, CR4, 0x80050033   # PCD and PWT set: a walker must drop them
        load_system FLAT_CODE, xmm
        load_general

        state32

        .set PT_USER,   0x11000
        .set PT_STACK,  0x12000
        .set PT_KERNEL, 0x13000

pokes:
        # The first 4 MiB, one to one, and again in the kernel's half.
        entry32 PD, 0,        0x00000000 | LEAF | PS
        entry32 PD, 768,      0x00000000 | LEAF | PS | G
        probe 0x0, 0xf0123, 0x3fffff, 0x400000, 0xc0001000, 0xc03ff008
        # A user program, its data in reverse order, its stack at the end of the user's part.
        entry32 PD, 32,       PT_USER | TABLE
        entry32 PT_USER, 72,  0x150000 | P | U | A
        entry32 PT_USER, 73,  0x151000 | P | U | A
        entry32 PT_USER, 75,  0x157000 | LEAF | U
        entry32 PT_USER, 76,  0x156000 | LEAF | U
        probe 0x08047fff, 0x08048010, 0x08049010, 0x0804a010, 0x0804b010, 0x0804c010
        entry32 PD, 767,      PT_STACK | TABLE
        entry32 PT_STACK, 1023, 0x160000 | LEAF | U
        probe 0xbfffe000, 0xbfffffff
        # 4 KiB pages of the kernel: a hole, one that only looks present, MMIO, nothing.
        entry32 PD, 769,      PT_KERNEL | TABLE
        entry32 PT_KERNEL, 0, 0x100000 | P | A | G
        entry32 PT_KERNEL, 1, 0x101000 | LEAF | G
        entry32 PT_KERNEL, 3, 0x103000 | W | D
        entry32 PT_KERNEL, 4, 0xfee00000 | LEAF
        entry32 PT_KERNEL, 5, 0x45678000 | LEAF
        entry32 PT_KERNEL, 6, 0x17e000 | LEAF
        entry32 PT_KERNEL, 7, 0x17f000 | LEAF
        probe 0xc0400008, 0xc0401008, 0xc0402008, 0xc0403008, 0xc0404030, 0xc0405000, 0xc0406001, 0xc0407001
        # 4 MiB pages: with the PAT bit; the last below 4 GiB, that begins with a hole and ends with the ROM; PSE-36.
        entry32 PD, 776,      0x00000000 | LEAF | PS | PAT_LARGE
        entry32 PD, 832,      0xffc00000 | LEAF | PS
        entry32 PD, 800,      0x00400000 | 0x5a << 13 | LEAF | PS
        probe 0xc2100008, 0xd03ffff0, 0xc8012345
        # The directory is the last page table too.
        entry32 PD, 1023,     PD | P | W | A | D
        probe 0xfffff000, 0xfffffffc, 0xffc20120, 0xfff01004, 0xffd00000
        .long 0, 0
