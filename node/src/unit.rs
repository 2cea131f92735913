//! The systemd unit that `anteroom node unit` prints.
//!
//! Whatever a unit takes away from the agent it takes away from the users' sessions, which are its children.
//! So there are two: for an agent that switches to the login's user, which needs root for that and can be
//! bound little; and for one whose sessions are all one user's, which needs nothing and is bound much.

use std::path::Path;

/// A unit that starts `program` on the state in `dir`, unless that is the default, as `user` or as root.
#[must_use]
pub fn unit(program: &Path, dir: Option<&Path>, user: Option<&str>) -> String {
    let dir = dir.map_or_else(String::new, |dir| format!(" --data-dir {}", quoted(dir)));
    let who = match user {
        None => ROOT.to_owned(),
        Some(user) => USER.replace("@USER@", user),
    };
    UNIT.replace("@WHO@", &who)
        .replace("@PROGRAM@", &quoted(program))
        .replace("@DIR@", &dir)
}

/// A word of `ExecStart=`, as systemd.service(5) reads it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+%$".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

const UNIT: &str = "\
# Anteroom's node agent. Save it as /etc/systemd/system/anteroom-node.service, then
#   systemctl daemon-reload && systemctl enable --now anteroom-node
[Unit]
Description=Anteroom node agent
Wants=network-online.target
After=network-online.target nss-user-lookup.target

[Service]
Type=notify
ExecStart=@PROGRAM@ node run@DIR@
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2s
# 64 and 78, wrong usage and bad configuration: trying again would not mend them.
RestartPreventExitStatus=64 78
WatchdogSec=60s
TimeoutStopSec=30s
# As in sshd's unit: a stop ends the agent's sessions, and leaves alone what users have detached
# from them (tmux, nohup). That stays in the unit's control group, so a restart finds it there.
KillMode=process
# One user's program that runs out of memory must not take the agent and all sessions with it.
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536
StateDirectory=anteroom-node
StateDirectoryMode=0700
KeyringMode=private

@WHO@
[Install]
WantedBy=multi-user.target
";

/// For sessions of any login.
const ROOT: &str = "\
# As root, which the agent uses to switch to the login's user, for the login's terminal and for the
# records of logins. Sessions inherit what is set here, so these are *not* set:
#   NoNewPrivileges          sudo and su would fail in sessions
#   CapabilityBoundingSet    a root session, and sudo, would be a root without its rights
#   ProtectSystem, ProtectHome, PrivateTmp, PrivateDevices, ReadOnlyPaths
#                            users would see another file system than at the console
#   ProtectKernel*, ProtectControlGroups, ProtectClock, ProtectHostname, RestrictSUIDSGID
#                            administrators could not do their work, nor install packages
#   SystemCallFilter, SystemCallArchitectures, RestrictNamespaces, RestrictRealtime, LockPersonality,
#   MemoryDenyWriteExecute, RestrictAddressFamilies
#                            debuggers, containers, JIT compilers and 32-bit programs would break
# Where all sessions are one user's, `anteroom node unit --user USER` sets nearly all of them.
";

/// For sessions of one login.
const USER: &str = "\
# As an ordinary user: the agent needs no privilege, and only sessions as that user are possible.
# Sessions inherit all of this; in them there is no sudo, su, ping with file capabilities, or container.
User=@USER@
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# Not set: ProtectHome and PrivateTmp, since the user's files are what the sessions are for;
# MemoryDenyWriteExecute, which breaks JIT compilers.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_this_program_on_this_directory() {
        let text = unit(Path::new("/usr/bin/anteroom"), None, None);
        assert!(text.contains("\nExecStart=/usr/bin/anteroom node run\n"));
        let dir = Path::new("/srv/100%/x");
        let text = unit(Path::new("/opt/a b/anteroom"), Some(dir), None);
        assert!(
            text.contains("\nExecStart=\"/opt/a b/anteroom\" node run --data-dir /srv/100%%/x\n")
        );
    }

    #[test]
    fn nothing_that_would_break_users_sessions_is_set() {
        let text = unit(Path::new("/usr/bin/anteroom"), None, None);
        let set: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for breaks in [
            "NoNewPrivileges",
            "ProtectSystem",
            "ProtectHome",
            "PrivateTmp",
            "CapabilityBoundingSet",
        ] {
            assert!(!set.iter().any(|line| line.starts_with(breaks)), "{breaks}");
        }
    }

    #[test]
    fn an_agent_of_one_user_is_given_no_privilege() {
        let text = unit(Path::new("/usr/bin/anteroom"), None, Some("deploy"));
        for line in [
            "User=deploy",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }
}
