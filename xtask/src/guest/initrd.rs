//! The initrd of the test guests: busybox and an init, in a `newc` cpio archive.

use super::arch::Linux;
use super::kernel::Kernel;
use super::{KNOWN_TEXT, Spec};
use anyhow::Result;
use std::fs;

/// Fills memory, starts processes, says that it is ready, and then answers each line `NUMBER QUESTION`, but for `panic`, between
/// `ping NUMBER` and `pong NUMBER QUESTION`: `dmesg` with the kernel's log, `kernel` with its release and where its VMCOREINFO note
/// lies, and `kallsyms REGEX` with the kernel's symbols that it matches.
///
/// Parameters of the kernel's command line that the kernel does not know come as variables.
const INIT: &str = r#"#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
for driver in /early-*.ko; do
 [ -f $driver ] && $B insmod $driver
done
$B stty -echo
$B mount -t tmpfs -o size=90% tmpfs /t
anonymous=1000000
if [ -n "$GUEST_FEATURES" ]; then
 anonymous=6000000
 echo always > /sys/kernel/mm/transparent_hugepage/enabled
 echo 4 > /proc/sys/vm/nr_hugepages
 $B mkdir /disk
 $B mount -t ext4 /dev/vda /disk
 $B yes VMCORE-FILE-TEXT | $B head -c 8m > /disk/text
 i=0; while [ $i -lt 300 ]; do echo $i > /disk/$i; : > /t/$i; i=$((i+1)); done
fi
$B yes @TEXT@ | $B head -c ${GUEST_FILL}m > /t/text
for j in 0 1 2; do
 ( x=$($B yes VMCORE-PROCESS-$j | $B head -c $anonymous); : > /t/done$j; while :; do $B sleep 1000; done ) &
done
while [ ! -f /t/done0 -o ! -f /t/done1 -o ! -f /t/done2 ]; do $B usleep 50000; done
echo
echo GUEST-READY
while read -r number line; do
 echo "ping $number"
 [ "$line" = panic ] && echo c > /proc/sysrq-trigger
 [ "$line" = dmesg ] && $B dmesg
 [ "$line" = kernel ] && echo "kernel $($B uname -r) $($B cat /sys/kernel/vmcoreinfo)"
 [ "${line#kallsyms }" = "$line" ] || $B grep -E "${line#kallsyms }" /proc/kallsyms
 echo "pong $number $line"
done
"#;

/// Drivers of a disk and a balloon, and what the file system of the disk needs.
const FEATURES: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_balloon", "ext4"];

/// The archive, as the kernel takes it.
pub(crate) fn initrd(linux: &Linux, kernel: &Kernel, spec: &Spec) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for folder in ["bin", "proc", "sys", "dev", "t"] {
        archive.add(folder, 0o040_755, &[]);
    }
    archive.add("bin/busybox", 0o100_755, &fs::read(&kernel.busybox)?);
    archive.add("init", 0o100_755, INIT.replace("@TEXT@", KNOWN_TEXT).as_bytes());
    // The first gives QEMU the VMCOREINFO note. The shell loads them in the order of their names.
    let mut early: Vec<&str> = spec.vmcoreinfo.then_some("qemu_fw_cfg").into_iter().collect();
    for driver in linux.drivers {
        early.extend(kernel.has(driver)?.then_some(*driver));
    }
    if spec.features {
        early.extend(FEATURES);
    }
    for (number, driver) in kernel.drivers_for(&early)?.iter().enumerate() {
        archive.add(&format!("early-{number:02}.ko"), 0o100_644, driver);
    }
    let mut left = spec.drivers << 20;
    for (number, path) in kernel.drivers()?.iter().enumerate() {
        let driver = super::kernel::unpacked(path)?;
        let Some(rest) = left.checked_sub(driver.len() as u64) else { break };
        left = rest;
        archive.add(&format!("driver-{number}.ko"), 0o100_644, &driver);
    }
    Ok(archive.finish())
}

/// Writer of a `newc` cpio archive: a header of 13 hexadecimal numbers, the name, the bytes, each padded to four.
///
/// Source: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.
#[derive(Debug, Default)]
pub(super) struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    pub(super) fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entries += 1;
        let len = u32::try_from(bytes.len()).expect("files of an initrd are small");
        let name_len = u32::try_from(name.len() + 1).expect("names are short");
        // inode, mode, uid, gid, links, mtime, size, device and its number (major, minor each), name length, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
