# 64-bit mode with a VMCOREINFO note.
        .set KERNEL, 0xffffffff80000000
        .set PML4, 0x10000
        .set CR4, 0x5507f8              # PKE SMEP OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PCE PGE MCE PAE PSE DE
        .include "boot.inc"
        .include "long.inc"
        .include "note.inc"

        .code32
guest:  announce
        enter_long PML4, CR4
        load_system 0
        mov $SEG_SS, %eax
        mov %eax, %ss
        push rflags0(%rip)
        popfq
        load_general 0

        .balign 16
        state0

        note_head 0x90
        .ascii "OSRELEASE=6.1.0-vmcore-guest\n"
        .ascii "BUILD-ID=766d636f72652d67756573742d6e6f7465000000\n"
        .ascii "PAGESIZE=4096\n"
        .ascii "SYMBOL(_stext)=ffffffff81000000\n"
        .ascii "SYMBOL(swapper_pg_dir)=ffffffff80010000\n"
        .ascii "NUMBER(phys_base)=-15728640\n"          # 0x100000 - 0x1000000
        .ascii "NUMBER(pgtable_l5_enabled)=0\n"
        .ascii "KERNELOFFSET=0\n"
        note_tail

        .set PDPT_LOW,  0x11000
        .set PD_LOW,    0x12000
        .set PDPT_TEXT, 0x13000
        .set PD_TEXT,   0x14000
        .set PT_TEXT,   0x15000

        .balign 8
pokes:
        note_pokes
        entry PML4, 0,        PDPT_LOW | TABLE
        entry PDPT_LOW, 0,    PD_LOW | TABLE
        entry PD_LOW, 0,      0x000000 | LEAF | PS
        entry PML4, 511,      PDPT_TEXT | TABLE
        entry PDPT_TEXT, 510, PD_TEXT | TABLE
        entry PD_TEXT, 0,     0x000000 | LEAF | PS | G
        entry PD_TEXT, 8,     PT_TEXT | TABLE
        entry PT_TEXT, 0,     0x100000 | P | A | G
        probe 0xffffffff80010000, 0xffffffff81000008
        .long 0, 0
