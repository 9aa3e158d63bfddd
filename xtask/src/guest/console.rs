//! The serial console of a guest: what its kernel says, and questions to its init.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// What a kernel says that will not come up. Without KVM a vCPU loses its timer now and then: then the kernel waits for ever.
const STUCK: [&str; 2] = ["detected stalls on CPUs", "Kernel panic"];
/// How often a question is asked. A console may lose a line, and an idle vCPU without KVM its interrupt: a guest that runs
/// answers the next one.
const ASKED: u32 = 24;

/// Both directions of a console.
#[derive(Debug)]
pub(super) struct Console<W> {
    input: W,
    lines: Receiver<String>,
    /// Number of the last question.
    asked: u32,
}

impl<W: Write> Console<W> {
    pub(super) fn new(input: W, output: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                // Nobody listens: the pipe is drained all the same, or the guest's console would block.
                let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        });
        Self { input, lines, asked: 0 }
    }

    /// Waits for this line.
    pub(super) fn wait(&self, wanted: &str, time: Duration) -> Result<()> {
        self.read_until(|line| line == wanted, time, &mut Vec::new())
    }

    /// Sends a line to the guest's init, which does not answer it.
    pub(super) fn send(&mut self, line: &str) -> Result<()> {
        self.asked += 1;
        writeln!(self.input, "{} {line}", self.asked)?;
        Ok(self.input.flush()?)
    }

    /// Sends a line to the guest's init, and gives what the console said between `ping NUMBER` and `pong NUMBER LINE`, where its
    /// answer begins and ends. A slow guest may answer after it was asked again: that is an answer, and what comes to those
    /// that were sent later is none to another question.
    pub(super) fn ask(&mut self, line: &str, time: Duration) -> Result<Vec<String>> {
        let first = self.asked + 1;
        let mut said = Vec::new();
        let mut result = Ok(());
        for _ in 0..ASKED {
            self.send(line)?;
            let ends: Vec<String> =
                (first..=self.asked).map(|number| format!("pong {number} {line}")).collect();
            let is_end = |line: &str| ends.iter().any(|end| end.trim_end() == line);
            result = self.read_until(is_end, time / ASKED, &mut said);
            if result.is_ok() {
                break;
            }
        }
        result.context("the guest does not run")?;
        let begin = said.iter().rposition(|line| line.starts_with("ping "));
        Ok(said.split_off(begin.context("an answer has no beginning")? + 1))
    }

    /// Adds the lines before the one that is wanted to `said`, also if that does not come.
    fn read_until(&self, is_it: impl Fn(&str) -> bool, time: Duration, said: &mut Vec<String>) -> Result<()> {
        const SHOWN: usize = 20;
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                let last = &said[said.len().saturating_sub(SHOWN)..];
                bail!("the console does not say what is expected; the last lines:\n{}", last.join("\n"));
            };
            if is_it(&line) {
                return Ok(());
            }
            if STUCK.iter().any(|text| line.contains(text)) {
                bail!("the guest's kernel is stuck: {line}");
            }
            said.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::io;
    use std::sync::mpsc::Sender;

    /// A guest that says the next of these when it is asked.
    struct Script {
        answers: VecDeque<&'static [&'static str]>,
        console: Sender<String>,
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            for line in self.answers.pop_front().unwrap_or_default() {
                self.console.send((*line).to_owned()).expect("somebody listens");
            }
            Ok(())
        }
    }

    fn console(answers: &[&'static [&'static str]]) -> Console<Script> {
        let (console, lines) = channel();
        Console { input: Script { answers: answers.iter().copied().collect(), console }, lines, asked: 0 }
    }

    #[test]
    fn an_answer_is_whole_however_slow_and_no_other_question_gets_it() {
        let mut console = console(&[
            &["noise", "ping 1", "a"],
            &["b", "pong 1 one", "ping 2", "a", "b", "pong 2 one"],
            &["ping 3", "c", "pong 3 two"],
        ]);
        assert_eq!(console.ask("one", Duration::ZERO).expect("an answer"), ["a", "b"]);
        assert_eq!(console.ask("two", Duration::ZERO).expect("an answer"), ["c"]);
    }

    #[test]
    fn a_line_that_is_lost_or_damaged_is_asked_again() {
        let lost = &[][..];
        let mut console =
            console(&[lost, &["ping 2", "a", "pong 2 quest"], &["ping 3", "b", "pong 3 question"]]);
        assert_eq!(console.ask("question", Duration::ZERO).expect("an answer"), ["b"]);
        assert!(console.ask("question", Duration::ZERO).is_err(), "nobody answers");
    }
}
