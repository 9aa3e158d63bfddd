//! Emulators of others (`examples/`) serve gdb while they run: what gdb does to their program, and what the program does then.

use super::consumers::missing;
use super::gdb::{Server, ask, packet, read_packet};
use super::{Context, Verdict};
use crate::run::{any_output, built_with, find, output};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An emulator and its program, which counts up to a limit by a function, and exits with what it has counted.
struct Emulator {
    name: &'static str,
    /// Address of the first instruction.
    entry: u64,
    /// Where the call of the function returns, and the next instruction.
    back: [u64; 2],
    /// The function: adds one, stores, returns.
    count: [u64; 3],
    /// Behind the load of the limit.
    loaded: u64,
    /// Address of the word that is counted up.
    counter: u64,
    /// Address of the word with the limit.
    limit: u64,
    /// The register that is counted up.
    register: &'static str,
    /// Parameters of the unwinder: the link register, and those that a caller keeps.
    frames: &'static str,
    /// Whether it can go backwards.
    is_reversible: bool,
}

const EMULATORS: [Emulator; 3] = [
    Emulator {
        name: "armv4t",
        entry: 0,
        back: [0x10, 0x14],
        count: [0x20, 0x24, 0x28],
        loaded: 0x14,
        counter: 0x8000,
        limit: 0x8004,
        register: "r0",
        frames: "'lr', ['sp', 'lr', 'cpsr']",
        is_reversible: true,
    },
    Emulator {
        name: "ckb_vm",
        entry: 0x1000,
        back: [0x100c, 0x1010],
        count: [0x1020, 0x1024, 0x1028],
        loaded: 0x1010,
        counter: 0x8000,
        limit: 0x8008,
        register: "a0",
        frames: "'ra', ['sp', 'ra']",
        is_reversible: true,
    },
    RUST_VMM,
];

const RUST_VMM: Emulator = Emulator {
    name: "rust_vmm",
    entry: 0x1000,
    // The instruction goes out to the VMM.
    back: [0x1007, 0x1009],
    count: [0x1015, 0x1017, 0x101e],
    loaded: 0x1010,
    counter: 0x8000,
    limit: 0x8008,
    register: "rax",
    frames: "None, ['rbp']",
    is_reversible: false,
};

pub(crate) fn debugged(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let examples = built_with("dev", &["--package", "vmcore-examples", "--examples"], "examples")?;
    let unwinder = context.path("frames.py");
    std::fs::write(&unwinder, include_str!("emulators_gdb.py"))?;
    let bench =
        |emulator| Bench { emulator, program: examples.join(emulator.name), gdb: &gdb, unwinder: &unwinder };
    let has_kvm = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    for emulator in EMULATORS.iter().filter(|emulator| has_kvm || emulator.name != RUST_VMM.name) {
        bench(emulator).run().context(emulator.name)?;
    }
    bench(&RUST_VMM).look_at_made_up().context("rust_vmm no-kvm")?;
    Ok(Verdict::Passed)
}

/// How often a program is interrupted that is to have gone on.
const INTERRUPTS: usize = 1000;

/// What gdb does, and then: the program counter, what is counted in the register, and in memory.
struct Step {
    commands: Vec<String>,
    pc: u64,
    in_register: u64,
    in_memory: u64,
}

/// An emulator, and what looks at it.
struct Bench<'a> {
    emulator: &'a Emulator,
    program: PathBuf,
    gdb: &'a Path,
    unwinder: &'a Path,
}

impl Bench<'_> {
    fn run(&self) -> Result<()> {
        let Emulator { count: [count, ..], limit, register, .. } = *self.emulator;
        let alone = output(Command::new(&self.program).arg("--run"))?;

        let server = self.serve()?;
        self.inspect(&server)?;
        self.interrupt(&server)?;
        // The third client finds it where the second has left it, and lets it end as it would have.
        let script = [
            format!("break *{count:#x}"),
            "continue".to_owned(),
            "printf \"stopped at %lx\\n\", (long)$pc".to_owned(),
            "delete".to_owned(),
            format!("set ${register} = 50"),
            format!("set *(int*){limit:#x} = 100"),
            "detach".to_owned(),
        ];
        let out = self.script(&server, &script)?;
        ensure!(out.contains(&format!("stopped at {count:x}\n")), "no breakpoint after reconnecting:\n{out}");
        ensure_same(&end(server)?, &alone)?;

        let server = self.serve()?;
        let out = self.script(&server, &["continue".to_owned()])?;
        ensure!(out.contains("exited with code 0144"), "gdb does not see the end:\n{out}");
        ensure_same(&end(server)?, &alone)?;

        let server = self.serve()?;
        let out = self.script(&server, &["kill".to_owned()])?;
        ensure!(out.contains("killed]"), "gdb does not kill it:\n{out}");
        ensure_same(&end(server)?, "killed by signal 9\n")
    }

    fn serve(&self) -> Result<Server> {
        self.serve_with(&[])
    }

    fn serve_with(&self, args: &[&str]) -> Result<Server> {
        let mut command = Command::new(&self.program);
        command.args(["--gdb", "127.0.0.1:0"]).args(args).stdout(Stdio::piped());
        Server::of(command)
    }

    /// Stops in every way that there is, goes back, and leaves the program with a limit that it will not reach.
    fn inspect(&self, server: &Server) -> Result<()> {
        let Emulator { counter, limit, register, .. } = *self.emulator;
        let mut script = Vec::new();
        let mut expected = Vec::new();
        for (number, step) in self.steps(self.watches()?).into_iter().enumerate() {
            script.extend(step.commands);
            script.push(format!(
                "printf \"== {number}: %lx %d %d\\n\", (long)$pc, (int)${register}, *(int*){counter:#x}"
            ));
            expected.push(format!("== {number}: {:x} {} {}", step.pc, step.in_register, step.in_memory));
        }
        script.extend(["delete".to_owned(), format!("set *(int*){limit:#x} = 0"), "detach".to_owned()]);
        let out = self.script(server, &script)?;
        let found: Vec<&str> = out.lines().filter(|line| line.starts_with("== ")).collect();
        ensure!(found == expected, "gdb sees {found:#?}, expected was {expected:#?}:\n{out}");
        Ok(())
    }

    /// Whether it has watchpoints: a KVM that emulates all instructions has none, and the VMM says so.
    fn watches(&self) -> Result<bool> {
        // On a server of its own: when the client leaves, the program runs.
        let server = self.serve()?;
        let mut client = server.connect()?;
        ask(&mut client, "qSupported:error-message+")?;
        let why = ask(&mut client, &format!("Z2,{:x},4", self.emulator.counter))?;
        let is_refused = why.ends_with("does not stop at accesses to memory");
        ensure!(is_refused || why == "OK", "a watchpoint is answered by {why}");
        Ok(!is_refused)
    }

    /// What gdb does, and what it sees then.
    fn steps(&self, watches: bool) -> Vec<Step> {
        let Emulator { entry, back, count, loaded, counter, limit, is_reversible, .. } = *self.emulator;
        let step = |commands: &[&str], pc, in_register, in_memory| Step {
            commands: commands.iter().map(|command| (*command).to_owned()).collect(),
            pc,
            in_register,
            in_memory,
        };
        let breakpoint = &*format!("break *{:#x}", count[0]);
        let hardware = &*format!("hbreak *{:#x}", count[0]);
        let watch = &*format!("watch *(int*){counter:#x}");
        let read = &*format!("rwatch *(int*){limit:#x}");
        #[rustfmt::skip] // a table is read by column
        let rows = [
            (true,                     step(&[breakpoint, "continue"],         count[0], 0, 0)),
            (true,                     step(&["finish"],                       back[0],  1, 1)),
            (true,                     step(&["stepi"],                        back[1],  1, 1)),
            (watches,                  step(&["delete", watch, "continue"],    count[2], 2, 2)),
            (is_reversible,            step(&["reverse-stepi"],                count[1], 2, 1)),
            (is_reversible,            step(&["delete", "stepi"],              count[2], 2, 2)),
            (is_reversible,            step(&[breakpoint, "reverse-continue"], count[0], 1, 1)),
            (watches,                  step(&["delete", read, "continue"],     loaded,   2, 2)),
            (is_reversible,            step(&["delete", "reverse-continue"],   entry,    0, 0)),
        ];
        let mut steps: Vec<Step> =
            rows.into_iter().filter_map(|(is_done, step)| is_done.then_some(step)).collect();
        let counted = steps.last().map_or(0, |last| last.in_memory);
        steps.push(step(&["delete", hardware, "continue"], count[0], counted, counted));
        steps
    }

    /// The vCPU that is made up: gdb reads and writes registers and memory, and is told that nothing runs.
    fn look_at_made_up(&self) -> Result<()> {
        let Emulator { entry, counter, .. } = *self.emulator;
        let server = self.serve_with(&["no-kvm"])?;
        {
            let mut client = server.connect()?;
            ask(&mut client, "qSupported:error-message+")?;
            let why = ask(&mut client, "vCont;c")?;
            ensure!(why == "E.this target does not run", "the answer is {why}");
        }
        let show = format!("printf \"== %lx %lx %lx %x\\n\", $pc, $rax, $cr3, *(int*){counter:#x}");
        let mut script =
            vec![show.clone(), "set $rax = 0x1234".to_owned(), format!("set *(int*){counter:#x} = 0x5678")];
        script.extend(["stepi".to_owned(), "continue".to_owned(), show.clone(), "detach".to_owned()]);
        let mut out = self.script(&server, &script)?;
        ensure!(
            out.matches("Remote failure reply: E01").count() == 2,
            "it is not said that nothing runs:\n{out}"
        );
        out += &self.script(&server, &[show, "x/i $pc".to_owned(), "kill".to_owned()])?;
        let found: Vec<&str> = out.lines().filter(|line| line.starts_with("== ")).collect();
        let [before, after] = ["0 9000 0", "1234 9000 5678"].map(|values| format!("== {entry:x} {values}"));
        ensure!(found == [&*before, &*after, &*after], "gdb sees {found:#?}:\n{out}");
        ensure!(out.contains("xor    %eax,%eax") && out.contains("killed]"), "gdb sees no program:\n{out}");
        ensure_same(&end(server)?, "killed by signal 9\n")
    }

    /// The program that gdb has left runs without end, and again between two clients. This one interrupts it, and vanishes.
    fn interrupt(&self, server: &Server) -> Result<()> {
        let mut client = server.connect()?;
        let why = ask(&mut client, "?")?;
        let before = self.counted(&mut client)?;
        ensure!(why.starts_with("T05") && before > 0, "left by gdb it has counted {before}, and says {why}");
        // An interrupt may come before the first instruction, so there is more than one.
        for _ in 0..INTERRUPTS {
            client.write_all(&packet("vCont;c"))?;
            // The acknowledgement: now it is about to run.
            client.read_exact(&mut [0])?;
            client.write_all(b"\x03")?;
            let why = read_packet(&mut client)?;
            client.write_all(b"+")?;
            ensure!(why.starts_with("T02"), "the answer to an interrupt is {why}");
            if self.counted(&mut client)? > before {
                return Ok(());
            }
        }
        bail!("it still has counted to {before} when it was interrupted {INTERRUPTS} times")
    }

    /// What it has counted so far.
    fn counted(&self, client: &mut TcpStream) -> Result<u32> {
        let mut bytes = [0; 4];
        // One by one: there are no runs in an answer of two digits.
        for (address, byte) in (self.emulator.counter..).zip(&mut bytes) {
            *byte = u8::from_str_radix(&ask(client, &format!("m{address:x},1"))?, 16)?;
        }
        Ok(u32::from_le_bytes(bytes))
    }

    /// All that gdb says when it carries out these commands.
    fn script(&self, server: &Server, commands: &[String]) -> Result<String> {
        let Emulator { count: [count, ..], frames, .. } = self.emulator;
        let mut command = Command::new(self.gdb);
        command.args(["-nx", "-batch", "-ex", "set confirm off", "-ex"]);
        command.arg(format!("source {}", self.unwinder.display())).arg("-ex");
        command.arg(format!("python gdb.unwinder.register_unwinder(None, Frames({count}, {frames}))"));
        command.arg("-ex").arg(format!("target remote {}", server.address));
        for step in commands {
            command.arg("-ex").arg(step);
        }
        let out = any_output(command.stdin(Stdio::null()))?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    }
}

fn ensure_same(end: &str, expected: &str) -> Result<()> {
    ensure!(end == expected, "the program ends with {end:?}, expected was {expected:?}");
    Ok(())
}

/// What the emulator says of the end of its program, when it has ended by itself.
fn end(mut server: Server) -> Result<String> {
    let mut said = String::new();
    server.child.stdout.take().context("standard output")?.read_to_string(&mut said)?;
    let status = server.child.wait()?;
    ensure!(status.success(), "the emulator ends with {status}: {said}");
    Ok(said)
}
