# 64-bit mode, two CPUs. The first is in the kernel, the second in a user program with the user's
# half of a pair of page tables (as Linux isolates them): its root is the first one's with bit 12 set.
        .set SMP, 1
        .set KERNEL, 0xffffffff80000000
        .set PML4, 0x10000
        .set PML4_USER, 0x11000
        .set CR4, 0x5507f8              # PKE SMEP OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PCE PGE MCE PAE PSE DE
        .set USER, 0x500000             # where the second CPU's program sees the ROM
        .include "boot.inc"
        .include "long.inc"

        .code32
guest:  movl $0x000c4500, 0xfee00300    # INIT to all but self
        movl $0x000c46f0, 0xfee00300    # SIPI, vector 0xf0: 0xf0000
        enter_long PML4, CR4
        load_system 0
        mov $SEG_SS, %eax
        mov %eax, %ss
        push rflags0(%rip)
        popfq
        load_general 0

        .code32
guest1: enter_long PML4_USER, CR4
        load_system 1
        push $USER_SS
        push $0
        push rflags1(%rip)
        push $USER_CODE
        push $user1 + USER - ROM
        iretq
user1:  load_general 1

        .balign 16
        state0
        state1

        .set PDPT_LOW,    0x12000
        .set PD_LOW,      0x13000
        .set PT_LOW,      0x14000
        .set PDPT_DIRECT, 0x15000
        .set PDPT_TEXT,   0x16000
        .set PD_TEXT,     0x17000
        .set PT_TEXT,     0x18000
        .set PDPT_LOW1,   0x19000
        .set PD_LOW1,     0x1a000
        .set PT_LOW1,     0x1b000
        .set PDPT_TEXT1,  0x1c000
        .set PD_TEXT1,    0x1d000

pokes:
        # The first CPU.
        entry PML4, 0,        PDPT_LOW | TABLE
        entry PDPT_LOW, 0,    PD_LOW | TABLE
        entry PD_LOW, 0,      0x000000 | LEAF | PS
        entry PD_LOW, 2,      PT_LOW | TABLE
        entry PT_LOW, 2,      0x202000 | LEAF | U
        entry PT_LOW, 5,      0x205000 | LEAF | U
        entry PML4, 273,      PDPT_DIRECT | TABLE
        entry PDPT_DIRECT, 0, 0x000000000 | LEAF | PS | G | NX
        entry PML4, 511,      PDPT_TEXT | TABLE
        entry PDPT_TEXT, 510, PD_TEXT | TABLE
        entry PD_TEXT, 0,     0x000000 | LEAF | PS | G
        entry PD_TEXT, 8,     PT_TEXT | TABLE
        entry PT_TEXT, 0,     0x100000 | P | A | G
        entry PT_TEXT, 1,     0x101000 | LEAF | NX
        # The second. 0x401000 is its neighbor of the first one's 0x402000, in both spaces; 0x405000 is
        # another frame than the first one's. Of the kernel it has what it needs to enter it.
        entry PML4_USER, 0,   PDPT_LOW1 | TABLE
        entry PDPT_LOW1, 0,   PD_LOW1 | TABLE
        entry PD_LOW1, 0,     0x000000 | LEAF | PS
        entry PD_LOW1, 2,     PT_LOW1 | TABLE
        entry PT_LOW1, 1,     0x201000 | LEAF | U
        entry PT_LOW1, 5,     0x155000 | LEAF | U | NX
        entry PT_LOW1, 256,   0x0f0000 | P | U | A
        entry PT_LOW1, 257,   0x0f1000 | P | U | A
        entry PT_LOW1, 258,   0x0f2000 | P | U | A
        entry PML4_USER, 511, PDPT_TEXT1 | TABLE
        entry PDPT_TEXT1, 510, PD_TEXT1 | TABLE
        entry PD_TEXT1, 0,    0x000000 | LEAF | PS
        probe 0xf0123, 0x401008, 0x402008, 0x405008, 0x500000, 0x502010
        probe 0xffff888000100008, 0xffffffff80001000, 0xffffffff81000008, 0xffffffff81001008
        .long 0, 0
