//! Which CPU has panicked, as the kernel's log tells it.

use super::{Log, Record};

impl Log {
    /// The number of the CPU that has panicked, in the kernel's order; `None` if the kernel has not, or does not tell.
    ///
    /// A panic prints where it happened, `CPU: 1 PID: 345 Comm: bash ...`, behind its message; one that an oops leads to leaves
    /// that to the oops.
    ///
    /// Source: Linux `kernel/panic.c` (`panic`), `lib/dump_stack.c` (`dump_stack_print_info`).
    #[must_use]
    pub fn panic_cpu(&self) -> Option<u32> {
        panic_cpu(self.records().filter_map(Result::ok))
    }
}

fn panic_cpu<'r>(records: impl Iterator<Item = Record<'r>>) -> Option<u32> {
    const PANIC: &[u8] = b"Kernel panic - not syncing";
    let mut before = None;
    let mut has_panicked = false;
    // User space can write into the log, too: /dev/kmsg.
    for record in records.filter(|record| record.facility == 0) {
        match cpu_of(record.text) {
            Some(cpu) if has_panicked => return Some(cpu),
            Some(cpu) => before = Some(cpu),
            None => has_panicked |= record.text.starts_with(PANIC),
        }
    }
    before.filter(|_| has_panicked)
}

/// The CPU of a line `CPU: 1 PID: 345 Comm: bash ...`; since 6.11 there is a `UID: ` between.
fn cpu_of(text: &[u8]) -> Option<u32> {
    let (number, rest) = std::str::from_utf8(text).ok()?.strip_prefix("CPU: ")?.split_once(' ')?;
    number.parse().ok().filter(|_| rest.starts_with("PID: ") || rest.starts_with("UID: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[&str]) -> Option<u32> {
        panic_cpu(lines.iter().map(|text| Record { text: text.as_bytes(), ..EMPTY }))
    }

    const OOPS: &str = "CPU: 3 PID: 1 Comm: init Not tainted 6.1.0 #1";
    const SYSRQ: &str = "CPU: 1 UID: 0 PID: 345 Comm: bash Not tainted 6.12.0 #1";
    const PANIC: &str = "Kernel panic - not syncing: sysrq triggered crash";

    #[test]
    fn the_panic_tells_the_cpu_or_the_oops_before_it() {
        assert_eq!(found(&["Linux version 6.1.0", PANIC, SYSRQ, OOPS]), Some(1));
        assert_eq!(found(&[OOPS, "Code: 0f 0b", PANIC, "---[ end Kernel panic ]---"]), Some(3));
        assert_eq!(found(&[OOPS, PANIC, SYSRQ]), Some(1), "an oops that the kernel survived");
    }

    #[test]
    fn a_kernel_that_lives_has_none() {
        assert_eq!(found(&["Linux version 6.1.0", OOPS]), None);
        assert_eq!(found(&[PANIC]), None);
        assert_eq!(found(&["CPU: Testing write buffer coherency: ok", PANIC, "CPU: x PID: 1"]), None);
    }

    #[test]
    fn a_program_cannot_pretend_it() {
        let of_facility = |facility| {
            let panic = Record { facility, text: PANIC.as_bytes(), ..EMPTY };
            panic_cpu([panic, Record { text: SYSRQ.as_bytes(), ..EMPTY }].into_iter())
        };
        assert_eq!((of_facility(0), of_facility(1)), (Some(1), None));
    }

    const EMPTY: Record<'static> = Record {
        sequence: None,
        timestamp_ns: None,
        facility: 0,
        level: 0,
        caller: None,
        text: b"",
        subsystem: b"",
        device: b"",
    };
}
