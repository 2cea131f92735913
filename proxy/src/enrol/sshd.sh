sshd_is_content() {
    if complaint=$("$sshd" -t 2>&1 </dev/null); then
        return 0
    fi
    # A machine whose sshd is not running lacks this directory.
    missing=$(printf '%s\n' "$complaint" | sed -n 's/^Missing privilege separation directory: //p')
    [ -n "$missing" ] && mkdir -p "$missing" && complaint=$("$sshd" -t 2>&1 </dev/null)
}

# What is in effect for a login of user $1 from the proxy.
look_at() {
    # All of it: a Match on what is not said here would be an error.
    peer="user=$1,host=$proxy_addr,addr=$proxy_addr,laddr=$node_addr,lport=$node_port,rdomain="
    in_effect=$("$sshd" -T -C "$peer" 2>&1 </dev/null) ||
        fail "sshd does not tell its configuration: $in_effect"
}

# The value of option $1 (in small letters), among what look_at has seen.
value_of() { printf '%s\n' "$in_effect" | sed -n "s/^$1 //p"; }

systemd_runs() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; }

# Has a running sshd read its configuration again. Connections that exist go on.
reload() {
    if systemd_runs; then
        for unit in ssh.service sshd.service; do
            if systemctl -q is-active "$unit" 2>/dev/null; then
                systemctl reload "$unit" </dev/null
                return
            fi
        done
        for unit in ssh.socket sshd.socket; do
            # Started for each connection, it reads its configuration then.
            ! systemctl -q is-active "$unit" 2>/dev/null || return 0
        done
    fi
    pid_file=$(value_of pidfile)
    if [ -n "$pid_file" ] && [ -s "$pid_file" ]; then
        read -r pid <"$pid_file"
        if kill -0 "$pid" 2>/dev/null; then
            kill -HUP "$pid"
            return
        fi
    fi
    for name in ssh sshd; do
        if command -v rc-service >/dev/null 2>&1 && rc-service -e "$name" 2>/dev/null; then
            rc-service "$name" reload </dev/null
            return
        fi
        if [ -x "/etc/init.d/$name" ] && command -v service >/dev/null 2>&1 &&
            service "$name" status >/dev/null 2>&1 </dev/null; then
            service "$name" reload </dev/null
            return
        fi
    done
    say "no running sshd was found; the new configuration counts from its next start"
}

# Writes what is in the file $1 to $2 in one step, so that nobody ever reads half of it; its mode is $3, or 0644.
put_file() {
    if ! { cp "$1" "$2.anteroom-new" && chmod "${3:-0644}" "$2.anteroom-new" && mv -f "$2.anteroom-new" "$2"; }; then
        rm -f "$2.anteroom-new"
        return 1
    fi
    if command -v restorecon >/dev/null 2>&1; then
        restorecon "$2" >/dev/null 2>&1 || :
    fi
}
