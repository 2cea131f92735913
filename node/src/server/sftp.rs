//! SFTP, version 3, for nodes where no `sftp-server` is installed (draft-ietf-secsh-filexfer-02, and OpenSSH's
//! PROTOCOL section 4 for its extensions). It runs in the session's own process, as the user: what the user
//! may not do is the kernel's to say.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, FileTimes, Metadata, OpenOptions, ReadDir};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown, symlink,
};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::{TimeSpec, TimeValLike};
use russh_sftp::protocol::{
    Attrs, Data, File as Entry, FileAttributes, Handle, Name, OpenFlags, Packet, Status,
    StatusCode, Version,
};
use russh_sftp::server::{Config, Handler, StatusReply, run_with_config};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::helper::words;

/// Files and folders that are open at once.
const MOST_HANDLES: usize = 256;

/// Bytes of one answer to a read; OpenSSH's server has the same.
const LONGEST_READ: u32 = 255 << 10;

/// Bytes of a packet of the client's.
const LONGEST_PACKET: u32 = 256 << 10;

/// Entries of a folder in one answer.
const ENTRIES: usize = 100;

/// Extensions, each in version 1.
const EXTENSIONS: [&str; 3] = [
    "posix-rename@openssh.com",
    "hardlink@openssh.com",
    "fsync@openssh.com",
];

/// What stands in the place of bytes that are not UTF-8 when a name gets here.
const UNREADABLE: char = '\u{fffd}';

/// Serves standard input and output until the client is done.
pub(super) fn serve() -> io::Result<()> {
    use std::os::fd::AsFd;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let owned = |stream: &dyn AsFd| stream.as_fd().try_clone_to_owned();
        let input = pipe::Receiver::from_owned_fd(owned(&io::stdin())?)?;
        let output = pipe::Sender::from_owned_fd(owned(&io::stdout())?)?;
        let (done, over) = oneshot::channel();
        let files = Files {
            open: HashMap::new(),
            last: 0,
            _done: done,
        };
        let config = Config {
            max_client_packet_len: LONGEST_PACKET,
        };
        run_with_config(tokio::io::join(input, output), files, config).await;
        // The handler is dropped when the client's last packet is answered; nothing is ever sent.
        let _ = over.await;
        Ok(())
    })
}

struct Files {
    open: HashMap<String, Opened>,
    last: u64,
    _done: oneshot::Sender<()>,
}

enum Opened {
    /// With whether each write goes to its end.
    File(File, bool),
    Folder(ReadDir),
}

type Reply<T> = Result<T, StatusReply>;

fn failed(error: io::Error) -> StatusReply {
    let kind = error.kind();
    if kind == ErrorKind::NotFound {
        StatusCode::NoSuchFile.into()
    } else if kind == ErrorKind::PermissionDenied {
        StatusCode::PermissionDenied.into()
    } else {
        StatusCode::Failure.with_message(words(&error))
    }
}

fn done(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Success".to_owned(),
        language_tag: String::new(),
    }
}

/// A name that could not be read here would be another file's.
fn path(name: &str) -> Reply<&Path> {
    match name {
        "" => Ok(Path::new(".")),
        name if name.contains(UNREADABLE) => {
            Err(StatusCode::Failure.with_message("names that are not in UTF-8 are not served"))
        }
        name => Ok(Path::new(name)),
    }
}

fn attributes(metadata: &Metadata) -> FileAttributes {
    let seconds = |at: i64| Some(u32::try_from(at).unwrap_or_default());
    FileAttributes {
        size: Some(metadata.len()),
        uid: Some(metadata.uid()),
        user: None,
        gid: Some(metadata.gid()),
        group: None,
        permissions: Some(metadata.mode()),
        atime: seconds(metadata.atime()),
        mtime: seconds(metadata.mtime()),
    }
}

fn entry(entry: fs::DirEntry) -> Option<Entry> {
    let found = entry.metadata().ok()?;
    let name = entry.file_name().into_string().ok()?;
    Some(Entry::new(name, attributes(&found)))
}

fn mode(attributes: &FileAttributes, default: u32) -> u32 {
    attributes.permissions.unwrap_or(default) & 0o7777
}

/// What is wanted of a file that has a name, in OpenSSH's order.
fn change(path: &Path, wanted: &FileAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        OpenOptions::new().write(true).open(path)?.set_len(size)?;
    }
    if wanted.permissions.is_some() {
        fs::set_permissions(path, fs::Permissions::from_mode(mode(wanted, 0)))?;
    }
    if let (Some(accessed), Some(modified)) = (wanted.atime, wanted.mtime) {
        let [accessed, modified] = [accessed, modified].map(|at| TimeSpec::seconds(at.into()));
        let flags = UtimensatFlags::FollowSymlink;
        utimensat(nix::fcntl::AT_FDCWD, path, &accessed, &modified, flags)?;
    }
    if wanted.uid.is_some() || wanted.gid.is_some() {
        chown(path, wanted.uid, wanted.gid)?;
    }
    Ok(())
}

/// The same of one that is open.
fn change_open(file: &File, wanted: &FileAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        file.set_len(size)?;
    }
    if wanted.permissions.is_some() {
        file.set_permissions(fs::Permissions::from_mode(mode(wanted, 0)))?;
    }
    if let (Some(accessed), Some(modified)) = (wanted.atime, wanted.mtime) {
        let at = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        let times = FileTimes::new().set_accessed(at(accessed));
        file.set_times(times.set_modified(at(modified)))?;
    }
    if wanted.uid.is_some() || wanted.gid.is_some() {
        fchown(file, wanted.uid, wanted.gid)?;
    }
    Ok(())
}

/// As of version 3: what is there already is not replaced.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_dir() {
        return match fs::symlink_metadata(to) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        };
    }
    // A link refuses to replace anything; file systems without links have no such call.
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        Err(_) => match fs::symlink_metadata(to) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
    }
}

/// The whole path, also of what is not there yet in a folder that is.
fn real(path: &Path) -> io::Result<std::path::PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            Ok(fs::canonicalize(parent.unwrap_or(Path::new(".")))?.join(name))
        }
        result => result,
    }
}

/// Two strings, as the extensions that take two names have them.
fn two_names(data: &[u8]) -> Reply<(String, String)> {
    let mut rest = data;
    let mut next = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (name, after) = after.split_at_checked(length)?;
        rest = after;
        String::from_utf8(name.to_vec()).ok()
    };
    let names = next().zip(next());
    names.ok_or_else(|| StatusCode::BadMessage.into())
}

impl Files {
    fn keep(&mut self, id: u32, opened: Opened) -> Reply<Handle> {
        if self.open.len() >= MOST_HANDLES {
            return Err(StatusCode::Failure.with_message("too many open files"));
        }
        self.last += 1;
        let handle = self.last.to_string();
        self.open.insert(handle.clone(), opened);
        Ok(Handle { id, handle })
    }

    fn file(&self, handle: &str) -> Reply<(&File, bool)> {
        match self.open.get(handle) {
            Some(Opened::File(file, at_end)) => Ok((file, *at_end)),
            Some(Opened::Folder(_)) | None => {
                Err(StatusCode::Failure.with_message("no such handle"))
            }
        }
    }
}

impl Handler for Files {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        StatusCode::OpUnsupported.into()
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Reply<Version> {
        let mut version = Version::new();
        let extensions = EXTENSIONS.map(|name| (name.to_owned(), "1".to_owned()));
        version.extensions.extend(extensions);
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        flags: OpenFlags,
        attrs: FileAttributes,
    ) -> Reply<Handle> {
        let at_end = flags.contains(OpenFlags::APPEND);
        let mut options = OpenOptions::from(flags);
        options.mode(mode(&attrs, 0o666));
        let file = options.open(path(&filename)?).map_err(failed)?;
        self.keep(id, Opened::File(file, at_end))
    }

    async fn close(&mut self, id: u32, handle: String) -> Reply<Status> {
        match self.open.remove(&handle) {
            Some(_) => Ok(done(id)),
            None => Err(StatusCode::Failure.with_message("no such handle")),
        }
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Reply<Data> {
        let (file, _) = self.file(&handle)?;
        let length = usize::try_from(len.min(LONGEST_READ)).unwrap_or_default();
        let mut data = vec![0; length];
        let read = file.read_at(&mut data, offset).map_err(failed)?;
        if read == 0 {
            return Err(StatusCode::Eof.into());
        }
        data.truncate(read);
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Reply<Status> {
        let (mut file, at_end) = self.file(&handle)?;
        match at_end {
            true => file.write_all(&data),
            false => file.write_all_at(&data, offset),
        }
        .map_err(failed)?;
        Ok(done(id))
    }

    async fn lstat(&mut self, id: u32, name: String) -> Reply<Attrs> {
        let found = fs::symlink_metadata(path(&name)?).map_err(failed)?;
        let attrs = attributes(&found);
        Ok(Attrs { id, attrs })
    }

    async fn stat(&mut self, id: u32, name: String) -> Reply<Attrs> {
        let found = fs::metadata(path(&name)?).map_err(failed)?;
        let attrs = attributes(&found);
        Ok(Attrs { id, attrs })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Reply<Attrs> {
        let found = self.file(&handle)?.0.metadata().map_err(failed)?;
        let attrs = attributes(&found);
        Ok(Attrs { id, attrs })
    }

    async fn setstat(&mut self, id: u32, name: String, attrs: FileAttributes) -> Reply<Status> {
        change(path(&name)?, &attrs).map_err(failed)?;
        Ok(done(id))
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Reply<Status> {
        change_open(self.file(&handle)?.0, &attrs).map_err(failed)?;
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, name: String) -> Reply<Handle> {
        let folder = fs::read_dir(path(&name)?).map_err(failed)?;
        self.keep(id, Opened::Folder(folder))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Reply<Name> {
        let Some(Opened::Folder(folder)) = self.open.get_mut(&handle) else {
            return Err(StatusCode::Failure.with_message("no such handle"));
        };
        loop {
            let entries: Vec<_> = folder.take(ENTRIES).collect();
            if entries.is_empty() {
                return Err(StatusCode::Eof.into());
            }
            // One that cannot be said is not shown, rather than shown under a name that leads nowhere.
            let files: Vec<_> = entries.into_iter().flatten().filter_map(entry).collect();
            if !files.is_empty() {
                return Ok(Name { id, files });
            }
        }
    }

    async fn remove(&mut self, id: u32, name: String) -> Reply<Status> {
        fs::remove_file(path(&name)?).map_err(failed)?;
        Ok(done(id))
    }

    async fn mkdir(&mut self, id: u32, name: String, attrs: FileAttributes) -> Reply<Status> {
        let mut builder = DirBuilder::new();
        builder.mode(mode(&attrs, 0o777));
        builder.create(path(&name)?).map_err(failed)?;
        Ok(done(id))
    }

    async fn rmdir(&mut self, id: u32, name: String) -> Reply<Status> {
        fs::remove_dir(path(&name)?).map_err(failed)?;
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, name: String) -> Reply<Name> {
        let real = real(path(&name)?).map_err(failed)?;
        let real = real.into_os_string().into_string();
        let real = real.map_err(|_| StatusReply::from(StatusCode::Failure))?;
        Ok(Name {
            id,
            files: vec![Entry::dummy(real)],
        })
    }

    async fn rename(&mut self, id: u32, from: String, to: String) -> Reply<Status> {
        rename(path(&from)?, path(&to)?).map_err(failed)?;
        Ok(done(id))
    }

    async fn readlink(&mut self, id: u32, name: String) -> Reply<Name> {
        let target = fs::read_link(path(&name)?).map_err(failed)?;
        let target = target.into_os_string().into_string();
        let target = target.map_err(|_| StatusReply::from(StatusCode::Failure))?;
        Ok(Name {
            id,
            files: vec![Entry::dummy(target)],
        })
    }

    // OpenSSH sends the two the other way round than the draft has them, and everybody has followed it
    // (PROTOCOL section 4.1).
    async fn symlink(&mut self, id: u32, target: String, link: String) -> Reply<Status> {
        symlink(path(&target)?, path(&link)?).map_err(failed)?;
        Ok(done(id))
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Reply<Packet> {
        match request.as_str() {
            "posix-rename@openssh.com" => {
                let (from, to) = two_names(&data)?;
                fs::rename(path(&from)?, path(&to)?).map_err(failed)?;
            }
            "hardlink@openssh.com" => {
                let (from, to) = two_names(&data)?;
                fs::hard_link(path(&from)?, path(&to)?).map_err(failed)?;
            }
            "fsync@openssh.com" => {
                let handle = data
                    .get(4..)
                    .and_then(|handle| std::str::from_utf8(handle).ok());
                self.file(handle.unwrap_or_default())?
                    .0
                    .sync_all()
                    .map_err(failed)?;
            }
            _ => return Err(StatusCode::OpUnsupported.into()),
        }
        Ok(Packet::Status(done(id)))
    }
}
