#!/bin/sh
# Makes this machine a node of an Anteroom cluster: from then on its sshd lets in whoever comes from the
# proxy with a certificate for one login on this one node. Nothing but sshd's configuration is changed, and
# all that is changed is below: read it, it is short.
#
# Everything is a function, and the last line calls one: of a script that was cut off nothing is done.
# What goes wrong is said, everything is put back as it was, and the exit status is 1. It may be run again.

# ---- what the proxy says

values() {
    cluster=@CLUSTER@
    node_name=@NODE_NAME@
    node_id=@NODE_ID@
    # Who may certify logins, one key a line.
    node_ca=@NODE_CA@
    # Certificates that count no more, in base64.
    revoked=@REVOKED@
    # From where the proxy comes and to where, as well as it knows; for `sshd -T -C`.
    proxy_addr=@PROXY_ADDR@
    node_addr=@NODE_ADDR@
    node_port=@NODE_PORT@
    # What to type on one's own machine afterwards.
    log_in=@LOG_IN@
    # The systemd unit that keeps a tunnel to the proxy, where this node is reached by one.
    tunnel_unit=@TUNNEL_UNIT@
    tunnel_command=@TUNNEL_COMMAND@
}

# For each host key: its type, the key, and its certificate.
certificates() {
    while read -r use_type use_key use_certificate; do
        "$@" "$use_type" "$use_key" "$use_certificate" || return 1
    done <<'CERTIFICATES'
@CERTIFICATES@
CERTIFICATES
}

# What renews it all, to be read by itself.
renewal_script() {
    cat <<'RENEWAL'
@RENEWAL@
RENEWAL
}

# ---- where things are

places() {
    PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin
    export PATH
    LC_ALL=C
    export LC_ALL
    umask 022
    ssh_dir=/etc/ssh
    main_config=$ssh_dir/sshd_config
    drop_in=$ssh_dir/sshd_config.d/anteroom.conf
    ca_file=$ssh_dir/anteroom_node_ca.pub
    krl_file=$ssh_dir/anteroom_krl
    unit_file=/etc/systemd/system/anteroom-tunnel.service
    renew_file=/usr/local/sbin/anteroom-renew
    renew_service=/etc/systemd/system/anteroom-renew.service
    renew_timer=/etc/systemd/system/anteroom-renew.timer
    cron_file=/etc/cron.d/anteroom-renew
    principals_command="/bin/echo %u@$node_id"
    # SIGHUP needs the full path of what is running.
    sshd=$(command -v sshd) || sshd=
    backup=
}

say() { printf 'anteroom: %s\n' "$*"; }

# ---- nothing is lost

# Keeps a file as it is, or that it is not there, for put_back.
save() {
    mkdir -p "$backup${1%/*}"
    if [ -e "$1" ]; then
        cp -p "$1" "$backup$1" || return 1
    fi
    printf '%s\n' "$1" >>"$backup/files"
}

put_back() {
    [ -f "$backup/files" ] || return 0
    while read -r file; do
        if [ -e "$backup$file" ]; then
            cp -p "$backup$file" "$file"
        else
            forget_unit "$file"
            rm -f "$file"
        fi
    done <"$backup/files"
    [ ! -f "$backup/dirs" ] || while read -r dir; do
        rmdir "$dir" 2>/dev/null || :
    done <"$backup/dirs"
}

# A unit that was not there before is not started any more.
forget_unit() {
    case $1 in
    *.service | *.timer)
        if [ -e "$1" ] && systemd_runs; then
            systemctl -q disable --now "${1##*/}" >/dev/null 2>&1 </dev/null || :
        fi
        ;;
    esac
}

need_dir() {
    [ -d "$1" ] && return
    mkdir "$1" || fail "$1 can't be made"
    printf '%s\n' "$1" >>"$backup/dirs"
}

forget_backup() {
    [ -z "$backup" ] || rm -rf "$backup"
    backup=
}

fail() {
    printf 'anteroom: %s\n' "$*" >&2
    if [ -n "$backup" ]; then
        put_back
        forget_backup
        printf 'anteroom: everything was put back, and this machine is as it was\n' >&2
    fi
    exit 1
}

# Writes what is in the file $1 to $2 in one step, with mode $3 or 0644.
install_file() { put_file "$1" "$2" "${3:-0644}" || fail "$2 can't be written"; }

# ---- what sshd makes of its configuration

@SSHD@

# Stops if somebody else has set option $1 to something else than $2: of two values one counts, so that ours
# would be ignored in silence, or would take the place of what somebody relies on.
not_taken() {
    value=$(value_of "$(printf '%s' "$1" | tr '[:upper:]' '[:lower:]')")
    case $value in
    '' | none | "$2") ;;
    *) fail "sshd has \`$1 $value\` already, which is not Anteroom's; take that line away (grep -ri $1 $ssh_dir), and give the command again" ;;
    esac
}

in_force() {
    value=$(value_of "$(printf '%s' "$2" | tr '[:upper:]' '[:lower:]')")
    [ "$value" = "$3" ] ||
        fail "for user $1 sshd has \`$2 ${value:-none}\` in effect and not \`$2 $3\`; see its Match blocks (grep -ri -e match -e $2 $ssh_dir)"
}

# ---- the parts

check_machine() {
    [ "$(id -u)" = 0 ] || fail "only root can set up sshd; pipe the script into \`sudo sh\`"
    [ -n "$sshd" ] || fail "there is no sshd here; install it (openssh-server), or use the node agent"
    [ -f "$main_config" ] || fail "there is no $main_config"
    found=no
    certificates is_here
    [ "$found" = yes ] || fail "none of the host keys that were sent is in $ssh_dir; run this on the machine that it is for"
    sshd_is_content || fail "sshd's configuration was not right before, and nothing was changed: $complaint"
}

is_here() {
    for file in "$ssh_dir"/ssh_host_*_key.pub; do
        [ -f "$file" ] || continue
        read -r here_type here_key _ <"$file" || :
        if [ "$here_type $here_key" = "$1 $2" ]; then
            found=yes
        fi
    done
}

start_backup() {
    backup=$(mktemp -d "$ssh_dir/.anteroom-backup.XXXXXX") || fail "$ssh_dir can't be written"
    trap 'fail "interrupted"' HUP INT TERM
    for file in "$main_config" "$drop_in" "$ca_file" "$krl_file" "$unit_file" \
        "$renew_file" "$renew_service" "$renew_timer" "$cron_file"; do
        save "$file" || fail "$file can't be saved"
    done
    certificates save_certificate || fail "the host certificates can't be saved"
}

certificate_file() { printf '%s/anteroom_host_%s-cert.pub' "$ssh_dir" "$1"; }

save_certificate() { save "$(certificate_file "$1")"; }

# Takes away what an earlier run has written, so that what is left is everybody else's.
without_ours() {
    rm -f "$drop_in"
    sed '/^# BEGIN anteroom$/,/^# END anteroom$/d' "$backup$main_config" >"$backup/others"
    cmp -s "$backup/others" "$main_config" || cat "$backup/others" >"$main_config"
    sshd_is_content || fail "sshd's configuration is not right without Anteroom's part: $complaint"
    look_at root
    not_taken TrustedUserCAKeys "$ca_file"
    not_taken AuthorizedPrincipalsCommand "$principals_command"
    not_taken AuthorizedPrincipalsCommandUser nobody
    not_taken RevokedKeys "$krl_file"
    other_certificates=$(value_of hostcertificate)
}

# The list comes first: sshd lets nobody in whose RevokedKeys is not there.
install_files() {
    # An empty list in its place would let in what is revoked.
    printf '%s\n' "$revoked" | base64 -d >"$backup/krl" ||
        fail "the revocation list can't be decoded; install base64 (coreutils)"
    install_file "$backup/krl" "$krl_file"
    printf '%s\n' "$node_ca" >"$backup/ca"
    install_file "$backup/ca" "$ca_file"
    certificate_lines=
    if [ -z "$other_certificates" ]; then
        certificates install_certificate || fail "the host certificates can't be written"
    else
        say "sshd has host certificates of somebody else, so that ours are left out; the proxy knows this machine by its host keys"
    fi
}

install_certificate() {
    printf '%s\n' "$3" >"$backup/certificate"
    install_file "$backup/certificate" "$(certificate_file "$1")"
    certificate_lines="${certificate_lines}HostCertificate $(certificate_file "$1")
"
}

config_lines() {
    cat <<LINES
# Written by Anteroom when this machine became node $node_name of $cluster.
TrustedUserCAKeys $ca_file
AuthorizedPrincipalsCommand $principals_command
AuthorizedPrincipalsCommandUser nobody
RevokedKeys $krl_file
LINES
    printf '%s' "$certificate_lines"
}

# Whether sshd reads the drop-in for everybody: what stands below a Match is for some.
reads_drop_ins() {
    awk '
        tolower($1) == "match" { exit }
        tolower($1) == "include" {
            for (i = 2; i <= NF; i++) {
                gsub(/"/, "", $i)
                if ($i ~ /^(\/etc\/ssh\/)?sshd_config\.d\/\*(\.conf)?$/) found = 1
            }
        }
        END { exit !found }
    ' "$main_config"
}

# In a drop-in where sshd reads one, else at the very top: what stands at the end may belong to a Match.
install_config() {
    if reads_drop_ins; then
        need_dir "${drop_in%/*}"
        config_lines >"$backup/lines"
        install_file "$backup/lines" "$drop_in"
        where=$drop_in
        return
    fi
    say "$main_config does not include sshd_config.d/*.conf, so that the lines go to its top"
    {
        echo '# BEGIN anteroom'
        config_lines
        echo '# END anteroom'
        cat "$backup/others"
    } >"$backup/new"
    # Not moved: the file keeps its owner, mode and context.
    cat "$backup/new" >"$main_config" || fail "$main_config can't be written"
    where=$main_config
}

check_config() {
    sshd_is_content || fail "sshd does not take the configuration: $complaint"
    for user in root nobody; do
        look_at "$user"
        in_force "$user" TrustedUserCAKeys "$ca_file"
        in_force "$user" AuthorizedPrincipalsCommand "$principals_command"
        in_force "$user" AuthorizedPrincipalsCommandUser nobody
        in_force "$user" RevokedKeys "$krl_file"
        in_force "$user" PubkeyAuthentication yes
    done
}

# ---- what goes on by itself

# Once a day everything above is renewed, long before the host certificates end.
install_renewal() {
    renewal_script >"$backup/renewal"
    # A system whose files can't be changed gets in all the same.
    if ! { mkdir -p "${renew_file%/*}" && put_file "$backup/renewal" "$renew_file" 0755; } 2>/dev/null; then
        say "$renew_file can't be written, so that nothing is renewed here by itself, and the host certificates end in 29 days; \`nodes renewal $node_name\` prints it for another place"
        renew_file=
        return 0
    fi
    if systemd_runs; then
        install_timer
    elif [ -d "${cron_file%/*}" ]; then
        cron_line >"$backup/cron"
        install_file "$backup/cron" "$cron_file"
    else
        say "there is neither systemd nor ${cron_file%/*} here; have this run once a day: $renew_file"
    fi
}

# At a minute of the day that is this machine's own, so that not all of them ask at once.
cron_line() {
    place=$(printf %s "$node_id" | cksum | cut -d' ' -f1)
    printf '# Renews what Anteroom has given this machine.\n'
    printf '%s %s * * * root [ ! -x %s ] || %s\n' \
        "$((place % 60))" "$((place / 60 % 24))" "$renew_file" "$renew_file"
}

install_timer() {
    rm -f "$cron_file"
    cat >"$backup/service" <<UNIT
[Unit]
Description=Renews what Anteroom has given this machine: node CA, revocation list, host certificates
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=$renew_file
PrivateTmp=yes
ProtectHome=yes
UNIT
    cat >"$backup/timer" <<UNIT
[Unit]
Description=Renews what Anteroom has given this machine, once a day

[Timer]
OnCalendar=daily
# Machines that were set up together don't ask together.
RandomizedDelaySec=12h
Persistent=yes

[Install]
WantedBy=timers.target
UNIT
    install_file "$backup/service" "$renew_service"
    install_file "$backup/timer" "$renew_timer"
    systemctl daemon-reload </dev/null && systemctl -q enable anteroom-renew.timer </dev/null &&
        systemctl restart anteroom-renew.timer </dev/null
}

# Now, so that what would fail in a month is seen today.
try_renewal() {
    [ -n "$renew_file" ] || return 0
    "$renew_file" </dev/null ||
        say "the renewal has failed now, see above; until $renew_file succeeds nothing is renewed"
}

start_tunnel() {
    [ -n "$tunnel_unit" ] || return 0
    if systemd_runs; then
        printf '%s\n' "$tunnel_unit" >"$backup/unit"
        install_file "$backup/unit" "$unit_file"
        systemctl daemon-reload </dev/null && systemctl -q enable anteroom-tunnel.service </dev/null &&
            systemctl restart anteroom-tunnel.service </dev/null
        return
    fi
    say "there is no systemd here; this machine is reached while the following command runs, so have it run always:"
    printf '%s\n' "$tunnel_command"
}

undo() {
    put_back
    reload >/dev/null 2>&1 || :
    if systemd_runs; then
        systemctl daemon-reload >/dev/null 2>&1 </dev/null || :
    fi
    fail "$1"
}

enrol() {
    values
    places
    check_machine
    start_backup
    without_ours
    install_files
    install_config
    check_config
    reload || undo "sshd could not be told to read its configuration again"
    install_renewal || undo "the renewal could not be started; \`systemctl status anteroom-renew.timer\` says why"
    start_tunnel || undo "the tunnel could not be started; \`journalctl -u anteroom-tunnel\` says why"
    trap - HUP INT TERM
    forget_backup
    try_renewal
    say "this machine is node $node_name ($node_id) of $cluster now; its sshd is set up in $where"
    say "log in from your own machine with: $log_in"
}

enrol
