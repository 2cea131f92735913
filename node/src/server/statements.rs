//! What the agent says about itself when it starts: where it is less than a stock sshd.

use super::Options;
use super::accounting::{IS_KNOWN, LASTLOG, UTMP, WTMP};
use super::session::sftp_server;

/// Sentences for the log, one each, of how sessions will be served here.
pub(super) fn statements(options: &Options) -> Vec<String> {
    let mut out = vec![
        "PAM is not used: no module limits, accounts for or opens sessions; accounts that the file \
         /etc/shadow says are locked or expired are refused (other sources of it are not read), and so is \
         everybody but root while there is an /etc/nologin"
            .to_owned(),
        accounting(),
    ];
    out.push(match sftp_server().filter(|_| !options.own_sftp) {
        Some(path) => format!("sftp is served by {path}"),
        None => "sftp is served by the agent itself".to_owned(),
    });
    out.push("X11 is not forwarded, and neither are Unix sockets or tunnel devices".to_owned());
    out
}

fn accounting() -> String {
    let writable = |path: &&str| std::fs::OpenOptions::new().append(true).open(path).is_ok();
    let files: Vec<_> = [UTMP, WTMP, LASTLOG].into_iter().filter(writable).collect();
    match IS_KNOWN && !files.is_empty() {
        true => format!("logins on terminals are recorded in {}", files.join(", ")),
        false => {
            "logins are recorded in this log only: there is no utmp, wtmp or lastlog that could be \
                  written"
                .to_owned()
        }
    }
}
