# 64-bit mode: functions that call each other, for backtraces. This program, as it is linked, is the vmlinux; by its
# VMCOREINFO note it runs KERNEL above that, as a kernel does that KASLR has moved.
        .set KERNEL, 0xffffffff80000000
        .set PML4, 0x10000
        .set CR4, 0x5507f8              # PKE SMEP OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PCE PGE MCE PAE PSE DE
        .include "boot.inc"
        .include "long.inc"
        .include "note.inc"
        .cfi_sections .debug_frame

        .code32
guest:  announce
        enter_long PML4, CR4
        movabs $KERNEL + STACK0, %rsp
        jmp start

# A function whose frame the tables know, and what is in it.
        .macro function name
        .type \name, @function
\name:
        .cfi_startproc
        .endm
        .macro end name
        .cfi_endproc
        .size \name, . - \name
        .endm

        .org 0x8000
_stext:
# Nothing has called it.
        function start
        .cfi_undefined rip
        xor %ebp, %ebp
        call framed
        hlt
        end start

# It keeps a frame record.
        function framed
        push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset rbp, -16
        mov %rsp, %rbp
        .cfi_def_cfa_register rbp
        sub $0x40, %rsp
        call frameless
        leave
        .cfi_def_cfa rsp, 8
        ret
        end framed

# Its frame is known by the tables alone; its last instruction is a call, so that it returns into the next function.
        function frameless
        push %rbx
        .cfi_def_cfa_offset 16
        .cfi_offset rbx, -16
        sub $0x128, %rsp
        .cfi_def_cfa_offset 0x138
        call spin
        end frameless

# It has no frame at all: all CPUs have arrived.
        function spin
        out %al, $0xe9
        jmp .
        end spin

        note_head 0
        .ascii "OSRELEASE=6.1.0-vmcore-calls\n"
        .ascii "PAGESIZE=4096\n"
        .ascii "SYMBOL(_stext)=ffffffff800f8000\n"
        .ascii "SYMBOL(swapper_pg_dir)=ffffffff80010000\n"
        .ascii "NUMBER(phys_base)=0\n"
        .ascii "NUMBER(pgtable_l5_enabled)=0\n"
        note_tail

        .set PDPT_LOW,  0x11000
        .set PD_LOW,    0x12000
        .set PDPT_TEXT, 0x13000
        .set PD_TEXT,   0x14000

        .balign 8
pokes:
        note_pokes
        entry PML4, 0,        PDPT_LOW | TABLE
        entry PDPT_LOW, 0,    PD_LOW | TABLE
        entry PD_LOW, 0,      0x000000 | LEAF | PS
        entry PML4, 511,      PDPT_TEXT | TABLE
        entry PDPT_TEXT, 510, PD_TEXT | TABLE
        entry PD_TEXT, 0,     0x000000 | LEAF | PS | G
        probe 0xffffffff800f8000
        .long 0, 0
