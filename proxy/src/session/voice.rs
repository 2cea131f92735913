//! How a held connection is spoken to: on a session channel's standard error, or not at all.

use std::time::Duration;

use bytes::Bytes;

use crate::hold::{Answer, Left, Voice};
use crate::say::{self, LineEnd};
use anteroom_ssh::{ChannelRequest, Connection, Event, Inbox, Outbox, WindowSize};

/// Ctrl-C, Ctrl-D and the keys that edit a line, as a terminal in raw mode sends them.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;
const BACKSPACE: [u8; 2] = [8, 127];

/// A typed reason may be this long; what comes after is not echoed and not kept. The same bound
/// as for reasons everywhere, kept before anything is buffered.
const MAX_LINE: usize = 4096;

/// The voice on a session channel: everything goes to standard error, so that standard output
/// stays the command's own.
pub(super) struct ChannelVoice<'a> {
    inbox: &'a mut Inbox,
    outbox: Outbox,
    terminal: Option<&'a mut WindowSize>,
    /// The end of input was heard, which comes once: a later prompt must know of it too.
    input_ended: bool,
}

impl<'a> ChannelVoice<'a> {
    /// `terminal` is the size of the client's terminal if it has one; it is kept up to date.
    pub(super) fn new(
        inbox: &'a mut Inbox,
        outbox: Outbox,
        terminal: Option<&'a mut WindowSize>,
    ) -> Self {
        ChannelVoice {
            inbox,
            outbox,
            terminal,
            input_ended: false,
        }
    }

    fn line_end(&self) -> LineEnd {
        if self.terminal.is_some() {
            LineEnd::CrLf
        } else {
            LineEnd::Lf
        }
    }

    async fn put(&self, text: impl Into<Bytes>) {
        // A client that is gone is noticed by `left`; there is nobody else to tell.
        self.outbox.stderr(text.into()).await.ok();
    }

    /// The next thing a person at a terminal does; window changes are only noted.
    async fn typed(&mut self) -> Typed {
        loop {
            match self.inbox.next().await {
                Some(Event::Data(data)) => return Typed::Bytes(data),
                Some(Event::Eof) => {
                    self.input_ended = true;
                    return Typed::End;
                }
                Some(Event::Request(ChannelRequest::WindowChange(size))) => {
                    if let Some(terminal) = &mut self.terminal {
                        **terminal = size;
                    }
                }
                Some(Event::Request(ChannelRequest::Signal(signal))) if signal.name() == "INT" => {
                    return Typed::Interrupt;
                }
                Some(
                    Event::Request(_)
                    | Event::Stderr(_)
                    | Event::ExitStatus(_)
                    | Event::ExitSignal(_)
                    | Event::NodeAccepted(_)
                    | Event::NodeRefused(_),
                ) => {}
                Some(Event::Close) | None => return Typed::Gone,
            }
        }
    }

    async fn read_line(&mut self) -> Answer {
        let mut line = Vec::new();
        loop {
            let data = match self.typed().await {
                Typed::Bytes(data) => data,
                Typed::End => {
                    self.put("\r\n").await;
                    return Answer::Unattended;
                }
                Typed::Interrupt => return self.interrupted().await,
                Typed::Gone => return Answer::Left(Left::Gone),
            };
            for &byte in &data {
                match byte {
                    b'\r' | b'\n' => {
                        self.put("\r\n").await;
                        return Answer::Line(String::from_utf8_lossy(&line).into_owned());
                    }
                    CTRL_C => return self.interrupted().await,
                    CTRL_D if line.is_empty() => {
                        self.put("\r\n").await;
                        return Answer::Unattended;
                    }
                    CTRL_U => {
                        let columns = say::width(&String::from_utf8_lossy(&line));
                        line.clear();
                        self.put("\x08 \x08".repeat(columns)).await;
                    }
                    byte if BACKSPACE.contains(&byte) => {
                        let columns = drop_last_char(&mut line);
                        self.put("\x08 \x08".repeat(columns)).await;
                    }
                    0x20.. if line.len() < MAX_LINE => {
                        line.push(byte);
                        self.put(vec![byte]).await;
                    }
                    // Other control characters and what is too long are neither kept nor echoed.
                    _ => {}
                }
            }
        }
    }

    async fn interrupted(&mut self) -> Answer {
        self.put("^C\r\n").await;
        Answer::Left(Left::Interrupted)
    }
}

enum Typed {
    Bytes(Bytes),
    End,
    Interrupt,
    Gone,
}

impl Voice for ChannelVoice<'_> {
    async fn say(&mut self, text: &str) {
        self.put(say::lines(text, self.line_end())).await;
    }

    async fn ask(&mut self, prompt: &str, within: Duration) -> Answer {
        if self.terminal.is_none() {
            return Answer::Unattended;
        }
        self.put(format!("\r\n{prompt}")).await;
        if self.input_ended {
            self.put("\r\n").await;
            return Answer::Unattended;
        }
        match tokio::time::timeout(within, self.read_line()).await {
            Ok(answer) => answer,
            Err(_) => {
                self.put("\r\n").await;
                Answer::Unattended
            }
        }
    }

    fn audience(&self) -> say::Audience {
        if self.terminal.is_some() {
            say::Audience::Terminal
        } else {
            say::Audience::Program
        }
    }

    async fn left(&mut self) -> Left {
        if self.terminal.is_none() {
            // Data stays unread in the window: it belongs to the command that is to come.
            self.outbox.gone().await;
            return Left::Gone;
        }
        loop {
            match self.typed().await {
                Typed::Bytes(data) if data.contains(&CTRL_C) => {
                    self.put("^C\r\n").await;
                    return Left::Interrupted;
                }
                Typed::Interrupt => return Left::Interrupted,
                Typed::Gone => return Left::Gone,
                // What is typed while waiting was not meant for the command; it is discarded.
                Typed::Bytes(_) => {}
                // `ssh -tt < /dev/null`: nobody will type, the wait goes on.
                Typed::End => {
                    self.outbox.gone().await;
                    return Left::Gone;
                }
            }
        }
    }
}

/// The voice of a forward: it has no standard error; a refusal travels in the refused open.
pub(super) struct Silent(pub(super) Connection);

impl Voice for Silent {
    async fn say(&mut self, _: &str) {}

    async fn ask(&mut self, _: &str, _: Duration) -> Answer {
        Answer::Unattended
    }

    fn audience(&self) -> say::Audience {
        say::Audience::Program
    }

    async fn left(&mut self) -> Left {
        // A client cannot take back an open (RFC 4254 section 5.1); it can only go.
        self.0.closed().await;
        Left::Gone
    }
}

/// Removes the last character of a line being typed; the columns it took on the screen.
fn drop_last_char(line: &mut Vec<u8>) -> usize {
    let is_continuation = |byte: &u8| byte & 0xC0 == 0x80;
    let start = line
        .iter()
        .rposition(|byte| !is_continuation(byte))
        .unwrap_or(0);
    let char = String::from_utf8_lossy(line.get(start..).unwrap_or_default()).into_owned();
    line.truncate(start);
    say::width(&char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backspace_removes_a_whole_character() {
        let mut line = "aé日".as_bytes().to_vec();
        assert_eq!(drop_last_char(&mut line), 2);
        assert_eq!(drop_last_char(&mut line), 1);
        assert_eq!(line, b"a");
        assert_eq!(drop_last_char(&mut line), 1);
        assert_eq!(drop_last_char(&mut line), 0);
    }
}
