//! The functions as C calls them; what only C can show is in `examples/emulator.c`.

#![expect(clippy::multiple_unsafe_ops_per_block, reason = "a list of calls that all make the same promise")]

use super::*;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Arc, Mutex};
use std::{ptr, slice};
use vmcore::dump::Dumper;
use vmcore::parallel::lock;
use vmcore::{Arch, Error, Gpa, PhysMemory, Region, RegisterFile, Unreadable};

/// 64 KiB of RAM at 0, mapped; 16 KiB of flash at 1 MiB, read, whose second page is broken; two vCPUs.
struct Toy {
    ram: Vec<u8>,
    log: Mutex<Vec<String>>,
    /// What a callback does wrong.
    mistake: Mistake,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    StopFails,
    UnknownRegister,
    LargeValue,
    RegistersFail,
    Overlap,
    EmptyRegion,
    MemoryFails,
}

impl Toy {
    fn new(mistake: Mistake) -> Self {
        let ram = (0..0x1_0000_u32).map(|index| index.to_le_bytes()[1]).collect();
        Self { ram, log: Mutex::default(), mistake }
    }

    fn guest(&self) -> Guest {
        Guest {
            size: size_of::<Guest>(),
            opaque: ptr::from_ref(self).cast_mut().cast(),
            arch: c"x86_64".as_ptr(),
            stop: Some(stop),
            resume: Some(resume),
            memory: Some(memory),
            vcpu_count: Some(vcpu_count),
            registers: Some(registers),
            read: Some(read),
            vmcoreinfo: None,
            fd: None,
            completed: Some(completed),
        }
    }

    fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }
}

fn toy<'a>(opaque: *mut c_void) -> &'a Toy {
    // SAFETY: the guests of these tests outlive their dumpers.
    unsafe { &*opaque.cast::<Toy>() }
}

unsafe extern "C" fn stop(opaque: *mut c_void, was_running: *mut bool) -> c_int {
    if toy(opaque).mistake == Mistake::StopFails {
        return 5; // EIO
    }
    // SAFETY: the library hands over a bool of its own.
    unsafe { was_running.write(true) };
    lock(&toy(opaque).log).push("stop".to_owned());
    0
}

unsafe extern "C" fn resume(opaque: *mut c_void) {
    lock(&toy(opaque).log).push("resume".to_owned());
}

unsafe extern "C" fn memory(opaque: *mut c_void, memory: *mut MemoryMap) -> c_int {
    let toy = toy(opaque);
    let add = |gpa, len, host: *const u8| {
        // SAFETY: the map is of the library; RAM lives as long as the guest.
        let _ = unsafe { vmcore_memory_add(memory, gpa, len, host.cast()) };
    };
    add(0x10_0000, 0x4000, ptr::null());
    add(0, toy.ram.len() as u64, toy.ram.as_ptr());
    match toy.mistake {
        Mistake::Overlap => add(0x10_3fff, 1, ptr::null()),
        Mistake::EmptyRegion => add(0x20_0000, 0, ptr::null()),
        Mistake::MemoryFails => return -12, // -ENOMEM
        _ => {}
    }
    0
}

unsafe extern "C" fn vcpu_count(_: *mut c_void) -> u32 {
    2
}

unsafe extern "C" fn registers(opaque: *mut c_void, index: u32, registers: *mut Registers) -> c_int {
    let set = |name: &CStr, value| {
        // SAFETY: the registers are of the library.
        unsafe { vmcore_registers_set_u64(registers, name.as_ptr(), value) }
    };
    assert_eq!(set(c"rip", 0x1000 + u64::from(index)), Code::Ok);
    let wide = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    // SAFETY: as above; the value has its length.
    let code = unsafe { vmcore_registers_set(registers, c"xmm0".as_ptr(), wide.as_ptr(), wide.len()) };
    assert_eq!(code, Code::Ok);
    match toy(opaque).mistake {
        Mistake::UnknownRegister => assert_eq!(set(c"rxp", 1), Code::Argument),
        Mistake::LargeValue => assert_eq!(set(c"cs", 0x1_0000_0000), Code::Argument),
        Mistake::RegistersFail => return 22, // EINVAL
        _ => {}
    }
    0
}

unsafe extern "C" fn read(_: *mut c_void, gpa: u64, buffer: *mut u8, len: usize) -> c_int {
    let end = gpa + len as u64;
    assert!(gpa >= 0x10_0000 && end <= 0x10_4000, "the range lies in the region");
    if gpa < 0x10_2000 && end > 0x10_1000 {
        return 5;
    }
    // SAFETY: the library's buffer has this length.
    unsafe { slice::from_raw_parts_mut(buffer, len) }.fill(0x5a);
    0
}

unsafe extern "C" fn completed(opaque: *mut c_void, event: *const c_char) {
    // SAFETY: the library's string ends with NUL.
    let event = unsafe { CStr::from_ptr(event) };
    lock(&toy(opaque).log).push(event.to_str().unwrap().to_owned());
}

/// A string of the library's, which is freed.
fn taken(text: *mut c_char) -> String {
    assert!(!text.is_null());
    // SAFETY: it is a string of the library's.
    let copy = unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned();
    // SAFETY: it was not freed yet.
    unsafe { vmcore_string_free(text) };
    copy
}

fn new_dumper(guest: *const Guest) -> Result<*mut Handle, (Code, String)> {
    let (mut dumper, mut error) = (ptr::dangling_mut(), ptr::null_mut());
    // SAFETY: the guest is null or whole, the rest can be written.
    let code = unsafe { vmcore_dumper_new(guest, &raw mut dumper, &raw mut error) };
    if code == Code::Ok {
        assert!(error.is_null());
        return Ok(dumper);
    }
    assert!(dumper.is_null());
    Err((code, taken(error)))
}

fn dump(dumper: *const Handle, arguments: &str) -> Result<(), (Code, String)> {
    let arguments = CString::new(arguments).unwrap();
    let mut error = ptr::dangling_mut();
    // SAFETY: the handle is null or alive, the rest is ours.
    let code = unsafe { vmcore_dump_guest_memory(dumper, arguments.as_ptr(), &raw mut error) };
    if code == Code::Ok {
        assert!(error.is_null());
        return Ok(());
    }
    Err((code, taken(error)))
}

fn progress(dumper: *const Handle) -> Progress {
    let (size, status) = (size_of::<Progress>(), Status::None);
    let mut progress = Progress { size, status, completed: 0, total: 0, unreadable: 0, file_len: 0 };
    // SAFETY: the handle is alive, and the struct has its size.
    assert_eq!(unsafe { vmcore_dump_progress(dumper, &raw mut progress) }, Code::Ok);
    progress
}

fn free(dumper: *mut Handle) {
    // SAFETY: each test frees its dumper once.
    unsafe { vmcore_dumper_free(dumper) };
}

fn arguments(path: &std::path::Path, format: &str, detach: bool) -> String {
    let protocol = format!("file:{}", path.display());
    serde_json::json!({ "paging": false, "protocol": protocol, "format": format, "detach": detach })
        .to_string()
}

#[test]
fn dumps_hold_what_the_callbacks_tell() {
    for (format, detach) in [("elf", false), ("elf", true), ("kdump-zlib", false), ("kdump-raw-zlib", true)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        let toy = Toy::new(Mistake::None);
        let dumper = new_dumper(&toy.guest()).unwrap();
        assert_eq!(progress(dumper).status, Status::None);
        dump(dumper, &arguments(&path, format, detach)).unwrap();
        // SAFETY: the dumper is alive.
        unsafe { vmcore_dump_wait(dumper) };
        let done = progress(dumper);
        assert_eq!((done.status, done.completed), (Status::Completed, done.total), "{format}");
        assert_eq!(done.unreadable, 0x1000, "the broken page");
        // SAFETY: the dumper is alive.
        let query = taken(unsafe { vmcore_query_dump(dumper) });
        assert!(query.starts_with(r#"{"status":"completed","completed":"#), "{query}");
        let log = toy.log();
        assert_eq!((log[0].as_str(), log[2].as_str()), ("stop", "resume"));
        assert!(log[1].starts_with(r#"{"result":{"status":"completed""#), "{log:?}");
        free(dumper);

        let file = vmcore::FileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let machine = vmcore::format::open(vec![Arc::new(file)]).unwrap().machine;
        let byte = |gpa| vmcore::memory::read_array::<1>(&*machine.memory, Gpa(gpa), "a byte").unwrap()[0];
        assert_eq!([0x1200, 0xff00, 0x10_0000, 0x10_1000, 0x10_2000].map(byte), [0x12, 0xff, 0x5a, 0, 0x5a]);
        let rip = |index: usize| machine.vcpus[index].registers().value("rip");
        assert_eq!((machine.vcpus.len(), rip(0), rip(1)), (2, Some(0x1000), Some(0x1001)), "{format}");
    }
}

#[test]
fn mistakes_of_callbacks_are_named_and_the_guest_goes_on() {
    let rows = [
        (Mistake::StopFails, "stop: Input/output error"),
        (Mistake::UnknownRegister, "vCPU 0: i386:x86-64 has no register `rxp`"),
        (Mistake::LargeValue, "vCPU 0: register cs has"),
        (Mistake::RegistersFail, "registers of vCPU 0: Invalid argument"),
        (Mistake::Overlap, "memory region: 0x103fff + 0x1 bytes"),
        (Mistake::EmptyRegion, "0x0 bytes of memory at 0x200000 cannot be"),
        (Mistake::MemoryFails, "memory: Cannot allocate memory"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (mistake, expected) in rows {
        let toy = Toy::new(mistake);
        let dumper = new_dumper(&toy.guest()).unwrap();
        let (code, message) = dump(dumper, &arguments(&folder.path().join("dump"), "elf", true)).unwrap_err();
        assert_eq!(code, Code::Failed);
        assert!(message.contains(expected), "{message}");
        let expected: &[&str] = if mistake == Mistake::StopFails { &[] } else { &["stop", "resume"] };
        assert_eq!(toy.log(), expected);
        free(dumper);
    }
}

#[test]
fn bad_arguments_are_errors() {
    let toy = Toy::new(Mistake::None);
    let guest = toy.guest();
    let refused = |guest: Guest| new_dumper(&raw const guest).unwrap_err();
    assert_eq!(new_dumper(ptr::null()).unwrap_err().1, "guest is NULL");
    assert_eq!(refused(Guest { arch: ptr::null(), ..guest }).1, "guest.arch is NULL");
    assert_eq!(refused(Guest { stop: None, ..guest }).1, "guest.stop is NULL");
    assert_eq!(refused(Guest { registers: None, ..guest }).1, "guest.registers is NULL");
    assert!(refused(Guest { arch: c"z80".as_ptr(), ..guest }).1.starts_with("unknown architecture `z80`"));
    assert_eq!(refused(Guest { arch: c"\xff".as_ptr(), ..guest }).1, "guest.arch is not UTF-8");
    assert!(refused(Guest { size: 8, ..guest }).1.starts_with("guest.size is 8, expected "));

    assert_eq!(dump(ptr::null(), "{}").unwrap_err(), (Code::Argument, "dumper is NULL".to_owned()));
    let dumper = new_dumper(&raw const guest).unwrap();
    assert_eq!(dump(dumper, "{").unwrap_err().0, Code::Argument);
    assert_eq!(dump(dumper, "{}").unwrap_err(), (Code::Failed, "Parameter 'paging' is missing".to_owned()));
    let nul = r#"{"paging": false, "protocol": "file:a\u0000b"}"#;
    assert!(
        dump(dumper, nul).unwrap_err().1.starts_with(r"Could not create 'a\0b'"),
        "C has no NUL in strings"
    );
    let fd = r#"{"paging": false, "protocol": "fd:out"}"#;
    assert_eq!(dump(dumper, fd).unwrap_err().1, "File descriptor named 'out' has not been found");
    let mut small = progress(dumper);
    small.size = 8;
    // SAFETY: the handles are null or alive, as are the strings; what is null is what is tested.
    unsafe {
        assert_eq!(vmcore_dump_guest_memory(dumper, ptr::null(), ptr::null_mut()), Code::Argument);
        assert_eq!(vmcore_dump_progress(dumper, &raw mut small), Code::Argument);
        assert_eq!(vmcore_dump_progress(dumper, ptr::null_mut()), Code::Argument);
        assert_eq!(vmcore_dumper_new(&raw const guest, ptr::null_mut(), ptr::null_mut()), Code::Argument);
        assert_eq!(vmcore_memory_add(ptr::null_mut(), 0, 1, ptr::null()), Code::Argument);
        assert_eq!(vmcore_registers_set_u64(ptr::null_mut(), c"rax".as_ptr(), 0), Code::Argument);
        assert!(vmcore_query_dump(ptr::null()).is_null());
        assert!(vmcore_list_registers(ptr::null(), ptr::null_mut()).is_null());
        vmcore_dump_cancel(ptr::null());
        vmcore_dump_wait(ptr::null());
        vmcore_dumper_free(ptr::null_mut());
        vmcore_string_free(ptr::null_mut());
    }
    assert!(toy.log().is_empty(), "the guest was never stopped");
    free(dumper);
}

/// A struct of a newer header, whose new fields are not used, and one whose are.
#[test]
fn a_struct_may_grow() {
    #[repr(C)]
    struct Newer {
        guest: Guest,
        more: usize,
    }
    let toy = Toy::new(Mistake::None);
    let mut newer = Newer { guest: toy.guest(), more: 0 };
    newer.guest.size = size_of::<Newer>();
    free(new_dumper((&raw const newer).cast()).unwrap());
    newer.more = 1;
    let (code, message) = new_dumper((&raw const newer).cast()).unwrap_err();
    assert_eq!(code, Code::Argument);
    assert_eq!(message, "guest has fields that this version of libvmcore does not know");
}

#[test]
fn lists_are_json() {
    // SAFETY: the strings end with NUL.
    let registers = taken(unsafe { vmcore_list_registers(c"x86_64".as_ptr(), ptr::null_mut()) });
    assert!(registers.starts_with(r#"[{"bits":64,"name":"rax"},"#), "{registers}");
    let formats = taken(vmcore_query_dump_guest_memory_capability());
    assert!(formats.starts_with(r#"{"formats":["elf","kdump-zlib","#), "{formats}");
    // SAFETY: it is a string of the library's.
    assert_eq!(unsafe { CStr::from_ptr(vmcore_version()) }.to_str().unwrap(), env!("CARGO_PKG_VERSION"));
}

/// A guest of Rust that panics, where callbacks of C could not.
struct Panics {
    at: &'static str,
    log: Arc<Mutex<Vec<&'static str>>>,
}

impl Panics {
    fn maybe(&self, at: &str) {
        assert!(self.at != at, "a test panics in {at}");
    }
}

impl vmcore::dump::Guest for Panics {
    fn arch(&self) -> &'static dyn Arch {
        vmcore::arch::by_name("x86_64").unwrap()
    }

    fn memory(&self) -> Arc<dyn PhysMemory> {
        Arc::new(Self { at: self.at, log: Arc::clone(&self.log) })
    }

    fn registers(&self) -> Result<Vec<RegisterFile>, Error> {
        self.maybe("registers");
        Ok(vec![RegisterFile::new(self.arch().registers())])
    }

    fn stop(&self) -> Result<bool, Error> {
        self.maybe("stop");
        Ok(true)
    }

    fn resume(&self) {
        lock(&self.log).push("resume");
    }
}

impl PhysMemory for Panics {
    fn regions(&self) -> &[Region] {
        const REGIONS: [Region; 1] = [Region::ram(Gpa(0), 0x10_0000)];
        &REGIONS
    }

    fn read_at(&self, _: Gpa, _: &mut [u8]) -> Result<Unreadable, Error> {
        self.maybe("read");
        Ok(Unreadable::default())
    }
}

#[test]
fn panics_do_not_cross_the_boundary() {
    let folder = tempfile::tempdir().unwrap();
    for (at, detach) in [
        ("stop", false),
        ("registers", false),
        ("registers", true),
        ("read", false),
        ("read", true),
        ("fd", false),
    ] {
        let log = Arc::default();
        let guest = Panics { at, log: Arc::clone(&log) };
        let fds = Box::new(|_: &str| panic!("a test panics in fd"));
        let handle = Box::into_raw(Box::new(Handle { dumper: Dumper::new(Arc::new(guest)), fds }));
        let request = if at == "fd" {
            r#"{"paging": false, "protocol": "fd:out"}"#.to_owned()
        } else {
            arguments(&folder.path().join("dump"), "elf", detach)
        };
        let result = dump(handle, &request);
        // SAFETY: the handle is alive.
        unsafe { vmcore_dump_wait(handle) };
        if at == "read" && detach {
            assert_eq!(result, Ok(()), "it is its thread that panics");
        } else {
            let (code, message) = result.unwrap_err();
            assert_eq!(code, Code::Panic);
            assert!(message.starts_with("a defect of libvmcore: "), "{message}");
        }
        if at != "fd" {
            assert_eq!(progress(handle).status, Status::Failed, "{at}");
        }
        let expected: &[&str] = if ["stop", "fd"].contains(&at) { &[] } else { &["resume"] };
        assert_eq!(*lock(&log), expected, "{at}");
        free(handle);
    }
}
