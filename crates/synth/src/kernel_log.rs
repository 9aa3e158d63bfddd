//! The log of a made-up kernel: the printk ring buffer as Linux 6.1 lays it out on x86_64, with nothing overwritten.
//!
//! Source: Linux 6.1 `kernel/printk/printk_ringbuffer.h`; by its own constants, not those of the reader that it tests.

/// `(2 << 62)`: a record that nothing can be appended to any more.
const FINALIZED: u64 = 1 << 63;
const COUNT_BITS: u32 = 5;
const SIZE_BITS: u32 = 12;
/// Where the parts lie, from the start of the log on: the variable `prb`, the structure that it points to, and its three tables.
const PRB: u64 = 0;
const RING: u64 = 0x40;
const DESCS: u64 = 0x100;
const INFOS: u64 = 0x400;
const DATA: u64 = 0x1000;
const LEN: usize = 0x2000;

/// What VMCOREINFO says of the structures.
const KEYS: &str = "SIZE(list_head)=16\nSIZE(printk_ringbuffer)=80\nOFFSET(printk_ringbuffer.desc_ring)=0\n\
    OFFSET(printk_ringbuffer.text_data_ring)=40\nOFFSET(printk_ringbuffer.fail)=72\nSIZE(prb_desc_ring)=40\n\
    OFFSET(prb_desc_ring.count_bits)=0\nOFFSET(prb_desc_ring.descs)=8\nOFFSET(prb_desc_ring.infos)=16\n\
    OFFSET(prb_desc_ring.head_id)=24\nOFFSET(prb_desc_ring.tail_id)=32\nSIZE(prb_desc)=24\n\
    OFFSET(prb_desc.state_var)=0\nOFFSET(prb_desc.text_blk_lpos)=8\nSIZE(prb_data_blk_lpos)=16\n\
    OFFSET(prb_data_blk_lpos.begin)=0\nOFFSET(prb_data_blk_lpos.next)=8\nSIZE(printk_info)=88\n\
    OFFSET(printk_info.seq)=0\nOFFSET(printk_info.ts_nsec)=8\nOFFSET(printk_info.text_len)=16\n\
    OFFSET(printk_info.caller_id)=20\nOFFSET(printk_info.dev_info)=24\nSIZE(dev_printk_info)=64\n\
    OFFSET(dev_printk_info.subsystem)=0\nLENGTH(printk_info_subsystem)=16\nOFFSET(dev_printk_info.device)=16\n\
    LENGTH(printk_info_device)=48\nSIZE(prb_data_ring)=32\nOFFSET(prb_data_ring.size_bits)=0\n\
    OFFSET(prb_data_ring.data)=8\nOFFSET(prb_data_ring.head_lpos)=16\nOFFSET(prb_data_ring.tail_lpos)=24\n";

/// A record: microseconds since the boot, facility, level, the number of a thread, subsystem and device, text.
pub(crate) type Record = (u64, u8, u8, u32, [&'static str; 2], &'static str);

/// The log of `records` (at least one, and at most 32 of 4 KiB together) that lies at virtual address `gva`: its bytes, and the
/// lines of VMCOREINFO that tell of it.
pub(crate) fn log(gva: u64, records: &[Record]) -> (Vec<u8>, String) {
    let mut bytes = vec![0; LEN];
    let mut put = |at: u64, field: &[u8]| {
        let at = usize::try_from(at).expect("a log is small");
        bytes[at..at + field.len()].copy_from_slice(field);
    };
    let mut head = 0;
    for (id, (micros, facility, level, thread, [subsystem, device], text)) in (0..).zip(records) {
        let len = u16::try_from(text.len()).expect("texts are short");
        let next = head + (8 + u64::from(len)).next_multiple_of(8);
        put(DATA + head, &u64::to_le_bytes(id));
        put(DATA + head + 8, text.as_bytes());
        put(DESCS + id * 24, &[FINALIZED | id, head, next].map(u64::to_le_bytes).concat());
        let info = INFOS + id * 88;
        put(info, &[id, micros * 1000].map(u64::to_le_bytes).concat());
        put(info + 16, &len.to_le_bytes());
        put(info + 18, &[*facility, level << 5]);
        put(info + 20, &thread.to_le_bytes());
        put(info + 24, subsystem.as_bytes());
        put(info + 40, device.as_bytes());
        head = next;
    }
    put(PRB, &(gva + RING).to_le_bytes());
    put(RING, &COUNT_BITS.to_le_bytes());
    put(RING + 8, &[gva + DESCS, gva + INFOS, records.len() as u64 - 1, 0].map(u64::to_le_bytes).concat());
    put(RING + 40, &SIZE_BITS.to_le_bytes());
    put(RING + 48, &[gva + DATA, head, 0].map(u64::to_le_bytes).concat());
    (bytes, format!("SYMBOL(prb)={:x}\n{KEYS}", gva + PRB))
}
