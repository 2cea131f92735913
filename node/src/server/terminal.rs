//! Pseudo-terminals: the master's side, with size and modes as the client asked for them.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anteroom_ssh::{PtyRequest, WindowSize};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};
use tokio::io::unix::AsyncFd;

/// A terminal whose other side a session runs on. Dropping it hangs the terminal up.
pub(super) struct Terminal {
    master: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Terminal {
    /// Opens a terminal as it was asked for, and its other side. That is handed on as it is: the path would be
    /// another terminal's as soon as this one is gone.
    pub(super) fn open(request: &PtyRequest) -> io::Result<(Self, OwnedFd)> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?.into_bytes();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        let mut modes = tcgetattr(&master)?;
        for &(opcode, argument) in &request.modes {
            set(&mut modes, opcode, argument);
        }
        // What a line cannot do it does not do, as everywhere.
        let _ = tcsetattr(&master, OptionalActions::Now, &modes);
        let flags = fcntl_getfl(&master)?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        let terminal = Self {
            master: watched(master)?,
            path: PathBuf::from(OsString::from_vec(path)),
        };
        terminal.resize(request.size);
        Ok((terminal, slave))
    }

    /// The path of the side that programs see, to be told and not to be opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the size; programs that want to know are told by a signal.
    pub(super) fn resize(&self, size: WindowSize) {
        let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: small(size.rows),
            ws_col: small(size.columns),
            ws_xpixel: small(size.pixel_width),
            ws_ypixel: small(size.pixel_height),
        };
        let _ = tcsetwinsize(&self.master, size);
    }

    /// Reads what programs wrote; 0 when the last of them is gone. Cancel-safe.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut *buffer)?)) {
                // The ordinary end on Linux.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => return Ok(0),
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Writes a part of what was typed; how much. Cancel-safe.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.writable().await?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

/// To be waited for. The function is deprecated for types whose descriptor may change under it, which that
/// of an `OwnedFd` does not; the one in its place cannot be called from safe code.
#[expect(deprecated, reason = "sound for this type, see above")]
pub(super) fn watched(master: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(master)
}

/// Sets one mode (RFC 4254 section 8), as sshd does (ttymodes.h). What Linux has no word for is passed over.
fn set(modes: &mut Termios, opcode: u8, argument: u32) {
    if let Some(index) = special(opcode) {
        // 255 says that there is no such character.
        let code = u8::try_from(argument).unwrap_or(u8::MAX);
        modes.special_codes[index] = if code == u8::MAX { 0 } else { code };
        return;
    }
    let on = argument != 0;
    match opcode {
        30..=42 => modes.input_modes.set(input(opcode), on),
        50..=62 => modes.local_modes.set(local(opcode), on),
        70..=75 => modes.output_modes.set(output(opcode), on),
        90..=93 => modes.control_modes.set(control(opcode), on),
        128 => {
            let _ = modes.set_input_speed(argument);
        }
        129 => {
            let _ = modes.set_output_speed(argument);
        }
        _ => {}
    }
}

fn special(opcode: u8) -> Option<SpecialCodeIndex> {
    Some(match opcode {
        1 => SpecialCodeIndex::VINTR,
        2 => SpecialCodeIndex::VQUIT,
        3 => SpecialCodeIndex::VERASE,
        4 => SpecialCodeIndex::VKILL,
        5 => SpecialCodeIndex::VEOF,
        6 => SpecialCodeIndex::VEOL,
        7 => SpecialCodeIndex::VEOL2,
        8 => SpecialCodeIndex::VSTART,
        9 => SpecialCodeIndex::VSTOP,
        10 => SpecialCodeIndex::VSUSP,
        12 => SpecialCodeIndex::VREPRINT,
        13 => SpecialCodeIndex::VWERASE,
        14 => SpecialCodeIndex::VLNEXT,
        16 => SpecialCodeIndex::VSWTC,
        18 => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input(opcode: u8) -> InputModes {
    match opcode {
        30 => InputModes::IGNPAR,
        31 => InputModes::PARMRK,
        32 => InputModes::INPCK,
        33 => InputModes::ISTRIP,
        34 => InputModes::INLCR,
        35 => InputModes::IGNCR,
        36 => InputModes::ICRNL,
        37 => InputModes::IUCLC,
        38 => InputModes::IXON,
        39 => InputModes::IXANY,
        40 => InputModes::IXOFF,
        41 => InputModes::IMAXBEL,
        42 => InputModes::IUTF8,
        _ => InputModes::empty(),
    }
}

fn local(opcode: u8) -> LocalModes {
    match opcode {
        50 => LocalModes::ISIG,
        51 => LocalModes::ICANON,
        52 => LocalModes::XCASE,
        53 => LocalModes::ECHO,
        54 => LocalModes::ECHOE,
        55 => LocalModes::ECHOK,
        56 => LocalModes::ECHONL,
        57 => LocalModes::NOFLSH,
        58 => LocalModes::TOSTOP,
        59 => LocalModes::IEXTEN,
        60 => LocalModes::ECHOCTL,
        61 => LocalModes::ECHOKE,
        62 => LocalModes::PENDIN,
        _ => LocalModes::empty(),
    }
}

fn output(opcode: u8) -> OutputModes {
    match opcode {
        70 => OutputModes::OPOST,
        71 => OutputModes::OLCUC,
        72 => OutputModes::ONLCR,
        73 => OutputModes::OCRNL,
        74 => OutputModes::ONOCR,
        75 => OutputModes::ONLRET,
        _ => OutputModes::empty(),
    }
}

fn control(opcode: u8) -> ControlModes {
    match opcode {
        90 => ControlModes::CS7,
        91 => ControlModes::CS8,
        92 => ControlModes::PARENB,
        93 => ControlModes::PARODD,
        _ => ControlModes::empty(),
    }
}
