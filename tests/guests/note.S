# 64-bit mode with a VMCOREINFO note, announced as Linux does: by a DMA write to the fw_cfg file
# "etc/vmcoreinfo" (`-device vmcoreinfo`).
        .set KERNEL, 0xffffffff80000000
        .set PML4, 0x10000
        .set CR4, 0x5507f8              # PKE SMEP OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PCE PGE MCE PAE PSE DE
        .set ENTRY, 0x5000              # a directory entry of fw_cfg: size, selector, 0 (big-endian), name
        .set ACCESS, 0x5100             # FWCfgDmaAccess: control, length, address (big-endian)
        .set INFO, 0x5120               # FWCfgVMCoreInfo: host format, guest format, size, address
        .set NOTE, 0x6004               # the note: aligned to 4, not to 8
        .include "boot.inc"
        .include "long.inc"

        .code32
guest:  mov $note, %esi
        mov $NOTE, %edi
        mov $note_end - note, %ecx
        rep movsb

        mov $0x510, %edx                # select the directory; its count, then its entries
        mov $0x19, %eax
        out %ax, %dx
        inc %edx
        mov $ENTRY, %edi
        mov $4, %ecx
        rep insb
1:      mov $ENTRY, %edi
        mov $64, %ecx
        rep insb
        mov $file, %esi
        mov $ENTRY + 8, %edi
        mov $file_end - file, %ecx
        repe cmpsb
        jne 1b

        movl $0x18000000, ACCESS        # select and write
        mov ENTRY + 4, %ax
        mov %ax, ACCESS
        mov $ACCESS, %eax
        bswap %eax
        mov $0x518, %edx
        out %eax, %dx

        enter_long PML4, CR4
        load_system 0
        mov $SEG_SS, %eax
        mov %eax, %ss
        push rflags0(%rip)
        popfq
        load_general 0

        .balign 16
        state0

file:   .asciz "etc/vmcoreinfo"
file_end:
        .balign 4
note:   .long 11, desc_end - desc, 0
        .asciz "VMCOREINFO"
        .balign 4
desc:   .ascii "OSRELEASE=6.1.0-vmcore-guest\n"
        .ascii "BUILD-ID=766d636f72652d67756573742d6e6f7465000000\n"
        .ascii "PAGESIZE=4096\n"
        .ascii "SYMBOL(_stext)=ffffffff81000000\n"
        .ascii "SYMBOL(swapper_pg_dir)=ffffffff80010000\n"
        .ascii "NUMBER(phys_base)=-15728640\n"          # 0x100000 - 0x1000000
        .ascii "NUMBER(pgtable_l5_enabled)=0\n"
        .ascii "KERNELOFFSET=0\n"
desc_end:
        .balign 4, 0
note_end:

        .set PDPT_LOW,  0x11000
        .set PD_LOW,    0x12000
        .set PDPT_TEXT, 0x13000
        .set PD_TEXT,   0x14000
        .set PT_TEXT,   0x15000

        .balign 8
pokes:
        .long ACCESS + 4, 16 << 24
        .long ACCESS + 12, ((INFO & 0xff) << 24) | ((INFO & 0xff00) << 8)
        .long INFO, 1 << 16             # guest format 1: ELF
        .long INFO + 4, note_end - note
        .long INFO + 8, NOTE
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
