//! gdb's `monitor`: commands of a [`Machine`], a table that a server adds its own to.

use crate::Error;
use core::fmt;
use std::sync::Arc;
use vmcore_core::{Gva, Machine, RunState};

/// What a command does: writes what it has to say of the machine, in the view of the vCPU of this index. It is given what stands
/// behind its name.
pub type Run = Arc<dyn Fn(&Machine, usize, &str, &mut dyn fmt::Write) -> fmt::Result + Send + Sync>;

/// A command.
#[derive(Clone)]
pub struct Command {
    /// Its name and its arguments, as in `translate ADDR`.
    pub usage: &'static str,
    /// What it does, in a line.
    pub help: &'static str,
    /// What it does.
    pub run: Run,
}

impl Command {
    fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or_default()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("usage", &self.usage).finish_non_exhaustive()
    }
}

/// The commands of a target.
#[derive(Clone, Debug)]
pub(super) struct Commands(Vec<Command>);

impl Default for Commands {
    /// What every machine has.
    fn default() -> Self {
        Self(vec![
            Command {
                usage: "translate ADDR",
                help: "where a virtual address lies in physical memory",
                run: Arc::new(translate),
            },
            Command { usage: "vmcoreinfo", help: "the guest's VMCOREINFO note", run: Arc::new(vmcoreinfo) },
        ])
    }
}

impl Commands {
    /// Adds commands.
    pub(super) fn add(&mut self, commands: &[Command]) {
        self.0.extend_from_slice(commands);
        self.0.sort_by_key(|command| command.usage);
    }

    /// Runs the one that is called; `help`, and the beginning of a name that no other has, are known too.
    ///
    /// # Errors
    /// [`Error::INVALID`] for what is no command.
    pub(super) fn run(
        &self,
        machine: &Machine,
        vcpu: usize,
        command: &str,
        out: &mut dyn fmt::Write,
    ) -> Result<(), Error> {
        let out = &mut Visible(out);
        let (name, arguments) = command.trim().split_once(' ').unwrap_or((command.trim(), ""));
        if name.is_empty() || name == "help" {
            return self.help(out).map_err(|_| Error::NO_ROOM);
        }
        let mut found = self.0.iter().filter(|command| command.name().starts_with(name));
        match (found.next(), found.next()) {
            (Some(command), None) => {
                (command.run)(machine, vcpu, arguments.trim(), out).map_err(|_| Error::NO_ROOM)
            }
            _ => Err(Error { text: "no such command: `monitor help` lists them", ..Error::INVALID }),
        }
    }

    fn help(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let width = self.0.iter().map(|command| command.usage.len()).max().unwrap_or_default();
        let lines = self.0.iter().map(|command| (command.usage, command.help));
        for (usage, help) in lines.chain([("help", "this list")]) {
            writeln!(out, "{usage:width$}  {help}")?;
        }
        Ok(())
    }
}

/// Text for a terminal, with its control characters escaped: what a dump holds must not steer the user's.
struct Visible<'o>(&'o mut dyn fmt::Write);

impl fmt::Write for Visible<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(|char: char| char.is_control()) {
            let plain = part.trim_end_matches(|char: char| char.is_control() && !matches!(char, '\n' | '\t'));
            self.0.write_str(plain)?;
            part[plain.len()..]
                .chars()
                .flat_map(char::escape_default)
                .try_for_each(|char| self.0.write_char(char))?;
        }
        Ok(())
    }
}

/// A number as gdb's users write it: in hex with `0x`, else decimal.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn translate(machine: &Machine, vcpu: usize, arguments: &str, out: &mut dyn fmt::Write) -> fmt::Result {
    let Some(address) = number(arguments) else {
        return writeln!(out, "usage: translate ADDR, a number as in 0xffff888000000000");
    };
    match machine.translate(vcpu, Gva(address)) {
        Ok(found) => {
            let state = match machine.memory.run_at(found.gpa, 1).state {
                RunState::Data | RunState::Zero => "",
                RunState::Missing => ", which is not in the dump",
                RunState::Excluded => ", which was left out of the dump",
            };
            writeln!(
                out,
                "{} lies at {}, {:#x} bytes of the page follow{state}",
                Gva(address),
                found.gpa,
                found.len
            )
        }
        Err(error) => writeln!(out, "{error}"),
    }
}

fn vmcoreinfo(machine: &Machine, _: usize, _: &str, out: &mut dyn fmt::Write) -> fmt::Result {
    match machine.vmcoreinfo() {
        Some(info) => info.iter().try_for_each(|(key, value)| writeln!(out, "{key}={value}")),
        None => writeln!(out, "the guest's VMCOREINFO is not known"),
    }
}
