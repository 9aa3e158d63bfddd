use super::*;
use crate::memory::BlockMemory;
use crate::{Arch, FileReader, Gpa, PhysMemory, Region, RegisterFile, Unreadable, arch, format};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Condvar;

/// A guest with 64 KiB of memory, which notes what is done with it.
struct Toy {
    ran: bool,
    log: Mutex<Vec<String>>,
    memory: Arc<dyn PhysMemory>,
}

impl Toy {
    fn new(ran: bool) -> Arc<Self> {
        let bytes = (0..0x1_0000_u32).map(|index| index.to_le_bytes()[1]).collect();
        let memory = Arc::new(BlockMemory::new(vec![(Gpa(0x1000), bytes)]).unwrap());
        Arc::new(Self { ran, log: Mutex::default(), memory })
    }

    fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }

    fn note(&self, what: &str) {
        lock(&self.log).push(what.to_owned());
    }
}

impl Guest for Toy {
    fn arch(&self) -> &'static dyn Arch {
        arch::by_name("x86_64").unwrap()
    }

    fn memory(&self) -> Arc<dyn PhysMemory> {
        Arc::clone(&self.memory)
    }

    fn registers(&self) -> Result<Vec<RegisterFile>, Error> {
        let mut registers = RegisterFile::new(self.arch().registers());
        registers.set_value("rip", 0x1234);
        Ok(vec![registers])
    }

    fn stop(&self) -> Result<bool, Error> {
        self.note("stop");
        Ok(self.ran)
    }

    fn resume(&self) {
        self.note("resume");
    }

    fn completed(&self, event: &DumpCompleted) {
        self.note(&serde_json::to_string(event).unwrap());
    }
}

/// Runs a request of a guest that runs.
fn ask(guest: &Arc<Toy>, arguments: &serde_json::Value) -> Result<DumpQueryResult, String> {
    let dumper = Dumper::new(Arc::clone(guest) as Arc<dyn Guest>);
    let request = DumpRequest::from_json(arguments).map_err(|error| error.desc)?;
    let result = dumper.dump(&request, |_| None);
    dumper.wait();
    result.map(|()| dumper.query()).map_err(|error| error.desc)
}

#[test]
fn arguments_are_refused_in_the_words_of_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    std::fs::write(&path, "before").unwrap();
    let protocol = format!("file:{}", path.display());
    let missing = format!("file:{}/no/dump", folder.path().display());
    let with = |more: serde_json::Value| {
        let mut arguments = json!({ "paging": false, "protocol": protocol });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        arguments
    };
    let conflict = "kdump-compressed format doesn't support paging or filter";
    let no_file = format!("Could not create '{}': No such file or directory", &missing[5..]);
    let rows = [
        (json!({ "protocol": "file:x" }), "Parameter 'paging' is missing"),
        (json!({ "paging": true }), "Parameter 'protocol' is missing"),
        (with(json!({ "paging": 1 })), "Invalid parameter type for 'paging', expected: boolean"),
        (with(json!({ "length": 0.5 })), "Invalid parameter type for 'length', expected: integer"),
        (with(json!({ "color": 1 })), "Parameter 'color' is unexpected"),
        (with(json!({ "format": "nope" })), "Parameter 'format' does not accept value 'nope'"),
        (with(json!({ "format": "win-dmp" })), "win-dmp is not available now"),
        (with(json!({ "format": "kdump-zlib", "paging": true })), conflict),
        (with(json!({ "format": "kdump-raw-lzo", "begin": 0 })), conflict),
        (with(json!({ "begin": 0 })), "Parameter 'length' is missing"),
        (with(json!({ "length": 1 })), "Parameter 'begin' is missing"),
        (with(json!({ "protocol": "fd:x" })), "File descriptor named 'x' has not been found"),
        (with(json!({ "protocol": missing })), no_file.as_str()),
        (with(json!({ "protocol": "tcp:x" })), "parameter 'protocol' must start with 'file:' or 'fd:'"),
    ];
    for (arguments, expected) in rows {
        let guest = Toy::new(true);
        assert_eq!(ask(&guest, &arguments).unwrap_err(), expected, "{arguments}");
        assert!(guest.log().is_empty(), "it was not stopped for {arguments}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"before", "nothing was opened");
}

#[test]
fn what_only_the_guest_can_tell_is_refused_while_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let protocol = format!("file:{}", folder.path().join("dump").display());
    for (begin, length, expected) in [
        (0, 0, "parameter 'length' expects a non-zero size"),
        (-1, 5, "parameter 'begin' expects a number from 0 on"),
        (0, -5, "parameter 'length' expects a number from 0 on"),
        (0x10_0000, 1, "dump: no guest memory to dump"),
    ] {
        for detach in [false, true] {
            let guest = Toy::new(true);
            let dumper = Dumper::new(Arc::clone(&guest) as Arc<dyn Guest>);
            let arguments = json!({ "paging": false, "protocol": protocol, "begin": begin, "length": length, "detach": detach });
            let request = DumpRequest::from_json(&arguments).unwrap();
            let error = dumper.dump(&request, |_| None).unwrap_err();
            assert_eq!(error.desc, expected);
            let failed = DumpQueryResult { status: DumpStatus::Failed, completed: 0, total: 0 };
            assert_eq!(dumper.query(), failed);
            assert_eq!(guest.log(), ["stop", "resume"], "no event");
        }
    }
}

fn opened(path: &Path) -> format::Opened {
    let file = FileReader::new(File::open(path).unwrap()).unwrap();
    format::open(vec![Arc::new(file)]).unwrap()
}

#[test]
fn every_format_is_written_attached_and_detached() {
    let formats = DumpGuestMemoryCapability::of_this_program().formats;
    assert_eq!(formats[..3], ["elf", "kdump-zlib", "kdump-raw-zlib"]);
    for (name, detach, ran) in
        formats.iter().flat_map(|name| [(name, false, true), (name, true, true), (name, true, false)])
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        let guest = Toy::new(ran);
        let arguments = json!({ "paging": false, "protocol": format!("file:{}", path.display()), "format": name, "detach": detach });
        let done = ask(&guest, &arguments).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((done.status, done.completed), (DumpStatus::Completed, done.total), "{name}");
        let log = guest.log();
        assert_eq!(log[0], "stop");
        assert!(log[1].starts_with(r#"{"result":{"status":"completed""#), "{log:?}");
        assert_eq!(
            log.get(2).map(String::as_str),
            ran.then_some("resume"),
            "the event comes before the guest runs"
        );
        // Padded images say nothing of themselves.
        if name != "raw" {
            let machine = opened(&path).machine;
            let mut bytes = [0; 0x1000];
            machine.memory.read_at(Gpa(0x2000), &mut bytes).unwrap();
            assert_eq!((bytes[0], bytes[0xfff]), (0x10, 0x1f), "{name}");
        }
    }
}

#[test]
fn a_descriptor_is_written_from_where_it_stands() {
    let dump = |name: &str, file: &File| {
        let dumper = Dumper::new(Toy::new(true));
        let arguments = json!({ "paging": false, "protocol": "fd:out", "format": name });
        let request = DumpRequest::from_json(&arguments).unwrap();
        let file = file.try_clone().unwrap();
        dumper.dump(&request, |name| (name == "out").then(|| file.into()))
    };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"first").unwrap();
    dump("elf", &file).unwrap();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes[..9], *b"first\x7fELF");

    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = File::from(OwnedFd::from(writer));
    let error = dump("kdump-raw-zlib", &writer).unwrap_err();
    assert_eq!(error.desc, "kdump-raw formats require a seekable file");
    let reading = thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    dump("kdump-zlib", &writer).unwrap();
    drop(writer);
    assert!(reading.join().unwrap().unwrap().starts_with(b"makedumpfile"));
}

/// Memory that can be read when the test lets it; then it fails.
struct Gated {
    regions: [Region; 1],
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl PhysMemory for Gated {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read_at(&self, _: Gpa, _: &mut [u8]) -> Result<Unreadable, Error> {
        let is_open = lock(&self.is_open);
        drop(self.opened.wait_while(is_open, |is_open| !*is_open));
        Err(Error::NoMemory { what: "the test", gpa: Gpa(0) })
    }
}

#[test]
fn a_dump_that_fails_is_marked_and_the_guest_goes_on() {
    let gated = Arc::new(Gated {
        regions: [Region::ram(Gpa(0), 0x1_0000)],
        is_open: Mutex::new(false),
        opened: Condvar::new(),
    });
    let guest =
        Arc::new(Toy { ran: true, log: Mutex::default(), memory: Arc::clone(&gated) as Arc<dyn PhysMemory> });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let dumper = Dumper::new(Arc::clone(&guest) as Arc<dyn Guest>);
    let mut request = DumpRequest::to_file(path.to_str().unwrap(), "elf");
    request.detach = Some(true);
    dumper.dump(&request, |_| None).unwrap();
    assert_eq!(dumper.query().status, DumpStatus::Active);
    let error = dumper.dump(&request, |_| None).unwrap_err();
    assert_eq!(error.desc, "There is a dump in process, please wait.");
    assert_eq!(guest.log(), ["stop"]);
    *lock(&gated.is_open) = true;
    gated.opened.notify_all();
    dumper.wait();
    assert_eq!((dumper.query().status, dumper.report()), (DumpStatus::Failed, None));
    let log = guest.log();
    assert!(log[1].contains(r#""status":"failed""#) && log[1].contains("the test"), "{log:?}");
    assert_eq!(log[2..], ["resume"]);
    assert!(opened(&path).machine.is_incomplete, "its header says so");
    // The next one begins anew.
    request.detach = None;
    assert!(dumper.dump(&request, |_| None).is_err());
    assert_eq!(guest.log().len(), 6);
}

/// Memory whose code has a bug.
struct Broken;

impl PhysMemory for Broken {
    fn regions(&self) -> &[Region] {
        const { &[Region::ram(Gpa(0), 0x1_0000)] }
    }

    fn read_at(&self, _: Gpa, _: &mut [u8]) -> Result<Unreadable, Error> {
        panic!("a bug in the emulator");
    }
}

#[test]
fn a_guest_that_panics_is_told_of_and_goes_on() {
    for (detach, format) in [(false, "elf"), (true, "elf"), (false, "kdump-zlib"), (true, "kdump-raw-zstd")] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let guest = Arc::new(Toy { ran: true, log: Mutex::default(), memory: Arc::new(Broken) });
        let dumper = Dumper::new(Arc::clone(&guest) as Arc<dyn Guest>);
        let mut request = DumpRequest::to_file(file.path().to_str().unwrap(), format);
        request.detach = Some(detach);
        let dump = panic::catch_unwind(AssertUnwindSafe(|| dumper.dump(&request, |_| None)));
        // The caller's own thread panics; another one has nobody to tell.
        assert_eq!(dump.is_ok(), detach);
        dumper.wait();
        assert_eq!(dumper.query().status, DumpStatus::Failed);
        let log = guest.log();
        assert!(log[1].contains("a method of the guest has panicked"), "{log:?}");
        assert_eq!((log[0].as_str(), log[2].as_str(), log.len()), ("stop", "resume", 3));
    }
}

#[test]
fn an_output_that_is_full_is_told_in_the_words_of_qemu() {
    for (name, part) in [("elf", "write elf header"), ("lime", "write range header")] {
        let guest = Toy::new(true);
        let arguments = json!({ "paging": false, "protocol": "file:/dev/full", "format": name });
        let text = format!("dump: failed to {part}: No space left on device");
        assert_eq!(ask(&guest, &arguments).unwrap_err(), text);
        let log = guest.log();
        assert!(log[1].contains(&text) && log[2] == "resume", "{log:?}");
    }
}

/// A guest that is in the way of its dump.
struct Busy(Obstacle, Arc<Toy>);

impl Guest for Busy {
    fn arch(&self) -> &'static dyn Arch {
        self.1.arch()
    }
    fn memory(&self) -> Arc<dyn PhysMemory> {
        self.1.memory()
    }
    fn registers(&self) -> Result<Vec<RegisterFile>, Error> {
        self.1.registers()
    }
    fn obstacle(&self) -> Option<Obstacle> {
        Some(self.0)
    }
    fn stop(&self) -> Result<bool, Error> {
        self.1.stop()
    }
    fn resume(&self) {
        self.1.resume();
    }
}

#[test]
fn a_guest_that_migrates_is_not_dumped() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (obstacle, expected) in [
        (Obstacle::IncomingMigration, "Dump not allowed during incoming migration."),
        (
            Obstacle::Migration,
            "disallowing migration blocker (migration/snapshot in progress) for: Live migration disabled: dump-guest-memory in progress",
        ),
    ] {
        let toy = Toy::new(true);
        let dumper = Dumper::new(Arc::new(Busy(obstacle, Arc::clone(&toy))));
        let request = DumpRequest::to_file(file.path().to_str().unwrap(), "elf");
        assert_eq!(dumper.dump(&request, |_| None).unwrap_err().desc, expected);
        assert!(toy.log().is_empty() && dumper.query().status == DumpStatus::None);
    }
}

/// Asks for a dump as soon as it hears that one has ended.
struct Eager {
    toy: Arc<Toy>,
    dumper: Mutex<Option<Arc<Dumper>>>,
    errors: Mutex<Vec<String>>,
    next: Mutex<Option<thread::JoinHandle<Result<(), QmpError>>>>,
}

impl Guest for Eager {
    fn arch(&self) -> &'static dyn Arch {
        self.toy.arch()
    }
    fn memory(&self) -> Arc<dyn PhysMemory> {
        self.toy.memory()
    }
    fn registers(&self) -> Result<Vec<RegisterFile>, Error> {
        self.toy.registers()
    }
    fn stop(&self) -> Result<bool, Error> {
        self.toy.stop()
    }
    fn resume(&self) {
        self.toy.resume();
    }
    fn completed(&self, event: &DumpCompleted) {
        self.toy.completed(event);
        let Some(dumper) = lock(&self.dumper).take() else { return };
        dumper.wait();
        let request = DumpRequest::to_file("/dev/null", "elf");
        lock(&self.errors).push(dumper.dump(&request, |_| None).unwrap_err().desc);
        *lock(&self.next) = Some(thread::spawn(move || dumper.dump(&request, |_| None)));
    }
}

#[test]
fn the_next_dump_begins_when_the_guest_goes_on() {
    let toy = Toy::new(true);
    let guest = Arc::new(Eager {
        toy: Arc::clone(&toy),
        dumper: Mutex::default(),
        errors: Mutex::default(),
        next: Mutex::default(),
    });
    let dumper = Arc::new(Dumper::new(Arc::clone(&guest) as Arc<dyn Guest>));
    *lock(&guest.dumper) = Some(Arc::clone(&dumper));
    let mut request = DumpRequest::to_file("/dev/null", "elf");
    request.detach = Some(true);
    dumper.dump(&request, |_| None).unwrap();
    dumper.wait();
    let next = lock(&guest.next).take().unwrap();
    next.join().unwrap().unwrap();
    assert_eq!(
        *lock(&guest.errors),
        ["There is a dump in process, please wait."],
        "the guest stands still yet"
    );
    let log = toy.log();
    let steps: Vec<&str> =
        log.iter().map(|step| if step.starts_with('{') { "event" } else { step }).collect();
    assert_eq!(steps, ["stop", "event", "resume", "stop", "event", "resume"]);
}

#[test]
fn answers_are_those_of_qmp() {
    let query = DumpQueryResult { status: DumpStatus::Active, completed: 1, total: 2 };
    assert_eq!(
        serde_json::to_value(query).unwrap(),
        json!({ "status": "active", "completed": 1, "total": 2 })
    );
    let event = DumpCompleted { result: query, error: None };
    assert_eq!(serde_json::to_value(event).unwrap().get("error"), None);
    let error = QmpError::new("x");
    assert_eq!(serde_json::to_value(error).unwrap(), json!({ "class": "GenericError", "desc": "x" }));
}
