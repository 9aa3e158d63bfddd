# 32-bit protected mode without paging; the code segment has a base: EIP is not a linear address.
        .set KERNEL, 0
        .set OFFSET, -0xe0000           # CODE32_BASE
        .set CR4, 0x5c                  # MCE PSE DE TSD
        .include "boot.inc"
        .include "prot.inc"

        .code32
guest:  set_paging 0x63723000, CR4, 0x00050033  # WP AM NE ET MP PE; CR3 is not used
        load_system CODE32
        load_general

        state32
pokes:  .long 0, 0
        probe 0x0, 0xf0123, 0x100008, 0x3ff008, 0xffff0000
