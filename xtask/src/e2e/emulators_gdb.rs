//! Emulators of others (`examples/`) serve gdb while they run: what gdb does to their program, and what the program does then.

use super::consumers::missing;
use super::gdb::{Server, ask, packet, read_packet};
use super::{Context, Verdict};
use crate::run::{any_output, built_with, find, output};
use anyhow::{Context as _, Result, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An emulator and its program, which counts up to a limit by a function, and exits with what it has counted.
struct Emulator {
    name: &'static str,
    /// Address of the first instruction.
    entry: u64,
    /// Where the call of the function returns: to a load of the limit.
    back: u64,
    /// The function: adds one, stores, returns. Instructions have four bytes.
    count: u64,
    /// Address of the word that is counted up.
    counter: u64,
    /// Address of the word with the limit.
    limit: u64,
    /// The register that is counted up.
    register: &'static str,
    /// Parameters of the unwinder: the link register, and those that a caller keeps.
    frames: &'static str,
}

const EMULATORS: [Emulator; 2] = [
    Emulator {
        name: "armv4t",
        entry: 0,
        back: 0x10,
        count: 0x20,
        counter: 0x8000,
        limit: 0x8004,
        register: "r0",
        frames: "'lr', ['sp', 'lr', 'cpsr']",
    },
    Emulator {
        name: "ckb_vm",
        entry: 0x1000,
        back: 0x100c,
        count: 0x1020,
        counter: 0x8000,
        limit: 0x8008,
        register: "a0",
        frames: "'ra', ['sp', 'ra']",
    },
];

pub(crate) fn debugged(context: &mut Context) -> Result<Verdict> {
    let Some(gdb) = find("gdb-multiarch") else { return missing("gdb-multiarch") };
    let examples = built_with("dev", &["--package", "vmcore-examples", "--examples"], "examples")?;
    let unwinder = context.path("frames.py");
    std::fs::write(&unwinder, include_str!("emulators_gdb.py"))?;
    for emulator in &EMULATORS {
        let bench = Bench { emulator, program: examples.join(emulator.name), gdb: &gdb, unwinder: &unwinder };
        bench.run().context(emulator.name)?;
    }
    Ok(Verdict::Passed)
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
        let Emulator { count, limit, register, .. } = *self.emulator;
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
        let mut command = Command::new(&self.program);
        command.args(["--gdb", "127.0.0.1:0"]).stdout(Stdio::piped());
        Server::of(command)
    }

    /// Stops in every way, goes back, and leaves the program with a limit that it will not reach.
    fn inspect(&self, server: &Server) -> Result<()> {
        let Emulator { entry, back, count, counter, limit, register, .. } = *self.emulator;
        let breakpoint = format!("break *{count:#x}");
        // What gdb does, and then: the program counter, what is counted in the register, and in memory.
        #[rustfmt::skip] // a table is read by column
        let steps: [(&[&str], u64, u64, u64); 9] = [
            (&[&breakpoint, "continue"],                               count,     0, 0),
            (&["finish"],                                              back,      1, 1),
            (&["delete", &format!("watch *(int*){counter:#x}"), "continue"], count + 8, 2, 2),
            (&["reverse-stepi"],                                       count + 4, 2, 1),
            (&["delete", "stepi"],                                     count + 8, 2, 2),
            (&[&breakpoint, "reverse-continue"],                       count,     1, 1),
            (&["delete", &format!("rwatch *(int*){limit:#x}"), "continue"], back + 4, 2, 2),
            (&["delete", "reverse-continue"],                          entry,     0, 0),
            (&[&format!("hbreak *{count:#x}"), "continue"],            count,     0, 0),
        ];
        let mut script = Vec::new();
        let mut expected = Vec::new();
        for (number, (commands, pc, in_register, in_memory)) in steps.iter().enumerate() {
            script.extend(commands.iter().map(|command| (*command).to_owned()));
            script.push(format!(
                "printf \"== {number}: %lx %d %d\\n\", (long)$pc, (int)${register}, *(int*){counter:#x}"
            ));
            expected.push(format!("== {number}: {pc:x} {in_register} {in_memory}"));
        }
        script.extend(["delete".to_owned(), format!("set *(int*){limit:#x} = 0"), "detach".to_owned()]);
        let out = self.script(server, &script)?;
        let found: Vec<&str> = out.lines().filter(|line| line.starts_with("== ")).collect();
        ensure!(found == expected, "gdb sees {found:#?}, expected was {expected:#?}:\n{out}");
        Ok(())
    }

    /// The program that gdb has left runs without end, and again between two clients. This one interrupts it, and vanishes.
    fn interrupt(&self, server: &Server) -> Result<()> {
        let mut client = server.connect()?;
        let why = ask(&mut client, "?")?;
        let before = self.counted(&mut client)?;
        ensure!(why.starts_with("T05") && before > 0, "left by gdb it has counted {before}, and says {why}");
        client.write_all(&[&packet("vCont;c")[..], b"\x03"].concat())?;
        let why = read_packet(&mut client)?;
        client.write_all(b"+")?;
        let after = self.counted(&mut client)?;
        ensure!(why.starts_with("T02") && after > before, "{before}, {after}: the answer is {why}");
        Ok(())
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
        let Emulator { count, frames, .. } = self.emulator;
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
